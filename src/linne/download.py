"""One file from the network, whole and checked, or an error: mirrors, tries, and what is kept in between.

What it covers: https, and http only where a hash checks what came; mirrors in order; transfers that go on where they
stopped; servers that cut, stall, corrupt, redirect or lie about lengths; full disks; two processes at once.
What it does not: a file that was replaced before its hash was written down, and a server so slow that bytes only
trickle in. That one is seen in the progress and ended with Ctrl-C; the next call goes on from there.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from linne.errors import LinneError, SourceError
from linne.lock import exclusive
from linne.transfer import Interrupted, Job, Progress, Refused, Wanted, ask

MAX_BYTES = 10**12
_FRUITLESS = 4
"""Tries in a row that bring nothing new before a mirror is given up; one that brings bytes starts the count again."""
_LONGEST_PAUSE_S = 30.0


def fetch(
    urls: Sequence[str],
    path: Path,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    size_bytes: int | None = None,
    sha256_prefix: str | None = None,
    progress: Progress = lambda done, total: None,
    offline: bool = False,
    timeout_s: float = 30.0,
    max_bytes: int = MAX_BYTES,
    pause_s: float = 1.0,
) -> Path:
    """Return `path`, fetched from the first of `urls` that gives the whole, right file; at once where it is there.

    Bytes go to `PATH.partial`, which a later call takes up again; `path` appears in one step, when all of it is here,
    checked and on the disk. Another file at `path` is an error: nothing is overwritten.

    Args:
        urls: Mirrors, in the order in which to try them.
        path: Where to; its folder is made.
        sha256: What the file hashes to, as hexadecimal digits.
        md5: The same by the older hash, looked at where no sha256 is given.
        size_bytes: Its published length; any other is refused as soon as it is announced or passed.
        sha256_prefix: The first digits of its sha256, where no more was published. Not enough for http.
        progress: Told how far it is.
        offline: Open no connection: what is here or an error. The environment's `LINNE_OFFLINE=1` means the same.
        timeout_s: For connecting, and for each wait for more bytes.
        max_bytes: Where to stop, whatever was announced.
        pause_s: Before the second try; doubled for each further one, up to half a minute.

    Raises:
        SourceError: no mirror gave the file (says what each did), or the disk cannot hold it.
        LinneError: another process is fetching it.
    """
    job = Job(
        path=path,
        wanted=Wanted(sha256=sha256, md5=md5, size_bytes=size_bytes, sha256_prefix=sha256_prefix),
        max_bytes=max_bytes if size_bytes is None else min(max_bytes, size_bytes),
        progress=progress,
        timeout_s=timeout_s,
    )
    for url in urls:
        if not url.startswith("https://") and not (url.startswith("http://") and (sha256 or md5)):
            raise SourceError(f"`{url}` is not fetched: expected https, or http with a hash that checks the file")
    if _is_there(job):
        tidy(path)
        return path
    if offline or is_offline():
        raise SourceError(
            f"`{path}` is not here, and linne is offline",
            hint=f"get {urls[0]} elsewhere, put it there and type the command again",
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(path):
            if not _is_there(job):  # another process may have brought it meanwhile
                _from_mirrors(urls, job, pause_s)
    except OSError as error:
        raise SourceError(f"`{path}` cannot be written: {(error.strerror or str(error)).lower()}") from error
    return path


def tidy(path: Path) -> None:
    """Remove what a `fetch` that was killed after its last byte left beside the whole file `path`."""
    state, lock = (path.with_name(path.name + ending) for ending in (".partial.json", ".lock"))
    if state.exists() or lock.exists():
        with contextlib.suppress(OSError, LinneError), exclusive(path):  # which takes the lock file away
            state.unlink(missing_ok=True)


def is_offline() -> bool:
    """Return whether `LINNE_OFFLINE` forbids the network."""
    return os.environ.get("LINNE_OFFLINE", "").strip().lower() not in ("", "0", "false", "no")


def _is_there(job: Job) -> bool:
    if not job.path.exists():
        return False
    differs = job.wanted.difference(job.path)
    if differs is not None:
        raise SourceError(
            f"`{job.path}` is not the published file: {differs}", hint="move it away and type the command again"
        )
    return True


def _from_mirrors(urls: Sequence[str], job: Job, pause_s: float) -> None:
    """Bring the file to its place from the first mirror that has it."""
    said = []
    for url in urls:
        try:
            _from_mirror(url, job, pause_s)
        except Refused as refused:
            said.append(f"{url} {refused}")
            continue
        os.replace(job.partial, job.path)
        job.state.unlink(missing_ok=True)
        _sync_folder(job.path.parent)
        return
    again = f"; it goes on after the {job.have():,} bytes that are here" if job.have() else ""
    raise SourceError(
        f"`{job.path.name}` could not be fetched: {'; '.join(said)}",
        hint=f"check the connection and type the command again{again}",
    )


def _from_mirror(url: str, job: Job, pause_s: float) -> None:
    """Ask until `job.partial` is the whole, right file.

    Raises:
        Refused: it will not be; says what the mirror did last.
    """
    fruitless, num_wrong, most = 0, 0, job.have()
    while True:
        try:
            ask(url, job)
        except Interrupted as interrupted:
            fruitless = 0 if job.have() > most else fruitless + 1
            most = max(most, job.have())
            if fruitless == _FRUITLESS:
                raise Refused(str(interrupted)) from interrupted
            time.sleep(min(max(pause_s * 2**fruitless, interrupted.pause_s), _LONGEST_PAUSE_S))
            continue
        differs = job.wanted.difference(job.partial)
        if differs is None:
            return
        # Perhaps two halves that do not belong together, perhaps a byte that turned over: once more from the start.
        job.discard()
        num_wrong += 1
        if num_wrong == 2:
            raise Refused(f"gave another file, twice: {differs}")


def _sync_folder(folder: Path) -> None:
    """Have the folder's list of names on the disk, where the system lets it be asked for."""
    with contextlib.suppress(OSError):  # Windows opens no folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
