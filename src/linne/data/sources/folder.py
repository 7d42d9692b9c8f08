"""`folder:DIR`: a folder of images, one sub-folder a class, with or without split folders above them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from linne.data.files import HASHED_BYTES, FileStore, Names, file_identities
from linne.data.index import LEAST_FILES, Arrays, Found, Index, index_of, spread
from linne.data.names import counted, listed, printable
from linne.data.places import nearest_path
from linne.data.source import Split
from linne.data.sources.layout import Layout, read_layout
from linne.data.sources.sample import sample_of
from linne.data.sources.synsets import is_wnid
from linne.data.sources.walk import Entries
from linne.data.split import Examples
from linne.errors import SourceError


def open_folder(location: str | None, root: Path | None) -> Examples:
    """Return the images of the folder `location`; `linne.data.sources.layout` says which layouts are understood.

    Nothing is decoded: size and colour come from the headers of at most 256 images spread over the set. What a large
    folder holds is kept in an index (`linne.data.index`) and had back while none of its folders has changed.

    Raises:
        SourceError: the folder is not there, or is not laid out as classes of images.
    """
    if not location:
        raise SourceError("`folder:` expects a folder", hint="type `folder:DIR`, with one sub-folder a class in DIR")
    path = Path(location).expanduser()
    _check(path, location)
    root_path, shown = os.path.realpath(path), printable(location).rstrip("/") or "/"
    return examples_of("folder 1", root_path, shown, lambda: _with_advice(read_layout(root_path, shown), shown))


def examples_of(key: str, root: str, shown: str, read: Callable[[], Layout]) -> Examples:
    """Return the images that `read` finds in the folder `root`, or found when last it was asked to.

    Args:
        key: Says how `read` reads, and changes when that does.
        root: A real path; the layout's paths are below it.
        shown: What to call the folder in messages.
        read: Looks at every name in the folder.
    """
    # What `shown` is stands in the notes.
    found, notes = index_of(f"{key}\0{root}\0{shown}", lambda: _look(root, shown, read()))
    return _examples(root, found, notes)


def _with_advice(layout: Layout, shown: str) -> Layout:
    """Return `layout` with a note where another source reads the same folder better."""
    if {"train", "val"} <= set(layout.splits) and all(map(is_wnid, layout.labels)):
        note = f"the classes are WordNet numbers: `imagenet:{shown}` reads this folder with their English names"
        return replace(layout, notes=(*layout.notes, note))
    return layout


def _look(root: str, shown: str, layout: Layout) -> Found:
    """Return what a layout of the folder `root` comes to, and what it hangs on."""
    images = [image for classes in layout.splits.values() for images in classes.values() for image in images]
    store = FileStore(root, Names.of(path for path, _ in images), np.array([size for _, size in images], np.int64))
    sample = sample_of(store, shown)
    facts = {
        "labels": list(layout.labels),
        "counts": {name: {label: len(c) for label, c in classes.items()} for name, classes in layout.splits.items()},
        "channels": sample.channels,
        "image_size": list(sample.image_size),
        "same_size": sample.same_size,
        "notes": [*layout.notes, *_say_ignored(layout.seen), *sample.notes],
    }
    arrays: Arrays = {"paths": store.paths.text, "ends": store.paths.ends_N, "sizes": store.sizes_N}
    folders = [os.path.join(root, folder) for folder in layout.folders]
    files = [store.path(position) for position in spread(len(store)).tolist()]
    # A link's target may change in a folder that is not listed.
    keep = len(store) >= LEAST_FILES and not layout.seen.followed
    return Found(Index(facts, arrays), [*folders, *files], keep)


def _examples(root: str, found: Index, notes: Sequence[str]) -> Examples:
    facts, arrays = found.facts, found.arrays
    store = FileStore(root, Names(arrays["paths"], arrays["ends"]), arrays["sizes"])
    by_content = int(store.sizes_N.sum()) <= HASHED_BYTES
    return Examples(
        labels=tuple(facts["labels"]),
        given=_splits(store, facts["labels"], facts["counts"]),
        channels=facts["channels"],
        image_size=tuple(facts["image_size"]),
        same_size=facts["same_size"],
        identities=file_identities,
        notes=(*facts["notes"], *notes),
        index="" if by_content else found.identity,
    )


def _splits(store: FileStore, labels: Sequence[str], counts: Mapping[str, Mapping[str, int]]) -> dict[str, Split]:
    """Return the splits over `store`, whose images are in the order of `counts`: by split, then by class."""
    position_of = {label: position for position, label in enumerate(labels)}
    splits, start = {}, 0
    for name, classes in counts.items():
        of_classes = np.array([position_of[label] for label in classes], np.int64)
        labels_N = np.repeat(of_classes, list(classes.values()))
        splits[name] = Split(name, store, np.arange(start, start + len(labels_N)), labels_N)
        start += len(labels_N)
    return splits


def _check(path: Path, location: str) -> None:
    try:
        if path.is_dir():
            return
        exists = path.exists()
    except ValueError:  # a NUL in the path
        exists = False
    if not exists:
        raise SourceError(f"no folder `{printable(location)}`", hint=nearest_path(path))
    packed = path.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
    raise SourceError(
        f"`{printable(location)}` is a file; expected a folder with one sub-folder a class",
        hint="unpack it first, then name the folder"
        if packed
        else "to classify one image: `linne predict BUNDLE FILE`",
    )


def _say_ignored(seen: Entries) -> list[str]:
    """Return a note for each kind of thing that was passed over."""
    notes = []
    if seen.hidden:
        names = [printable(name) for name in _by_name(seen.hidden)]
        notes.append(f"ignored {counted(len(seen.hidden), 'hidden entry', 'hidden entries')}: {listed(names, 5)}")
    if seen.others:
        kinds = Counter(os.path.splitext(path)[1].lower() or "without extension" for path in seen.others)
        kinds_text = ", ".join(f"{printable(kind)} ({number})" for kind, number in kinds.most_common(5))
        notes.append(f"ignored {counted(len(seen.others), 'file')} that are not images by name: {kinds_text}")
    if seen.links:
        links = [printable(link) for link in seen.links]
        notes.append(f"did not follow {counted(len(links), 'link')} to folders or out of the folder: {listed(links)}")
    return notes


def _by_name(paths: Sequence[str]) -> Mapping[str, int]:
    return Counter(os.path.basename(path) for path in paths)
