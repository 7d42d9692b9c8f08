"""Split files that are made before any training, so that several runs, or several people, share them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linne.data import open_source, save_manifest
from linne.data.names import printable
from linne.errors import RecipeError, SourceError


@dataclass(frozen=True, slots=True)
class SplitFile:
    """A split file that was written."""

    path: str
    sha256: str
    counts: dict[str, int]
    """Examples in each split."""
    notes: tuple[str, ...]
    """How they were chosen."""


def write_splits(source: str, file: Path, *, folds: int | None = None, **options: Any) -> list[SplitFile]:
    """Write which example of `source` is in which split to `file`, and return what was written.

    Args:
        folds: Write as many files, `FILE-fold1.json` and on, each with one fold for val and all with the same test.
        options: As for `linne.data.open_source`.

    Raises:
        SourceError: the source cannot be used, or a file is there already: it may be the one that a result hangs on.
        RecipeError: an option cannot be used.
    """
    if folds is not None and folds < 2:
        raise RecipeError(f"folds is {folds}, expected 2 or more")
    suffix = file.suffix or ".json"
    numbers = [None] if folds is None else list(range(1, folds + 1))
    paths = [file.with_name(f"{file.stem}{'' if k is None else f'-fold{k}'}{suffix}") for k in numbers]
    for path in paths:
        if path.exists():
            raise SourceError(f"`{printable(path)}` is there already", hint="remove it, or name another file")
    written = []
    for fold, path in zip(numbers, paths, strict=True):
        opened = open_source(source, folds=folds, fold=fold, **options)
        digest = save_manifest(opened, path)
        counts = {name: len(split) for name, split in opened.splits.items()}
        written.append(SplitFile(printable(path), digest, counts, opened.notes))
    return written
