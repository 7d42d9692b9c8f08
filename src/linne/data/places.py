"""The published sets: what they are, where their files come from, and where they are looked for.

A set is one `NamedSet`; its hashes say where they are from. The next one is that table entry, a line in
`linne.data.sources.published` and a line in `linne.data.SOURCES`; one that is images in class folders needs no code
of its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from linne.data.names import listed, printable
from linne.errors import SourceError


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """One file as its publisher offers it."""

    name: str
    urls: tuple[str, ...] = ()
    """Mirrors in order; none where the user has to bring the file."""
    size_bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    unpack: str | None = None
    """For an archive: to which new folder, below the one for the set, it is unpacked; `.` is that one."""
    inner_tars: bool = False
    """Whether the archive holds a tar for each class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedSet:
    """A published set that is read from its official files."""

    name: str
    about: str
    page: str
    """Where its publisher offers the files."""
    official: str
    """The folder that holds the files when the publisher's archive, or torchvision, has unpacked them."""
    files: Mapping[str, tuple[str, ...]]
    """Each file's or folder's role, and the names it goes by; the first is the publisher's."""
    downloads: tuple[Download, ...]
    """In the order in which they are fetched and unpacked."""
    unpacked_bytes: int = 0
    """What unpacking takes on a disk, roughly; 0 where nothing is unpacked."""
    counts: Mapping[str, int]
    """How many examples each of its published splits has."""

    @property
    def download_bytes(self) -> int:
        """What has to come from elsewhere, as far as published."""
        return sum(download.size_bytes or 0 for download in self.downloads)


def places(named: NamedSet, location: str | None, root: Path | None) -> list[Path]:
    """Return the folders to look in, in order.

    With `location` (the DIR in `mnist:DIR`) only there; otherwise below `root`, or below `$LINNE_DATA` and then the
    user's data folder.
    """
    if location is not None:
        folder = Path(location).expanduser()
        ends = ("", named.name, named.official, Path(named.official).name, Path(named.name, named.official))
        found = [folder / end for end in ends]
    else:
        found = []
        for base in [root] if root is not None else bases():
            found += [base / named.name, base / named.name / named.official, base / named.official]
    return list(dict.fromkeys(found))


def bases() -> list[Path]:
    """Return the folders that hold named sets: `$LINNE_DATA`, where it is set, and the user's data folder."""
    from platformdirs import user_data_path

    stated = os.environ.get("LINNE_DATA")
    return [*([Path(stated).expanduser()] if stated else []), user_data_path("linne", appauthor=False)]


def find(named: NamedSet, folders: list[Path]) -> dict[str, Path] | None:
    """Return the path of each of the set's files, in the first of `folders` that has them all; None without one."""
    for folder in folders:
        paths = _present(named, folder)
        if len(paths) == len(named.files):
            return paths
    return None


def locate(named: NamedSet, location: str | None, root: Path | None) -> dict[str, Path]:
    """Return the path of each of the set's files.

    Raises:
        SourceError: no place has them all; the message names every place, the hint the files and what to type.
    """
    if location is not None:
        _check_folder(named, Path(location).expanduser())
    folders = places(named, location, root)
    paths = find(named, folders)
    if paths is not None:
        return paths
    fullest = max(folders, key=lambda folder: len(_present(named, folder)))
    present = _present(named, fullest)
    if present:
        missing = [names[0] for role, names in named.files.items() if role not in present]
        what = f"`{named.name}` is incomplete: `{printable(fullest)}` lacks {listed(missing, 8)}"
    else:
        what = f"`{named.name}` is not here; looked in {listed([printable(folder) for folder in folders], 20)}"
    raise SourceError(
        what,
        hint=f"type `linne data get {named.name}`, or `{named.name}:DIR` for a folder with the files of {named.page}",
    )


def _present(named: NamedSet, folder: Path) -> dict[str, Path]:
    found = {}
    for role, names in named.files.items():
        for name in names:
            if (folder / name).exists():
                found[role] = folder / name
                break
    return found


def _check_folder(named: NamedSet, folder: Path) -> None:
    if folder.is_dir():
        return
    if folder.exists():
        raise SourceError(
            f"`{printable(folder)}` is a file; `{named.name}` expects the folder with its files",
            hint=f"unpack archives first, then type `linne train {named.name}:DIR`",
        )
    raise SourceError(f"no folder `{printable(folder)}`", hint=nearest_path(folder))


def nearest_path(path: Path) -> str | None:
    """Return "did you mean `x`?" for the entry beside `path` whose name is nearest, or None."""
    from difflib import get_close_matches

    try:
        near = get_close_matches(path.name, os.listdir(path.parent), n=1)
    except OSError:
        return None
    return f"did you mean `{printable(path.parent / near[0])}`?" if near else None
