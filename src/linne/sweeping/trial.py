"""One training of a sweep: an ordinary `linne train` in a process of its own, followed by what it writes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linne.sweeping import lifeline
from linne.sweeping.folder import FULL, full
from linne.sweeping.space import shown

TRAINER = (sys.executable, "-m", "linne.sweeping.lifeline")
"""What runs `linne`'s command line in a process that ends with its worker."""
TRUST = "--trust-code"
POLL_SECONDS = 0.1
LOGS = "logs"
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a training's process ended, and what it left."""

    exit_code: int
    ending: str | None
    """The run's own word: `finished`, `interrupted`, `diverged`; None when it wrote none."""
    kept: Row | None
    """The epoch whose weights are in the bundle."""
    message: str | None
    """What went wrong, as the training said it."""
    seconds: float


class TrialProcess:
    """A training that runs."""

    def __init__(
        self,
        folder: Path,
        name: str,
        settings: Mapping[str, Any],
        cwd: str,
        trainer: Sequence[str],
        *,
        trust_code: bool,
    ) -> None:
        """Start it in the run folder `name` of the sweep's `folder`."""
        folder = folder.resolve()
        self._run = folder / name
        self._log = folder / LOGS / f"{name}.txt"
        self._log.parent.mkdir(exist_ok=True)
        words = [*trainer, "train", "--recipe", str(folder / "recipe.json"), "--output", str(self._run)]
        for path, value in settings.items():
            words += ["--set", f"{path}={repr(value) if isinstance(value, float) else shown(value)}"]
        words += [TRUST] if trust_code else []
        self._start = time.monotonic()
        self._read = 0
        try:
            with self._log.open("wb") as log:
                here = Path(cwd) if Path(cwd).is_dir() else Path.cwd()
                self._process = lifeline.start(words, output=log, errors=subprocess.STDOUT, folder=here)
        except OSError as error:
            if error.errno in FULL:
                raise full(self._log, error) from error
            raise

    def follow(self) -> Iterator[list[Row]]:
        """Yield the epochs finished since the last time, ten times a second and often none, until it has ended."""
        while True:
            is_over = self._process.poll() is not None
            yield [row for row in self._new_rows() if row.get("event") == "epoch"]
            if is_over:
                return
            time.sleep(POLL_SECONDS)

    def end(self) -> None:
        """Ask it to save and end; `follow` goes on until it has."""
        lifeline.let_go(self._process)

    def end_now(self) -> None:
        """Ask it to save and end, wait for that, and kill it when it does not."""
        lifeline.end(self._process)

    def outcome(self) -> Outcome:
        """Return how it ended; it has ended."""
        code = self._process.wait()
        lifeline.let_go(self._process)
        self._read = 0
        rows = self._new_rows()
        epochs = [row for row in rows if row.get("event") == "epoch"]
        ends = [row.get("reason") for row in rows if row.get("event") == "end"]
        kept = next((row for row in reversed(epochs) if row.get("best")), None)
        message = None if code == 0 else _last_words(self._log, code)
        return Outcome(code, ends[-1] if ends else None, kept, message, round(time.monotonic() - self._start, 3))

    def _new_rows(self) -> list[Row]:
        """Return the whole lines of metrics.jsonl that were not read yet."""
        try:
            with (self._run / "metrics.jsonl").open("rb") as file:
                file.seek(self._read)
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        return [row for row in map(_row, whole.splitlines()) if row]


def _row(line: bytes) -> Row:
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def _last_words(log: Path, code: int) -> str:
    """Return why a training failed: its `error:` line, else its last, else the signal that ended it."""
    with log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 65536))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error:").strip() for line in lines if line.startswith("error:")]
    if errors:
        return errors[-1]
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (", as the system does when memory runs out" if name == "SIGKILL" else "")
    return lines[-1] if lines else f"ended with exit code {code} and said nothing"
