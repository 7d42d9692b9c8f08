"""Large files, hashed by a thread of its own while Python still imports what will use them.

Reading and hashing leave Python's lock to others, so that on two cores nobody waits for them.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Thread

CHUNK_BYTES = 16 * 2**20
"""At once: each piece ends with a wait for Python's lock, which importing modules hold for milliseconds."""


class HashAhead:
    """The sha256 of files, computed from now on."""

    def __init__(self, find: Callable[[], Iterable[Path]]) -> None:
        """Begin with what `find`, called in the thread, names; what is no plain file or cannot be read is passed over.

        Where `find` fails, nothing is hashed.
        """
        self._find = find
        self._found: dict[Path, tuple[tuple[int, ...], str]] = {}
        # A daemon: a program that ends sooner does not wait for it.
        self._thread = Thread(target=self._hash, name="hash ahead", daemon=True)
        self._thread.start()

    def sha256(self, path: Path) -> str | None:
        """Return it in hexadecimal; None where `path` was not hashed, or is no longer the file that was."""
        self._thread.join()
        state, digest = self._found.get(path, (None, ""))
        try:
            return digest if state == _state(path) else None
        except OSError:
            return None

    def _hash(self) -> None:
        try:
            for path in self._find():
                state = _state(path)
                if stat.S_ISREG(state[0]):
                    self._found[path] = (state, _sha256(path))
        except Exception:  # whatever is wrong with a file: who needs it finds that, and says so
            return


def _state(path: Path) -> tuple[int, ...]:
    """Return what changes when another file takes its place, or it is written to; a link is not followed."""
    found = path.lstat()
    return found.st_mode, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    piece = memoryview(bytearray(CHUNK_BYTES))
    # Not through a link, should one have taken the file's place since, and without waiting where a pipe has.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb", buffering=0) as file:
        while count := file.readinto(piece):
            digest.update(piece[:count])
    return digest.hexdigest()
