"""`tiny-imagenet`: 200 classes at 64 x 64. Its val images lie in one folder, and a table says what they are.

    train/n01443537/images/n01443537_0.JPEG ...    val/images/val_0.JPEG ...    test/images/... (without labels)
    wnids.txt    words.txt    val/val_annotations.txt: `val_0.JPEG<TAB>n03444034<TAB>box`

Scripts that move the val images into class folders are in wide use; a copy that was treated so is read as well.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from linne.data.names import counted, printable
from linne.data.places import Download, NamedSet, locate
from linne.data.sources.folder import examples_of
from linne.data.sources.layout import Images, Layout
from linne.data.sources.synsets import is_wnid, read_words, renamed
from linne.data.sources.walk import Entries, join, list_folder, walk
from linne.data.split import Examples
from linne.errors import SourceError

TINY_IMAGENET = NamedSet(
    name="tiny-imagenet",
    about="110,000 photos of 200 things, from ImageNet, 64 x 64",
    page="https://cs231n.stanford.edu (`tiny-imagenet-200.zip`)",
    official="tiny-imagenet-200",
    files={name: (name,) for name in ("train", "val", "wnids.txt", "words.txt")},
    downloads=(
        # The publisher gives no hash: md5 and sha256 as recorded by many who fetched the file.
        Download(
            name="tiny-imagenet-200.zip",
            urls=(
                "https://cs231n.stanford.edu/tiny-imagenet-200.zip",
                "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
            ),
            size_bytes=248_100_043,
            md5="90528d7ca1a48142e341f4ef8d21d0de",
            sha256="6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
            unpack=".",
        ),
    ),
    unpacked_bytes=500_000_000,
    counts={"train": 100_000, "val": 10_000},
)
_TABLE = "val/val_annotations.txt"
_AGAIN = "the copy is incomplete or was changed; type `linne data get tiny-imagenet` for a fresh one"


def open_tiny_imagenet(location: str | None, root: Path | None) -> Examples:
    """Return Tiny ImageNet with its official train and val splits; classes in the order of their WordNet numbers.

    Nothing is moved: the val images are sorted into their classes by the publisher's table as they are listed.

    Raises:
        SourceError: its files are not found, or the table and the images do not fit.
    """
    folder = os.path.realpath(locate(TINY_IMAGENET, location, root)["train"].parent)
    return examples_of("tiny-imagenet 1", folder, printable(folder), lambda: _layout(folder))


def _layout(root: str) -> Layout:
    with open(os.path.join(root, "wnids.txt"), encoding="ascii", errors="replace") as file:
        wnids = sorted(filter(is_wnid, file.read(2**20).split()))
    if len(set(wnids)) != len(wnids) or len(wnids) < 2:
        raise SourceError(f"`{printable(root)}/wnids.txt` names no classes, or one twice", hint=_AGAIN)
    train = {wnid: walk(root, f"train/{wnid}") for wnid in wnids}
    empty = [wnid for wnid in wnids if not train[wnid].images]
    if empty:
        raise SourceError(f"`{printable(root)}/train/{empty[0]}` holds no images", hint=_AGAIN)
    val, seen, notes = _val(root, wnids)
    met = join([*train.values(), seen])
    splits = {"train": {wnid: entries.images for wnid, entries in train.items()}, "val": val}
    layout = Layout(
        root=root,
        labels=tuple(wnids),
        splits=splits,
        seen=replace(met, others=()),  # the tables of boxes in every class folder
        notes=(f"read from `{printable(root)}`", *notes),
        folders=(*met.listed, "wnids.txt", "words.txt", _TABLE),
    )
    return renamed(layout, read_words(Path(root, "words.txt")))


def _val(root: str, wnids: list[str]) -> tuple[Mapping[str, Images], Entries, list[str]]:
    """Return the val images of each class, what was met, and notes."""
    if not os.path.isdir(os.path.join(root, "val/images")):
        entries = {wnid: walk(root, f"val/{wnid}") for wnid in wnids}
        images = {wnid: found.images for wnid, found in entries.items() if found.images}
        return images, join(entries.values()), ["val has been sorted into class folders, which are used"]
    listed = list_folder(root, "val/images")
    waiting = dict(listed.images)
    classes: dict[str, list[tuple[str, int]]] = {wnid: [] for wnid in wnids}
    with open(os.path.join(root, _TABLE), encoding="utf-8", errors="replace") as file:
        lines = file.read(32 * 2**20).splitlines()
    for number, line in enumerate(lines, start=1):
        name, _, rest = line.partition("\t")
        wnid, path = rest.partition("\t")[0], f"val/images/{name}"
        if wnid not in classes or path not in waiting:
            wrong = (
                f"no class `{printable(wnid)}`" if wnid not in classes else f"no image `{printable(path)}`, or twice"
            )
            raise SourceError(f"line {number} of `{printable(root)}/{_TABLE}`: there is {wrong}", hint=_AGAIN)
        classes[wnid].append((path, waiting.pop(path)))
    notes = [f"val is sorted into its classes by `{_TABLE}`; no file was moved"]
    if waiting:
        notes.append(f"not used: {counted(len(waiting), 'val image')} that the table does not name")
    return {wnid: images for wnid, images in classes.items() if images}, listed, notes
