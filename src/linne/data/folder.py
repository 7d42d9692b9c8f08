"""`folder:DIR`: a folder of images, one sub-folder a class, with or without split folders above them."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from linne.data.decode import Header, decode_file, peek_file
from linne.data.layout import Layout, read_layout
from linne.data.names import counted, listed, printable
from linne.data.places import nearest_path
from linne.data.source import Split, UInt8
from linne.data.split import Examples
from linne.data.walk import Entries
from linne.errors import ImageError, SourceError

_SAMPLE = 256
"""Images whose headers are read to learn size and colour."""
_HASHED_BYTES = 256 * 2**20
"""Sets up to this size are fingerprinted by content, larger ones by names and sizes: reading them would take long."""


@dataclass(frozen=True, eq=False, slots=True)
class FolderStore:
    """Image files below a folder, decoded when asked for."""

    root: str
    paths: tuple[str, ...]
    """Relative to `root`, with `/`."""
    sizes: tuple[int, ...]
    """In bytes, when the folder was listed."""

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def array(self) -> UInt8 | None:
        return None

    def pixels(self, index: int, channels: int) -> UInt8:
        """Return image `index` decoded, uint8 H x W x `channels`; see `linne.data.decode`.

        Raises:
            ImageError: the file cannot be read or decoded; the message begins with its name.
        """
        return decode_file(os.path.join(self.root, self.paths[index]), channels, name=self.name(index))

    def name(self, index: int) -> str:
        return printable(self.paths[index])


def open_folder(location: str | None, root: Path | None) -> Examples:
    """Return the images of the folder `location`; `linne.data.layout` says which layouts are understood.

    Nothing is decoded: size and colour come from the headers of at most 256 images spread over the set.

    Raises:
        SourceError: the folder is not there, or is not laid out as classes of images.
    """
    if not location:
        raise SourceError("`folder:` expects a folder", hint="type `folder:DIR`, with one sub-folder a class in DIR")
    path = Path(location).expanduser()
    _check(path, location)
    layout = read_layout(os.path.realpath(path), printable(location))
    store = _store(layout)
    sample = _sample(store, location)
    heights, widths = [header.height for header in sample.headers], [header.width for header in sample.headers]
    return Examples(
        labels=layout.labels,
        given=_splits(layout, store),
        channels=1 if all(header.grey for header in sample.headers) else 3,
        image_size=(int(np.median(heights)), int(np.median(widths))),
        same_size=len(set(heights)) == len(set(widths)) == 1,
        identities=folder_identities,
        notes=(*layout.notes, *_say_ignored(layout.seen), *sample.notes),
    )


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


def _store(layout: Layout) -> FolderStore:
    images = [image for classes in layout.splits.values() for images in classes.values() for image in images]
    return FolderStore(layout.root, tuple(path for path, _ in images), tuple(size for _, size in images))


def _splits(layout: Layout, store: FolderStore) -> dict[str, Split]:
    """Return the layout's splits over `store`, whose images are in the layout's order."""
    position_of = {label: position for position, label in enumerate(layout.labels)}
    splits, start = {}, 0
    for name, classes in layout.splits.items():
        counts = [len(images) for images in classes.values()]
        labels_N = np.repeat(np.array([position_of[label] for label in classes], np.int64), counts)
        splits[name] = Split(name, store, np.arange(start, start + len(labels_N)), labels_N)
        start += len(labels_N)
    return splits


@dataclass(frozen=True, slots=True)
class _Sample:
    headers: tuple[Header, ...]
    notes: tuple[str, ...]


def _sample(store: FolderStore, location: str) -> _Sample:
    """Return the headers of images spread evenly over the store; unreadable ones are left for loading to judge."""
    positions = np.unique(np.linspace(0, len(store) - 1, min(_SAMPLE, len(store))).astype(int)).tolist()
    headers, problems = [], []
    for position in positions:
        try:
            path = os.path.join(store.root, store.paths[position])
            headers.append(peek_file(path, name=store.name(position)))
        except ImageError as error:
            problems.append(error.message)
    if not headers:
        raise SourceError(
            f"none of {counted(len(positions), 'image')} tried in `{printable(location)}` can be read; {problems[0]}"
        )
    notes = []
    if problems:
        notes.append(f"{problems[0]} (the first of {len(problems)} among {counted(len(positions), 'image')} tried)")
    if len(positions) < len(store):
        notes.append(f"size and colour are known from a sample: {len(positions)} of {len(store):,} images")
    return _Sample(tuple(headers), tuple(notes))


def folder_identities(splits: Sequence[Split]) -> list[bytes]:
    """Return bytes for each split that change when the name or the size of one of its images does.

    Where all images together have no more than 256 MiB, they change with every byte of every image; beyond, a change
    that keeps a file's size is not seen. Times of change do not count: a copy of a folder has the same fingerprint.
    """
    chosen = [(split.store, index) for split in splits for index in split.indices_N.tolist()]
    by_content = sum(store.sizes[index] for store, index in chosen if isinstance(store, FolderStore)) <= _HASHED_BYTES
    return [_identity(split, by_content) for split in splits]


def _identity(split: Split, by_content: bool) -> bytes:
    store = split.store
    assert isinstance(store, FolderStore)
    digest = hashlib.sha256()
    for index in split.indices_N.tolist():
        path, size = store.paths[index], store.sizes[index]
        content = _content(os.path.join(store.root, path), size) if by_content else b""
        digest.update(b"%s\0%d\0%s\n" % (os.fsencode(path), size, content))
    return digest.digest()


def _content(path: str, size: int) -> bytes:
    try:
        # Plain descriptors: for many small files, `open` costs more than the reading.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            return hashlib.sha256(os.read(descriptor, size + 1)).digest()
        finally:
            os.close(descriptor)
    except OSError:
        return b"unreadable"


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
