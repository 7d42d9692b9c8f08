"""Where examples come from: `open_source` turns what a user typed into labelled, split examples.

A new kind of source is one file with one function `(location, root) -> Examples`, and one line in `SOURCES`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import cast
from unicodedata import normalize

from linne.data.manifest import follow, read_manifest, save_manifest
from linne.data.names import listed, printable
from linne.data.source import Source, Split
from linne.data.split import Divided, Examples, SplitPlan, divide, fingerprint
from linne.errors import RecipeError, SourceError, suggest

__all__ = [
    "SOURCES",
    "Source",
    "SourceListing",
    "Split",
    "knows_most_of",
    "list_sources",
    "open_source",
    "save_manifest",
]

SOURCES = {
    "digits": "linne.data.sources.digits:open_digits",
    "folder": "linne.data.sources.folder:open_folder",
    "mnist": "linne.data.sources.idx:open_mnist",
    "fashion-mnist": "linne.data.sources.idx:open_fashion_mnist",
    "cifar10": "linne.data.sources.cifar:open_cifar10",
    "cifar100": "linne.data.sources.cifar:open_cifar100",
    "imagenette": "linne.data.sources.imagenette:open_imagenette",
    "tiny-imagenet": "linne.data.sources.tiny_imagenet:open_tiny_imagenet",
    "imagenet": "linne.data.sources.imagenet:open_imagenet",
    "list": "linne.data.sources.lists:open_list",
    "webdataset": "linne.data.shards.reading:open_shards",
    "hf": "linne.data.sources.huggingface:open_huggingface",
    "synthetic": "linne.data.sources.synthetic:open_synthetic",
}

LIST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
"""Files of these endings are read as lists of images."""

Opener = Callable[[str | None, Path | None], Examples]
"""What `SOURCES` names: from what follows the colon, and where named sets are kept, to examples."""


@dataclass(frozen=True, slots=True)
class SourceListing:
    """One kind of source, for `linne data list`."""

    name: str
    """What to type."""
    about: str
    looked_in: tuple[str, ...]
    """Where it is looked for, in order; empty for what is always there."""
    found: str | None
    """Where it is, or None where it is not."""
    download_bytes: int | None = None
    """For a published set, how much there is to fetch, or to bring."""


def open_source(
    name: str,
    *,
    val_fraction: float | None = 0.1,
    test_fraction: float = 0.15,
    split_seed: int = 0,
    group_by: str | None = None,
    folds: int | None = None,
    fold: int | None = None,
    splits_file: Path | None = None,
    quarantine: Path | None = None,
    root: Path | None = None,
    must_train: bool = True,
) -> Source:
    """Return the source that a user typed as `name`, opened and split; no image is decoded.

    Args:
        name: A named set (`linne data list`), a folder's path, a list's (`.csv`, `.tsv`, `.jsonl`, `.parquet`), a
            shard's or a pattern of shards (`photos-{000..009}.tar`), or `KIND:LOCATION`: `folder:DIR`, `mnist:DIR`.
        val_fraction: Share of train held out to choose the epoch where the source has no val split; None for none.
        test_fraction: Share of train held out for the final test where the source has neither test nor val.
        split_seed: Decides, with an example's name, whether it is held out.
        group_by: A column of a list, or a regular expression with one group over names: what it gives alike is never
            parted by a split.
        folds: Cut train into so many folds, and validate on one.
        fold: Which one, from 1.
        splits_file: Splits that `save_manifest` wrote, to have again instead of making new ones.
        quarantine: A list of examples to leave out, as `linne data check --quarantine` writes it.
        must_train: Whether to refuse a list of which no row trains; there is nothing to split in one.
        root: Where named sets are kept, instead of `$LINNE_DATA` and the user's data folder.

    Raises:
        SourceError: the source is not known, not there, or cannot be trusted.
        RecipeError: a fraction, a fold or `group_by` cannot be used, or not beside `splits_file`.
    """
    plan = SplitPlan(
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=split_seed,
        group_by=group_by,
        folds=folds,
        fold=fold,
    )
    kind, location, notes = _parse(name)
    examples = _opener(kind)(location, root)
    if must_train:
        _require_train(name, examples)
    examples, left_out = _without_quarantined(examples, quarantine)
    if splits_file is None:
        labels, divided = examples.labels, divide(examples, plan)
    else:
        _check_alone(group_by=group_by, folds=folds)
        manifest = read_manifest(splits_file)
        # What is left out on purpose is not missed; a test image that is gone otherwise is an error.
        places = {name: place for name, place in manifest.places.items() if name not in left_out}
        manifest = replace(manifest, places=places)
        splits, more_notes = follow(examples, manifest, printable(splits_file))
        labels = manifest.labels
        divided = Divided(splits, tuple(more_notes), fingerprint(examples, splits, labels))
    return Source(
        name=name,
        labels=labels,
        splits=divided.splits,
        fingerprint=divided.fingerprint,
        channels=examples.channels,
        image_size=examples.image_size,
        same_size=examples.same_size,
        notes=(*notes, *examples.notes, *divided.notes),
    )


def _without_quarantined(examples: Examples, quarantine: Path | None) -> tuple[Examples, Mapping[str, str]]:
    """Return the examples that are not on the list, and why the others are, by name."""
    if quarantine is None:
        return examples, {}
    from linne.data.quarantine import leave_out, read_quarantine

    left_out = read_quarantine(quarantine)
    return leave_out(examples, left_out), left_out


def _require_train(name: str, examples: Examples) -> None:
    """Raise SourceError for a list of which no row trains."""
    if "train" not in examples.given:
        raise SourceError(
            f"`{printable(name)}` has rows of {listed(list(examples.given))} and none of `train`",
            hint="`linne evaluate` takes it; to train, leave out the column of splits, and linne makes them",
        )


def _check_alone(**others: object) -> None:
    """Raise where something is asked for that a split file has decided."""
    for option, value in others.items():
        if value is not None:
            raise RecipeError(
                f"splits_file says who is in which split, and {option} would make other splits",
                hint="leave one of them out",
            )


def knows_most_of(splits_file: Path, name: str) -> bool:
    """Return whether `splits_file` is there and most of the files it names are in the source that `name` names."""
    kind, location, _ = _parse(name)
    if not splits_file.is_file():
        return False
    names = list(read_manifest(splits_file).places)
    if kind == "folder" and location is not None:  # without listing it; names that are not as on disk are not found
        root = os.path.expanduser(location)
        if 2 * sum(os.path.exists(os.path.join(root, name)) for name in names) > len(names):
            return True
    given = _opener(kind)(location, None).given.values()
    there = {normalize("NFC", split.example_name(position)) for split in given for position in range(len(split))}
    return 2 * sum(normalize("NFC", name) in there for name in names) > len(names)


def _parse(name: str) -> tuple[str, str | None, list[str]]:
    """Return the kind, what follows its colon (None for nothing), and a note where the name has another reading."""
    kind, colon, location = name.partition(":")
    if kind in SOURCES and (colon or kind != "folder"):
        # What a name means must not hang on the current folder; a path can always be typed as one.
        shadowed = not colon and os.path.isdir(name)
        notes = [f"`{name}` is the named set; for the folder of that name type `./{name}`"] if shadowed else []
        return kind, location if colon else None, notes
    of_path = _kind_of_path(name)
    if of_path is not None:
        return of_path, name, []
    if colon and len(kind) > 1 and kind.replace("-", "").isalnum():  # one letter is a drive of Windows
        raise SourceError(f"no kind of source `{kind}`", hint=suggest(kind, SOURCES) or _KNOWN)
    if any(mark in name for mark in ("~", ".", os.sep, os.altsep or os.sep)):
        return "folder", name, []
    near = suggest(name, [*SOURCES, *os.listdir()])
    raise SourceError(f"no source or folder `{printable(name)}`", hint=near or _KNOWN)


def _kind_of_path(name: str) -> str | None:
    """Return which kind of source a path names by its ending, or by what is there; None for what is no path."""
    from linne.data.shards.names import holds_shards

    if "\0" in name:
        return None
    exists = os.path.exists(name)
    # `photos.csv?label=kind` is a list as well.
    of_list = any(place.lower().endswith(LIST_SUFFIXES) for place in (name, name.rpartition("?")[0]))
    if of_list and not os.path.isdir(name):
        return "list"
    if name.lower().endswith(".tar") and (exists or any(mark in name for mark in "{*?")):
        return "webdataset"
    if not exists:
        return None
    return "webdataset" if os.path.isdir(name) and holds_shards(name) else "folder"


_KNOWN = "`linne data list` shows what there is; a folder is named by its path"


def _opener(kind: str) -> Opener:
    module, _, function = SOURCES[kind].partition(":")
    return cast(Opener, getattr(import_module(module), function))


_FORMS = {
    "list:FILE": "images named in a .csv, .tsv, .jsonl or .parquet file; its path is enough",
    "webdataset:SHARDS": "images in .tar files: a folder of them, one, or a pattern such as `train-{000..009}.tar`",
    "hf:NAME": "a set of the Hugging Face hub, or `hf:DIR` for one saved by its `datasets` library",
}


def list_sources() -> list[SourceListing]:
    """Return what can be given as SOURCE: what it is, where its files are looked for, and whether they are there."""
    from linne.data.places import find, places
    from linne.data.sources.published import PUBLISHED

    has_sklearn = find_spec("sklearn") is not None
    digits = "1,797 handwritten digits, 8 x 8 grey"
    listings = [
        SourceListing("digits", digits, ("scikit-learn",), "in scikit-learn" if has_sklearn else None),
        SourceListing("folder:DIR", "your own images, one sub-folder a class", (), "in DIR"),
    ]
    for named in PUBLISHED.values():
        folders = places(named, None, None)
        paths = find(named, folders)
        found = str(next(iter(paths.values())).parent) if paths else None
        looked_in = tuple(map(str, folders))
        listings.append(SourceListing(named.name, named.about, looked_in, found, named.download_bytes))
    for name, about in _FORMS.items():
        listings.append(SourceListing(name, about, (), f"in {name.partition(':')[2]}"))
    listings.append(SourceListing("synthetic", "striped images, for trying things", (), "made on the spot"))
    return listings
