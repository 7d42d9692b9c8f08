"""A training that stands still is ended, with what every thread was doing.

A driver may wait for ever for a device that is gone, a collective for a process that has died, a read for a disk.
Nothing in this process can tell: the call holds the interpreter. So a thread in C (faulthandler's) is told again and
again to wait a little longer, and when nobody tells it, writes all stacks and leaves.
"""

from __future__ import annotations

import faulthandler
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_PATIENCE_S = 1.0
"""How often the thread is told at most: each telling starts it anew, and takes as long as a step of a small network."""


def stuck_file(folder: Path, rank: int = 0) -> Path:
    """Return where the stacks of process `rank` of a run in `folder` go: stuck.txt, or stuck-rank-1.txt."""
    return folder / (f"stuck-rank-{rank}.txt" if rank else "stuck.txt")


def was_stuck(path: Path) -> bool:
    """Return whether a process stood still; one that was killed leaves an empty file."""
    return path.is_file() and path.stat().st_size > 0


class Watchdog:
    """Ends the process with exit code 1 where `alive` is not called for a while; use it as a context."""

    def __init__(self, folder: Path, limit_s: float | None, rank: int = 0) -> None:
        """Stacks go to the `stuck_file` of `folder`; with no limit nothing is watched.

        Nor where there is no such folder, on another machine: when this process stands still, so does the first one.
        """
        self._limit_s = limit_s if folder.is_dir() else None
        self._path = stuck_file(folder, rank)
        self._told = 0.0

    def __enter__(self) -> Self:
        """Begin to watch."""
        if self._limit_s is not None:
            # Open from now on: when it is needed nothing of Python runs any more. What an earlier process left stays.
            self._file = self._path.open("a", encoding="utf-8")
            self.alive()
        return self

    def alive(self) -> None:
        """Say that something was done just now."""
        now = time.monotonic()
        if self._limit_s is not None and now - self._told >= min(_PATIENCE_S, self._limit_s / 4):
            self._told = now
            faulthandler.dump_traceback_later(self._limit_s, exit=True, file=self._file)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Watch no longer; the file goes, unless an earlier process was stuck."""
        if self._limit_s is not None:
            faulthandler.cancel_dump_traceback_later()
            self._file.close()
            if not was_stuck(self._path):
                self._path.unlink(missing_ok=True)
