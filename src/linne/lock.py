"""One process at a time: `exclusive(path)` holds a lock that the system takes back from a process that dies."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from linne.errors import LinneError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


@contextlib.contextmanager
def exclusive(path: Path, lock: Path | None = None) -> Iterator[None]:
    """Hold `lock`, or else `PATH.lock`, while inside; a lock left by a process that died binds nobody.

    On a disk that cannot lock (some network shares) nothing is held.

    Raises:
        LinneError: another process holds it, or is in this process held already.
    """
    lock = lock or path.with_name(path.name + ".lock")
    file = _hold(lock)
    if file is None:
        raise LinneError(f"another process is at work on `{path}`", hint="wait for it, then type the command again")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows keeps a file that is open
            lock.unlink()
        file.close()


def _hold(lock: Path) -> IO[bytes] | None:
    """Return the open lock file, held; None while another process holds it."""
    while True:
        file = open(lock, "ab")  # noqa: SIM115  it stays open for as long as the lock is held
        if not _try(file):
            file.close()
            return None
        with contextlib.suppress(FileNotFoundError):
            # Between opening and locking, the holder before may have removed it: such a lock would bind nobody.
            if os.path.samestat(os.fstat(file.fileno()), os.stat(lock)):
                return file
        file.close()


def _try(file: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True
