"""The file that Optuna's journal is kept in: JSON lines, appended by many processes, whole or not at all.

Optuna's own backend reads and writes it. Around that, a line that a killed process or a full disk cut off is taken back
before the next is appended: glued to it, neither could be read.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from linne.errors import LinneError
from linne.sweeping.folder import FULL, full


class JournalFile:
    """A backend of `optuna.storages.JournalStorage`; plain JSON in, plain JSON out."""

    def __init__(self, path: Path) -> None:
        """`path` is made if it is not there."""
        self._path = path.resolve()
        # A file made exclusively: flock is not to be relied on where machines share a disk.
        self._lock = JournalFileOpenLock(str(self._path))
        with told_apart(self._path):
            self._inner = JournalFileBackend(str(self._path), lock_obj=cast(Any, _Held()))

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield what was written from a line on.

        Raises:
            LinneError: a line is no JSON.
        """
        with told_apart(self._path):
            yield from self._inner.read_logs(log_number_from)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append lines, all of them or none.

        Raises:
            LinneError: the disk is full.
        """
        with told_apart(self._path), held(self._lock):
            size = _take_back_half_a_line(self._path)
            try:
                self._inner.append_logs(logs)
            except OSError:
                os.truncate(self._path, size)
                raise


class _Held:
    """The lock that Optuna's backend takes, when ours is held already."""

    def acquire(self) -> bool:
        """Return that it is held."""
        return True

    def release(self) -> None:
        """Leave it to whoever holds it."""


@contextlib.contextmanager
def held(lock: JournalFileOpenLock) -> Iterator[None]:
    """Hold `lock` while inside; one that a killed process left is broken after 30 seconds."""
    lock.acquire()
    try:
        yield
    finally:
        with contextlib.suppress(RuntimeError):  # somebody who waited 30 seconds has broken it
            lock.release()


def _take_back_half_a_line(path: Path) -> int:
    """Cut what follows the last line end, and return the size of the rest."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        whole, block = size, 4096
        while whole:
            start = max(0, whole - block)
            file.seek(start)
            found = file.read(whole - start).rfind(b"\n")
            if found >= 0:
                whole = start + found + 1
                break
            whole = start
        if whole < size:
            file.truncate(whole)
    return whole


@contextlib.contextmanager
def told_apart(path: Path) -> Iterator[None]:
    """Raise LinneError for a full disk and for a damaged line."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise full(path, error) from error
    except ValueError as error:
        number = _first_damaged(path)
        if number is None:
            raise
        raise LinneError(
            f"line {number} of `{path}` is damaged, so what follows cannot be trusted",
            hint=f"continue from what is before it: `head -n {number - 1} {path} > journal && mv journal {path}`",
        ) from error


def _first_damaged(path: Path) -> int | None:
    """Return the number, from 1, of the first line that is no JSON object."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                if not isinstance(json.loads(line), dict):
                    return number
            except ValueError:
                return number
    return None
