"""One candidate in a process of its own, run for as long as it is told to."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from linne.tuning.candidate import Candidate

OPEN_LIMIT_S = 900.0
"""A graph that is compiled for a GPU with every kernel tried takes ten minutes."""
ANSWER_LIMIT_S = 120.0
MOST_LINE_BYTES = 1 << 20


class Refused(Exception):
    """The candidate cannot be run here; the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """What one turn measured."""

    times_ms: tuple[float, ...]
    """Of each batch."""
    peak_mib: float | None
    """The most memory that the process has had so far."""


class Runner:
    """A child process that holds a candidate; it computes only during `run`."""

    def __init__(self, bundle: Path, candidate: Candidate) -> None:
        """Start it and wait until its first answers are there.

        Raises:
            Refused: the backend does not open the bundle so, crashes, or takes longer than `OPEN_LIMIT_S`.
        """
        self.candidate = candidate
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        words = [sys.executable, "-m", "linne.tuning.child", str(bundle), json.dumps(candidate.to_dict())]
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, text=True, env=dict(os.environ)
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            ready = self._heard("ready", OPEN_LIMIT_S)
        except BaseException:
            self.close()
            raise
        self.open_ms, self.first_ms = float(ready["open_ms"]), float(ready["first_ms"])
        self.description = str(ready["description"])

    def run(self, seconds: float) -> Turn:
        """Return the times of batches over `seconds`, at least one.

        Raises:
            Refused: the process ended or does not answer.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{seconds}\n")
            self._process.stdin.flush()
        except ValueError as error:  # closed
            raise Refused("its process is gone") from error
        except OSError as error:
            raise Refused(f"its process is gone: {self._last_words() or error.strerror}") from error
        ran = self._heard("ran", ANSWER_LIMIT_S + seconds)
        return Turn(times_ms=tuple(map(float, ran["times_ms"])), peak_mib=ran["peak_mib"])

    def close(self) -> None:
        """End the process. A second call does nothing."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> None:
        """Pass on what the process says, and an empty line at its end."""
        assert self._process.stdout is not None
        with contextlib.suppress(OSError, ValueError):  # closed while it is read
            while line := self._process.stdout.readline(MOST_LINE_BYTES):
                self._lines.put(line)
        self._lines.put("")

    def _heard(self, event: str, limit_s: float) -> Mapping[str, Any]:
        while True:
            try:
                line = self._lines.get(timeout=limit_s)
            except queue.Empty:
                self._process.kill()
                raise Refused(f"no answer within {limit_s:.0f} s") from None
            if not line:
                raise Refused(f"its process ended: {self._last_words() or 'without a word'}")
            try:
                said = json.loads(line)
            except ValueError:
                continue  # libraries print as well
            if isinstance(said, dict) and said.get("linne") == event:
                return said
            if isinstance(said, dict) and said.get("linne") == "refused":
                raise Refused(str(said.get("reason")))

    def _last_words(self) -> str:
        self._stderr.seek(0)
        lines = self._stderr.read()[-4000:].decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:300] if lines else ""
