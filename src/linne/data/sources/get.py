"""`linne data get`: a published set fetched, checked, unpacked and opened, or an error that says what to do.

A set lives in `ROOT/NAME`. What is unpacked appears there in one step, with a note of what it was unpacked from; only
folders with that note are ever replaced, and only archives that this very call fetched are removed. So a call that was
killed is typed again, and goes on.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from linne.archive import Extracted, extract
from linne.data import open_source
from linne.data.names import printable
from linne.data.places import Download, NamedSet, bases, find, places
from linne.data.source import Source
from linne.download import fetch, is_offline, tidy
from linne.errors import SourceError
from linne.lock import exclusive
from linne.log import Narrator
from linne.transfer import Progress, Wanted

_NOTE = "linne-set.json"
_MANY_FILES = 1000
"""More are not flushed to the disk one by one: each takes milliseconds."""
_MB = 10**6


@dataclass(frozen=True, slots=True)
class Got:
    """A published set that is here, whole."""

    name: str
    folder: Path
    counts: Mapping[str, int]
    num_classes: int
    typed: str
    """What to type for it as SOURCE."""
    was_here: bool


def get(
    named: NamedSet, *, root: Path | None = None, offline: bool = False, force: bool = False, narrator: Narrator
) -> Got:
    """Return where a published set is, after having brought here what of it was missing.

    Args:
        root: Folder that holds named sets, instead of `$LINNE_DATA` and the user's data folder.
        offline: Open no connection; archives that lie in `ROOT/NAME` or `ROOT` are unpacked.
        force: Fetch and unpack it even where it is here already.

    Raises:
        SourceError: it cannot be fetched, is not what was published, or another copy is in its place.
        LinneError: another process is at it.
    """
    home = (root.expanduser() if root is not None else bases()[0]) / named.name
    source = None if force else _whole(named, root)
    was_here = source is not None
    if source is None:
        _make(home.parent)
        with exclusive(home):
            _bring(named, home, offline=offline or is_offline(), force=force, narrator=narrator)
        source = _open(named, root)
    folder, counts = _folder(named, root), _counts(source)
    if counts != named.counts:
        texts = [f"{counts.get(split, 0):,} of {number:,} {split} images" for split, number in named.counts.items()]
        raise SourceError(f"`{printable(folder)}` holds {', '.join(texts)} of `{named.name}`", hint=_elsewhere(named))
    typed = named.name if root is None else f"{named.name}:{root}"
    return Got(named.name, folder, counts, source.num_classes, typed, was_here)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SourceError(
            f"`{printable(folder)}` cannot be made: {reason}", hint="name a folder with --root"
        ) from error


def _open(named: NamedSet, root: Path | None) -> Source:
    return open_source(named.name, root=root, val_fraction=None)


def _whole(named: NamedSet, root: Path | None) -> Source | None:
    """Return the set where all of it is here; opening reads the small ones whole and lists the files of the large."""
    if find(named, places(named, None, root)) is None:
        return None
    try:
        source = _open(named, root)
    except SourceError:
        return None
    return source if _counts(source) == named.counts else None


def _counts(source: Source) -> dict[str, int]:
    return {split: len(examples) for split, examples in source.splits.items()}


def _folder(named: NamedSet, root: Path | None) -> Path:
    """Return where the set was found."""
    paths = find(named, places(named, None, root))
    assert paths is not None
    return next(iter(paths.values())).parent


def _elsewhere(named: NamedSet) -> str:
    return f"move it away and type `linne data get {named.name}` again, or name another place with --root"


def _bring(named: NamedSet, home: Path, *, offline: bool, force: bool, narrator: Narrator) -> None:
    """Fetch what is missing into `home`, and unpack it."""
    if not named.unpacked_bytes:
        for download in named.downloads:
            _bring_file(named, download, home, offline=offline, force=force, narrator=narrator)
        return
    target = home / named.official
    _check_place(named, home, target)
    _check_brought(named, home)
    _check_room(named, home)
    archives = _archives(named, home, offline, narrator)
    _unpack(named, home, target, archives, narrator)
    for archive in archives.values():
        if archive.fetched:
            archive.path.unlink()
            narrator.line(f"removed {archive.path.name}: what was in it is unpacked")


def _bring_file(
    named: NamedSet, download: Download, home: Path, *, offline: bool, force: bool, narrator: Narrator
) -> None:
    """Fetch a file that is used as it is, unless it is here under one of the names it goes by."""
    path = home / download.name
    if path.exists():
        if _wanted(download).difference(path) is None:
            return
        if force:
            path.unlink()
    _, *others = next(names for names in named.files.values() if names[0] == download.name)
    if force or not any((home / name).exists() for name in others):
        _fetch(download, home, offline, narrator)


def _wanted(download: Download) -> Wanted:
    return Wanted(sha256=download.sha256, md5=download.md5, size_bytes=download.size_bytes)


def _check_place(named: NamedSet, home: Path, target: Path) -> None:
    """Raise where a copy that is not ours lies where ours comes to lie, or would be found before it."""
    if target.exists() and not (target / _NOTE).is_file():
        raise SourceError(f"`{printable(target)}` was not made by `linne data get`", hint=_elsewhere(named))
    if find(named, [home]) is not None:
        raise SourceError(
            f"`{printable(home)}` holds a copy of `{named.name}` that was not made by `linne data get`",
            hint=_elsewhere(named),
        )


def _check_brought(named: NamedSet, home: Path) -> None:
    """Raise where an archive is missing that the user has to bring."""
    missing = [d for d in named.downloads if not d.urls and _brought(d, home) is None]
    if missing:
        texts = [f"`{d.name}`" + (f" ({d.size_bytes / 1e9:,.1f} GB)" if d.size_bytes else "") for d in missing]
        raise SourceError(
            f"`{named.name}` is not fetched by programs, and {', '.join(texts)} {'is' if len(texts) == 1 else 'are'} "
            f"not in `{printable(home)}`",
            hint=f"sign in at {named.page}, put the archives there and type `linne data get {named.name}` again",
        )


def _check_room(named: NamedSet, home: Path) -> None:
    missing = sum(d.size_bytes or 0 for d in named.downloads if _brought(d, home) is None)
    needed, free = missing + named.unpacked_bytes, shutil.disk_usage(home.parent).free
    if free < needed:
        room = f"{free / _MB:,.0f} MB free, expected {needed / _MB:,.0f} MB"
        raise SourceError(
            f"`{printable(home.parent)}` has {room} for `{named.name}`",
            hint="make room, or name a folder on another disk with --root",
        )


@dataclass(frozen=True, slots=True)
class _Archive:
    path: Path
    fetched: bool
    """By this call, so that it is ours to remove."""


def _archives(named: NamedSet, home: Path, offline: bool, narrator: Narrator) -> dict[str, _Archive]:
    """Return where each archive is: where the user has put it, once it is checked, or fetched to `home`."""
    archives = {}
    for download in named.downloads:
        path = _brought(download, home)
        if path is None:
            archives[download.name] = _Archive(_fetch(download, home, offline, narrator), fetched=True)
            continue
        with _told(narrator, f"checking {download.name}", path.stat().st_size) as progress:
            differs = _wanted(download).difference(path, progress)
        if differs is not None:
            raise SourceError(f"`{printable(path)}` is not the published archive: {differs}", hint=_another(download))
        tidy(path)
        archives[download.name] = _Archive(path, fetched=False)
    return archives


def _another(download: Download) -> str:
    return "move it away and type this again" if download.urls else "get it again from its publisher"


def _brought(download: Download, home: Path) -> Path | None:
    """Return the archive where it lies in the set's folder or in the one above."""
    return next((path for path in (home / download.name, home.parent / download.name) if path.is_file()), None)


def _fetch(download: Download, home: Path, offline: bool, narrator: Narrator) -> Path:
    narrator = Narrator(quiet=True) if offline else narrator  # which would say that it fetches
    with _told(narrator, f"fetching {download.name}", download.size_bytes or 0) as progress:
        return fetch(
            download.urls,
            home / download.name,
            sha256=download.sha256,
            md5=download.md5,
            size_bytes=download.size_bytes,
            progress=progress,
            offline=offline,
        )


def _unpack(named: NamedSet, home: Path, target: Path, archives: Mapping[str, _Archive], narrator: Narrator) -> None:
    """Unpack the archives to `target`, which appears when all are unpacked; one of ours in its place goes."""
    staging, old = home / ".new", home / ".old"
    for left in (staging, old):  # by a call that was killed; the lock is ours
        shutil.rmtree(left, ignore_errors=True)
    made = {}
    for download in named.downloads:
        extracted = _unpack_one(named, download, archives[download.name].path, staging / "unpacked", narrator)
        made[download.name] = {"num_files": extracted.num_files, "size_bytes": extracted.size_bytes}
    fresh = staging / "unpacked" / named.official
    if not fresh.is_dir():
        raise SourceError(f"the archive of `{named.name}` holds no folder `{named.official}`")
    (fresh / _NOTE).write_text(json.dumps({"set": named.name, "archives": made}, indent=2) + "\n", "utf-8")
    _flush(fresh)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    for left in (staging, old):
        shutil.rmtree(left, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Wait until what is in `folder` is on the disk, so that it can be called whole."""
    files = [Path(parent) / name for parent, _, names in os.walk(folder) for name in names]
    if len(files) > _MANY_FILES and hasattr(os, "sync"):  # everything of everybody, but once
        os.sync()
        return
    for file in files:
        with open(file, "rb+") as opened:
            os.fsync(opened.fileno())


def _unpack_one(named: NamedSet, download: Download, archive: Path, into: Path, narrator: Narrator) -> Extracted:
    size = named.unpacked_bytes if len(named.downloads) == 1 else download.size_bytes or 0
    with _told(narrator, f"unpacking {download.name}", size) as progress:

        def count(done: int) -> None:
            progress(done, None)

        return extract(
            archive,
            into / (download.unpack or "."),
            max_bytes=2 * named.unpacked_bytes,
            max_files=2 * sum(named.counts.values()) + 10_000,
            inner_tars=download.inner_tars,
            progress=count,
        )


@contextmanager
def _told(narrator: Narrator, what: str, size_bytes: int) -> Iterator[Progress]:
    """Give what tells the narrator of bytes, in megabytes; say `what` in one line where there is nothing live."""
    size = f" ({size_bytes / _MB:,.1f} MB)" if size_bytes else ""
    narrator.line(f"{what}{size}")
    shown = 0

    def progress(done: int, total: int | None) -> None:
        nonlocal shown
        narrator.advance(done // _MB - shown)
        shown = done // _MB

    with narrator.progress(f"{what}, MB", max(1, size_bytes // _MB)):
        yield progress
