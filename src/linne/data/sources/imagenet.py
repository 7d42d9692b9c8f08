"""`imagenet`: the ILSVRC 2012 set, as its publisher or Kaggle lays it out, or as torchvision's users have it.

    train/n01440764/*.JPEG ...    val/n01440764/*.JPEG ... or val/*.JPEG

Which class a val image is of, when they lie in one folder, says the publisher's devkit (`ILSVRC2012_devkit_t12`) or
Kaggle's `LOC_val_solution.csv` (which Kaggle puts three folders above). Nothing is moved.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from linne.data.names import counted, listed, printable
from linne.data.places import Download, NamedSet, locate
from linne.data.sources.folder import examples_of
from linne.data.sources.layout import Images, Layout
from linne.data.sources.synsets import is_wnid, read_words, renamed, words_of_timm
from linne.data.sources.walk import Entries, join, list_folder, walk
from linne.data.split import Examples
from linne.errors import LinneError, SourceError

_OFFICIAL = "ILSVRC/Data/CLS-LOC"
# md5: the publisher's. Sizes and sha256 of the images: tensorflow/datasets, `url_checksums`.
IMAGENET = NamedSet(
    name="imagenet",
    about="1,331,167 photos of 1,000 things; you bring the archives, its licence asks you to",
    page="https://image-net.org/challenges/LSVRC/2012/2012-downloads.php",
    official=_OFFICIAL,
    files={"train": ("train",), "val": ("val",)},
    downloads=(
        Download(name="ILSVRC2012_devkit_t12.tar.gz", md5="fa75699e90414af021442c21a62c3abf", unpack=_OFFICIAL),
        Download(
            name="ILSVRC2012_img_val.tar",
            size_bytes=6_744_924_160,
            md5="29b22e2961454d5413ddabcf34fc5622",
            sha256="c7e06a6c0baccf06d8dbeb6577d71efff84673a5dbdd50633ab44f8ea0456ae0",
            unpack=f"{_OFFICIAL}/val",
        ),
        Download(
            name="ILSVRC2012_img_train.tar",
            size_bytes=147_897_477_120,
            md5="1d675b47d978889d74fa0da5fadfb00e",
            sha256="b08200a27a8e34218a0e58fde36b0fe8f73bc377f4acea2d91602057c3ca45bb",
            unpack=f"{_OFFICIAL}/train",
            inner_tars=True,
        ),
    ),
    unpacked_bytes=158_000_000_000,
    counts={"train": 1_281_167, "val": 50_000},
)
_MOST_BYTES = 64 * 2**20
"""Of a table; Kaggle's has 50,000 lines of a hundred bytes."""


def open_imagenet(location: str | None, root: Path | None) -> Examples:
    """Return ImageNet with its official train and val splits; classes in the usual order, that of their numbers.

    Raises:
        SourceError: its folders are not found, or nothing says of which class the val images are.
    """
    folder = os.path.realpath(locate(IMAGENET, location, root)["train"].parent)
    return examples_of("imagenet 1", folder, printable(folder), lambda: _layout(folder))


def _layout(root: str) -> Layout:
    top = list_folder(root, "train")
    train = {os.path.basename(folder): walk(root, folder) for folder in top.folders}
    train = {name: entries for name, entries in train.items() if entries.images}
    if len(train) < 2:
        tars = any(path.endswith(".tar") for path in top.others)
        raise SourceError(
            f"`{printable(root)}/train` has {counted(len(train), 'class', 'classes')} with images, expected 1,000",
            hint="unpack the tar of each class, or type `linne data get imagenet`, which unpacks the archives whole"
            if tars
            else "expected a folder for each class: `train/n01440764/*.JPEG`",
        )
    words, words_from = _words(root)
    val, seen, notes = _val(root, sorted(train))
    met = join([top, *train.values(), seen])
    layout = Layout(
        root=root,
        labels=tuple(sorted(train)),
        splits={"train": {name: train[name].images for name in sorted(train)}, "val": val},
        seen=replace(met, others=()),
        notes=(f"read from `{printable(root)}`", f"classes are named by {words_from}", *notes),
        folders=met.listed,
    )
    return renamed(layout, words)


def _val(root: str, wnids: list[str]) -> tuple[Mapping[str, Images], Entries, list[str]]:
    """Return the val images of each class, what was met, and notes."""
    top = list_folder(root, "val")
    if top.folders:
        entries = {os.path.basename(folder): walk(root, folder) for folder in top.folders}
        unknown = [f"val/{printable(name)}" for name in entries if name not in wnids and entries[name].images]
        if unknown:
            raise SourceError(f"{listed(unknown)} in `{printable(root)}` are not among the classes of `train`")
        images = {wnid: entries[wnid].images for wnid in wnids if wnid in entries and entries[wnid].images}
        return images, join([top, *entries.values()]), []
    class_of, table = _val_classes(root)
    classes: dict[str, list[tuple[str, int]]] = {wnid: [] for wnid in wnids}
    num_other = 0
    for path, size in top.images:
        wnid = class_of.get(os.path.splitext(os.path.basename(path))[0])
        if wnid is None:
            raise SourceError(f"`{printable(path)}` is not in `{printable(table)}`, which says what val images show")
        if wnid in classes:
            classes[wnid].append((path, size))
        else:
            num_other += 1
    notes = [f"val is sorted into its classes by `{printable(table)}`; no file was moved"]
    if num_other:
        notes.append(f"not used: {counted(num_other, 'val image')} of classes that `train` does not have")
    return {wnid: found for wnid, found in classes.items() if found}, top, notes


def _val_classes(root: str) -> tuple[dict[str, str], Path]:
    """Return the WordNet number of each val image by its name without ending, and the table that says so."""
    table = _beside(root, "LOC_val_solution.csv")
    if table is not None:
        rows = (line.split(",", 1) for line in _text(table).splitlines() if "," in line)
        return {name: rest.split()[0] for name, rest in rows if rest.split() and is_wnid(rest.split()[0])}, table
    table = _beside(root, "ILSVRC2012_validation_ground_truth.txt")
    if table is None or not (table.parent / "meta.mat").is_file():
        raise SourceError(
            f"nothing says what the images in `{printable(root)}/val` show",
            hint="beside `val`, put the unpacked `ILSVRC2012_devkit_t12`, or Kaggle's `LOC_val_solution.csv`",
        )
    wnid_of = {number: wnid for number, wnid, _ in _read_meta(table.parent / "meta.mat")}
    numbers = [int(text) for text in _text(table).split() if text.isdecimal()]
    if not all(number in wnid_of for number in numbers):
        raise SourceError(f"`{printable(table)}` and `meta.mat` beside it do not belong together")
    return {f"ILSVRC2012_val_{k:08d}": wnid_of[number] for k, number in enumerate(numbers, start=1)}, table


def _words(root: str) -> tuple[dict[str, str], str]:
    """Return the words of the classes, and where they are from."""
    for name in ("LOC_synset_mapping.txt", "synset_words.txt", "words.txt"):
        table = _beside(root, name)
        if table is not None and (words := read_words(table)):
            return words, f"`{printable(table)}`"
    meta = _beside(root, "meta.mat")
    if meta is not None and find_spec("scipy") is not None:
        return {wnid: words for _, wnid, words in _read_meta(meta)}, f"`{printable(meta)}`"
    words = words_of_timm()
    return words, "timm's table" if words else "their WordNet numbers: no table of words is here, nor timm"


def _beside(root: str, name: str) -> Path | None:
    """Return the file `name` in `root` or its devkit; for Kaggle's tables, up to three folders above as well."""
    above = Path(root).parents[:3] if name.startswith("LOC_") else []
    candidates = [Path(root, folder, name) for folder in ("", "ILSVRC2012_devkit_t12/data", "data")]
    candidates += [folder / name for folder in above]
    return next((path for path in candidates if path.is_file()), None)


def _text(path: Path) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(_MOST_BYTES)


def _read_meta(path: Path) -> list[tuple[int, str, str]]:
    """Return number, WordNet number and words of each class in the devkit's `meta.mat`.

    Classes have the numbers 1 to 1,000; the rows after them are what is above those in WordNet.

    Raises:
        LinneError: scipy, which reads MATLAB's files, is not installed.
        SourceError: the file is another one.
    """
    if find_spec("scipy") is None:
        raise LinneError("`meta.mat` needs `scipy`, which is not installed", hint="pip install 'linne[train]'")
    try:
        rows = import_module("scipy.io").loadmat(path, squeeze_me=True)["synsets"]
        return [(int(row["ILSVRC2012_ID"]), str(row["WNID"]), str(row["words"])) for row in rows]
    except Exception as error:  # whatever scipy makes of a damaged file
        raise SourceError(
            f"`{printable(path)}` is not the devkit's table of classes: {type(error).__name__}"
        ) from error
