"""What torch says while it exports: kept from the terminal, and of what went wrong one line."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator

from linne.errors import LinneError

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
"""With which torch writes its errors for a terminal."""


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Let nothing through that is warned of, logged or printed inside: whether an export is right is measured after."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def first_line(error: BaseException) -> str:
    """Return what went wrong in a library, in one line of moderate length: the first cause, where it names one."""
    if isinstance(error, LinneError):
        return error.message
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [COLOURS.sub("", line).strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}"[:300] if lines else type(error).__name__
