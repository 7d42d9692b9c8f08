"""What linne says: data to stdout, everything else to stderr, colour only for a terminal that wants it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

import click


def data(text: str) -> None:
    """Write what was asked for to stdout, with one line end."""
    click.echo(text.rstrip("\n"))


def data_json(value: Any) -> None:
    """Write `value` to stdout as indented JSON."""
    data(to_json(value, indent=2))


def note(text: str) -> None:
    """Write what a person may want to know to stderr."""
    click.echo(text, err=True)


def fail(message: str, hint: str | None) -> None:
    """Write an error and, after a blank line, what to do about it, to stderr."""
    click.echo(f"{_painted('error:', 'red', sys.stderr)} {message}", err=True)
    if hint:
        click.echo(f"\n{_painted('hint:', 'cyan', sys.stderr)} {hint}", err=True)


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Return strict JSON; other than ASCII only where stdout can carry it."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return json.dumps(value, ensure_ascii=not unicode, allow_nan=False, indent=indent)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return `rows` as lines with two spaces between columns; the last column is not padded."""
    from rich.cells import cell_len  # knows that some characters are two columns wide

    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(text + " " * (width - cell_len(text)) for text, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _painted(text: str, colour: str, stream: TextIO) -> str:
    wanted = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return click.style(text, fg=colour, bold=True) if wanted else text
