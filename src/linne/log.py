"""The run folder, the measurements in it, and what is said while it is made.

Measurements go to `metrics.jsonl` as they come; progress goes to stderr, so that stdout stays free for data.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linne.bundle_format import replace_file, sync_folder, to_json
from linne.errors import LinneError
from linne.lock import exclusive

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

RUNS_FOLDER = "runs"
LOCK = "run.lock"
MOST_WAITING = 10_000
"""Rows that wait for a full disk; the oldest are lost then."""


class JsonLines:
    """Rows appended to a file, each whole and at once; where the disk refuses, they wait for the next try."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: str | None = None
        """Why rows are waiting."""
        self._file: io.FileIO | None = None
        self._waiting: deque[bytes] = deque(maxlen=MOST_WAITING)

    def append(self, row: Mapping[str, Any]) -> None:
        """Write `row`, to be read by anyone who watches."""
        # A diverged loss is written as null: JSON has no NaN.
        clean = {k: None if isinstance(v, float) and v - v != 0 else v for k, v in row.items()}
        self._waiting.append(json.dumps(clean, allow_nan=False).encode() + b"\n")
        self._write()

    @property
    def size_bytes(self) -> int:
        """How long the file is."""
        return self.path.stat().st_size if self.path.exists() else 0

    def cut(self, size_bytes: int) -> bool:
        """Take away what comes after the first bytes, half a line included, and return whether they are there."""
        self._waiting.clear()
        if not self.path.exists():
            return size_bytes == 0
        if self.size_bytes < size_bytes:
            return False
        os.truncate(self.path, size_bytes)
        return True

    def sync(self) -> None:
        """Wait until what was written is on the disk, if the disk takes it."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; rows that could not be written are lost."""
        self._write()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self) -> None:
        try:
            while self._waiting:
                self._file = self._file or io.FileIO(self.path, "a")
                end = self._file.seek(0, os.SEEK_END)
                rest = self._waiting[0]
                try:
                    while rest:
                        rest = rest[self._file.write(rest) :]
                except OSError:
                    self._file.truncate(end)
                    raise
                self._waiting.popleft()
            self.problem = None
        except OSError as error:
            self.problem = f"`{self.path}` cannot be written: {(error.strerror or str(error)).lower()}"


class Run:
    """A folder that holds everything one training leaves behind."""

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        """Without `writes` nothing is written: several processes train, and the first one does it for all."""
        self.path = path
        self.writes = writes
        self.metrics = JsonLines(path / "metrics.jsonl")
        self.samples = JsonLines(path / "samples.jsonl")

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.path / "checkpoints"

    @classmethod
    def create(cls, output: str | Path | None, name: str) -> Run:
        """Make and return a new run folder: `output`, or the first free `runs/NAME-k`.

        Raises:
            LinneError: `output` exists and is not empty, or cannot be made.
        """
        return cls(new_folder(output, name, RUNS_FOLDER))

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out of the folder while inside.

        Raises:
            LinneError: one is at work in it.
        """
        with exclusive(self.path, self.path / LOCK):
            yield

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Write `values` as readable JSON under `name`, whole or not at all."""
        replace_file(self.path / name, to_json(values, name))
        sync_folder(self.path.parent)

    def splits_sha256(self) -> str | None:
        """Return the sha256 of its splits.json, which says who trained; None where the source alone decides that."""
        path = self.path / "splits.json"
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None

    def started_from(self) -> dict[str, Any] | None:
        """Return what its recipe.json says of the pretrained weights it began with; None where there were none."""
        path = self.path / "recipe.json"
        stated = json.loads(path.read_text(encoding="utf-8")).get("started_from") if path.is_file() else None
        return stated if isinstance(stated, dict) else None

    def log(self, row: Mapping[str, Any]) -> None:
        """Append `row` to metrics.jsonl."""
        if self.writes:
            self.metrics.append(row)

    def log_samples(self, step: int, epoch: int, positions: Sequence[int]) -> None:
        """Append to samples.jsonl which images a step learnt from."""
        if self.writes:
            self.samples.append({"step": step, "epoch": epoch, "positions": positions})

    def sync(self) -> None:
        """Wait until the rows of its files are on the disk."""
        self.metrics.sync()
        self.samples.sync()

    def sizes(self) -> dict[str, int]:
        """Return how long the files are that grow while training, in bytes."""
        return {lines.path.name: lines.size_bytes for lines in (self.metrics, self.samples)}

    def cut(self, sizes: Mapping[str, int]) -> list[str]:
        """Make those files as long as they were, and return the names of the ones that are shorter already."""
        logs = (self.metrics, self.samples)
        return [lines.path.name for lines in logs if not lines.cut(sizes.get(lines.path.name, 0))]

    @contextlib.contextmanager
    def discarded_unless_begun(self) -> Iterator[None]:
        """Remove what was written when an error comes before the first step: the same command can be typed again."""
        try:
            yield
        except LinneError:
            if not self.metrics.path.exists():
                for name in ("recipe.json", "splits.json"):
                    (self.path / name).unlink(missing_ok=True)
            raise

    def close(self) -> None:
        """Close its files, and remove the folder if nothing is in it."""
        self.metrics.close()
        self.samples.close()
        with contextlib.suppress(OSError):
            self.path.rmdir()


def new_folder(output: str | Path | None, name: str, within: str) -> Path:
    """Make and return a new folder: `output`, or the first free `within`/NAME-k.

    Raises:
        LinneError: `output` exists and is not empty, or cannot be made.
    """
    if output is not None:
        path = Path(output)
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise LinneError(
                f"the output folder `{path}` exists already",
                hint=f"name a new folder with --output, or leave it out: {within} are numbered by themselves",
            )
        _make_folder(path)
        if not os.access(path, os.W_OK):
            raise LinneError(f"the output folder `{path}` cannot be written to")
        return path
    base = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "run"
    for number in range(1, 1_000_000):
        path = Path(within) / f"{base}-{number}"
        if _make_folder(path, new=True):
            return path
    raise LinneError(f"`{within}` holds a million {within} named `{base}`")


def _make_folder(path: Path, *, new: bool = False) -> bool:
    """Make a folder and those above it; return False if it has to be `new` and is there already."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(exist_ok=not new)
    except FileExistsError:
        if new:
            return False
        raise LinneError(f"the output folder `{path}` cannot be made: a file is in its place") from None
    except OSError as error:
        raise LinneError(f"the output folder `{path}` cannot be made: {error.strerror}") from error
    return True


class Narrator:
    """Says on stderr what is happening: a live line on a terminal, one line an epoch elsewhere, nothing if quiet."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._live = not quiet and sys.stderr.isatty()
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._last_epoch_line = 0.0

    def line(self, text: str = "") -> None:
        """Say one line."""
        if self._quiet:
            return
        if self._progress is not None:
            self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def warn(self, text: str) -> None:
        """Say one line that should not be missed."""
        self.line(f"warning: {text}")

    def table(self, rows: Sequence[Sequence[str]], indent: str = "  ") -> None:
        """Say rows in aligned columns."""
        if not rows:
            return
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            self.line((indent + "  ".join([*cells, row[-1]])).rstrip())

    @contextlib.contextmanager
    def progress(self, what: str, total: int) -> Iterator[None]:
        """Show how much of `total` is done, and when the rest will be, while inside."""
        if not self._live:
            yield
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = [
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[now]}"),
        ]
        with Progress(*columns, console=Console(stderr=True), transient=True) as self._progress:
            self._task = self._progress.add_task(what, total=total, now="")
            try:
                yield
            finally:
                self._progress.refresh()
        self._progress = self._task = None

    def advance(self, count: int = 1, now: str | None = None) -> None:
        """Move the live line by `count`, with the latest measurement in `now`."""
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, count)
            if now is not None:
                self._progress.update(self._task, now=now)

    def retotal(self, total: int) -> None:
        """Have the live line go up to another `total`."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, total=total)

    def epoch_header(self) -> None:
        """Say the heads of the columns of `epoch`."""
        self.line()
        self.line("  epoch     loss   val loss   val accuracy    images/s      time      left")

    def epoch(self, row: Mapping[str, Any], epochs: int, images_per_second: float) -> None:
        """Say what an epoch reached. Off a terminal at most one line in two seconds, and always the last."""
        now = time.monotonic()
        last = row["epoch"] == epochs
        if not self._live and not last and epochs > 20 and now - self._last_epoch_line < 2:
            return
        self._last_epoch_line = now
        val_loss = f"{row['val_loss']:>10.4f}" if row.get("val_loss") is not None else f"{'-':>10}"
        accuracy = f"{100 * row['val_accuracy']:>12.2f} %" if row.get("val_accuracy") is not None else f"{'-':>14}"
        left = row["seconds"] / row["epoch"] * (epochs - row["epoch"])
        mark = " *" if row["best"] else ""
        self.line(
            f"  {row['epoch']:>3}/{epochs:<3} {row['train_loss']:>8.4f} {val_loss} {accuracy} "
            f"{images_per_second:>11,.0f} {clock(row['seconds']):>9} {clock(left):>9}{mark}"
        )


def clock(seconds: float) -> str:
    """Return a duration as `8.3 s`, `2:05` or `1:02:03`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
