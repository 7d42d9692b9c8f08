"""What libraries write to the process's stderr past Python, caught for a moment."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator

_ONE_AT_A_TIME = threading.Lock()
"""The descriptor is the whole process's: of two that exchange it at once, one would put back the other's file."""


@contextlib.contextmanager
def caught_stderr() -> Iterator[list[bytes]]:
    """Yield a list that holds, after the block, all that was written to stderr in it, by whichever thread.

    Where there is no stderr, as in a service, it stays empty.
    """
    said: list[bytes] = []
    with _ONE_AT_A_TIME, tempfile.TemporaryFile() as file:
        if sys.stderr is not None:
            sys.stderr.flush()
        try:
            kept = os.dup(2)
        except OSError:
            yield said
            return
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            said.append(file.read())


def write_stderr(text: bytes) -> None:
    """Write to stderr as libraries do, where there is one."""
    if text:
        with contextlib.suppress(OSError):
            os.write(2, text)
