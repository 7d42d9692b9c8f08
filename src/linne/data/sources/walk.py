"""What lies in a folder of images, without opening a file: images, and what is not taken for one and why."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from itertools import chain

from linne.data.names import printable
from linne.errors import SourceError

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".webp")
    + (".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
)
_SYSTEM_NAMES = frozenset(
    ("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information")
    + ("@eadir", "lost+found", "__pycache__")
)


@dataclass(frozen=True, slots=True)
class Entries:
    """What a folder holds. Paths are relative to the source's root, with `/`."""

    images: tuple[tuple[str, int], ...] = ()
    """Path and size in bytes of each file that is an image by its name."""
    folders: tuple[str, ...] = ()
    """Sub-folders; after `walk`, those that images were found in."""
    others: tuple[str, ...] = ()
    """Files that are not images by their name."""
    hidden: tuple[str, ...] = ()
    """What a system or a program left: names that begin with a dot, `Thumbs.db`, `__MACOSX`."""
    links: tuple[str, ...] = ()
    """Symbolic links that were not followed: to folders, to nothing, or out of the root."""
    followed: tuple[str, ...] = ()
    """Images that are symbolic links to a file below the root."""
    listed: tuple[str, ...] = ()
    """Folders whose entries these are; the root is an empty text."""


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is passed over."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def list_folder(root: str, relative: str) -> Entries:
    """Return the entries of one folder, sorted by name.

    `root` must be a real path. A link to a file is taken when the file lies below `root`. Links to folders are not
    followed, wherever they lead: a loop would never end, and a second way to an image would put it in two classes.

    Raises:
        SourceError: the folder cannot be listed.
    """
    try:
        with os.scandir(os.path.join(root, relative)) as scanned:
            found = sorted(scanned, key=lambda entry: entry.name)
    except OSError as error:
        folder = printable(os.path.join(root, relative))
        raise SourceError(f"`{folder}` cannot be listed: {(error.strerror or str(error)).lower()}") from error
    images, folders, others, hidden, links, followed = [], [], [], [], [], []
    prefix = f"{relative}/" if relative else ""
    for entry in found:
        name = entry.name
        path = prefix + name
        if is_hidden(name):
            hidden.append(path)
            continue
        if entry.is_symlink():
            if not _leads_to_file_below(root, entry):
                links.append(path)
                continue
            followed.append(path)
        if entry.is_dir(follow_symlinks=False):
            folders.append(path)
        elif name[name.rfind(".") :].lower() in IMAGE_SUFFIXES and entry.is_file():
            images.append((path, _size(entry)))
        else:
            others.append(path)
    parts = (images, folders, others, hidden, links, followed, [relative])
    return Entries(*map(tuple, parts))  # type: ignore[arg-type]  # mypy cannot see that the first is of pairs


def _leads_to_file_below(root: str, entry: os.DirEntry[str]) -> bool:
    return entry.is_file() and os.path.realpath(entry.path).startswith(os.path.join(root, ""))


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # gone since it was listed; reading it will say so
        return 0


def walk(root: str, relative: str) -> Entries:
    """Return the entries of a folder and of all folders below it.

    Raises:
        SourceError: one of them cannot be listed.
    """
    waiting, seen = [relative], []
    nested: list[str] = []
    while waiting:
        folder = waiting.pop()
        entries = list_folder(root, folder)
        waiting.extend(reversed(entries.folders))
        seen.append(entries)
        if folder != relative and entries.images:
            nested.append(folder)
    joined = join(seen)
    return replace(joined, images=tuple(sorted(joined.images)), folders=tuple(nested))


def join(parts: Iterable[Entries]) -> Entries:
    """Return everything in `parts` as one."""
    parts = list(parts)
    return Entries(*(tuple(chain.from_iterable(getattr(part, f.name) for part in parts)) for f in fields(Entries)))
