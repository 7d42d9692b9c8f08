"""Where examples come from: `open_source` turns what a user typed into labelled, split examples.

A new kind of source is one file with one function `(location, root) -> Examples`, and one line in `SOURCES`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from linne.data.manifest import follow, read_manifest, save_manifest
from linne.data.names import printable
from linne.data.source import Source, Split
from linne.data.split import Divided, Examples, SplitPlan, divide, fingerprint
from linne.errors import SourceError, suggest

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
    "digits": "linne.data.digits:open_digits",
    "folder": "linne.data.folder:open_folder",
    "mnist": "linne.data.idx:open_mnist",
    "fashion-mnist": "linne.data.idx:open_fashion_mnist",
    "cifar10": "linne.data.cifar:open_cifar10",
    "synthetic": "linne.data.synthetic:open_synthetic",
}

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


def open_source(
    name: str,
    *,
    val_fraction: float | None = 0.1,
    test_fraction: float = 0.15,
    split_seed: int = 0,
    root: Path | None = None,
    splits_file: Path | None = None,
    group_by: str | None = None,
    folds: int | None = None,
    fold: int | None = None,
) -> Source:
    """Return the source that a user typed as `name`, opened and split; no image is decoded.

    Args:
        name: `digits`, `folder:DIR`, a folder's path, `mnist[:DIR]`, `fashion-mnist[:DIR]`, `cifar10[:DIR]`,
            `synthetic[:classes=4,size=16,count=400]`.
        val_fraction: Share of train held out to choose the epoch where the source has no val split; None for none.
        test_fraction: Share of train held out for the final test where the source has neither test nor val.
        split_seed: Decides, with an example's name, whether it is held out.
        root: Where named sets are kept, instead of `$LINNE_DATA` and the user's data folder.
        splits_file: Splits that `save_manifest` wrote, to have again instead of making new ones.
        group_by: Keep together what has the same value in this column of a list, or in the one group of this regular
            expression over names.
        folds: Cut what trains into this many parts, with one of them for val.
        fold: Which, 1 to `folds`.

    Raises:
        SourceError: the source is not known, not there, or cannot be trusted.
        RecipeError: an option is out of range, or two of them do not go together.
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
    labels = examples.labels
    if splits_file is None:
        divided = divide(examples, plan)
    else:
        manifest = read_manifest(splits_file)
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


def knows_most_of(splits_file: Path, name: str) -> bool:
    """Return whether `splits_file` is there and most of the files it names are in the folder that `name` names."""
    kind, location, _ = _parse(name)
    if kind != "folder" or location is None or not splits_file.is_file():
        return False
    names = list(read_manifest(splits_file).places)
    root = os.path.expanduser(location)
    return 2 * sum(os.path.exists(os.path.join(root, name)) for name in names) > len(names)


def _parse(name: str) -> tuple[str, str | None, list[str]]:
    """Return the kind, what follows its colon (None for nothing), and a note where the name has another reading."""
    kind, colon, location = name.partition(":")
    if kind in SOURCES and (colon or kind != "folder"):
        # What a name means must not hang on the current folder; a path can always be typed as one.
        shadowed = not colon and os.path.isdir(name)
        notes = [f"`{name}` is the named set; for the folder of that name type `./{name}`"] if shadowed else []
        return kind, location if colon else None, notes
    if "\0" not in name and os.path.exists(name):
        return "folder", name, []
    if colon and len(kind) > 1 and kind.replace("-", "").isalnum():  # one letter is a drive of Windows
        raise SourceError(f"no kind of source `{kind}`", hint=suggest(kind, SOURCES) or _KNOWN)
    if any(mark in name for mark in ("~", ".", os.sep, os.altsep or os.sep)):
        return "folder", name, []
    near = suggest(name, [*SOURCES, *os.listdir()])
    raise SourceError(f"no source or folder `{printable(name)}`", hint=near or _KNOWN)


_KNOWN = "`linne data list` shows what there is; a folder is named by its path"


def _opener(kind: str) -> Opener:
    module, _, function = SOURCES[kind].partition(":")
    return cast(Opener, getattr(import_module(module), function))


def list_sources() -> list[SourceListing]:
    """Return what can be given as SOURCE: what it is, where its files are looked for, and whether they are there."""
    from linne.data.cifar import CIFAR10
    from linne.data.idx import FASHION_MNIST, MNIST
    from linne.data.places import find, places

    has_sklearn = find_spec("sklearn") is not None
    digits = "1,797 handwritten digits, 8 x 8 grey"
    listings = [
        SourceListing("digits", digits, ("scikit-learn",), "in scikit-learn" if has_sklearn else None),
        SourceListing("folder:DIR", "your own images, one sub-folder a class", (), "in DIR"),
    ]
    for named in (MNIST, FASHION_MNIST, CIFAR10):
        folders = places(named, None, None)
        paths = find(named, folders)
        found = str(next(iter(paths.values())).parent) if paths else None
        listings.append(SourceListing(named.name, named.about, tuple(map(str, folders)), found))
    listings.append(SourceListing("synthetic", "striped images, for trying things", (), "made on the spot"))
    return listings
