"""Attempt after attempt until a training is done: what is tried again, when, and when that is given up."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, Self
from uuid import uuid4

from linne.launching.attempt import Attempt
from linne.launching.outcomes import ENDED_BY_SIGNAL, Verdict
from linne.log import Narrator

POLL_SECONDS = 0.1
LONGEST_WAIT = 60.0
"""Between two attempts, in seconds; the first wait is one, and each doubles."""
MOST_IDLE = 2
"""Attempts in a row that wrote no checkpoint, after which more of them would not either."""
FAILED = 1
"""The exit code when it is given up."""


class Starter(Protocol):
    """What starts an attempt and agrees with other machines on what it came to; alone there is nobody to agree with."""

    def start(self, arguments: Sequence[str]) -> Attempt:
        """Return the next attempt, begun when all machines are there."""

    def must_end(self) -> str | None:
        """Return why the attempt cannot go on because of another machine, or None."""

    def agree(self, verdict: Verdict) -> Verdict:
        """Return what the attempt came to on all machines."""


@dataclass(frozen=True, slots=True)
class OneMachine:
    """Starts all processes here."""

    num_processes: int

    def start(self, arguments: Sequence[str]) -> Attempt:
        return Attempt.start(arguments, run_id=uuid4().hex, num_processes=self.num_processes)

    def must_end(self) -> str | None:
        return None

    def agree(self, verdict: Verdict) -> Verdict:
        return verdict


class Signals:
    """Notes the signals that end a training, to be passed on to its processes."""

    def __init__(self) -> None:
        self.latest: int | None = None
        self.count = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
            if hasattr(signal, name):
                number = getattr(signal, name)
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.latest, self.count = number, self.count + 1


@dataclass(eq=False, kw_only=True, slots=True)
class Supervisor:
    """Keeps a training of several processes going."""

    starter: Starter
    narrator: Narrator
    run: Path
    """The run folder, in which attempts leave checkpoints for the next."""
    max_restarts: int
    first_wait: float = 1.0
    _idle: int = field(default=0, init=False)
    _micro_batch: int | None = field(default=None, init=False)
    """How many images the processes were told to compute at once, since memory was short."""

    def train(self, arguments: Sequence[str]) -> int:
        """Return the exit code of `linne` with `arguments`, which go on with the run where there is one.

        A user's error, a failed check and a signal end it; processes that die are started again, all of them, until
        `max_restarts` are used up or `MOST_IDLE` attempts in a row got no further. Where memory was short they are
        started again with fewer images at once, which is not counted: it cannot happen more often than halving does.
        """
        wait, restarts = self.first_wait, 0
        with Signals() as signals:
            while True:
                before, ended = self._place(), self._attempt(arguments, signals)
                place = self._place()
                verdict = self.starter.agree(replace(ended, place=place, moved=place != before))
                if verdict.code is None and signals.latest is not None:
                    verdict = replace(verdict, code=128 + signals.latest)
                if verdict.code is not None:
                    return self._leave(verdict, verdict.code)
                if self._can_take_fewer(verdict):
                    arguments = self._with_fewer(arguments, verdict)
                    continue
                self._idle = 0 if verdict.moved else self._idle + 1
                restarts += 1
                died = "; ".join(verdict.lines)
                if restarts > self.max_restarts or self._idle >= MOST_IDLE:
                    return self._give_up(died, restarts - 1, verdict.place)
                wait = self.first_wait if verdict.moved else wait
                place = verdict.place or "the beginning"
                self.narrator.warn(f"{died}; restart {restarts} of {self.max_restarts} from {place} in {wait:g} s")
                if self._is_told_to_end_in(wait, signals):
                    return 128 + (signals.latest or signal.SIGTERM)
                wait = min(2 * wait, LONGEST_WAIT)

    def _can_take_fewer(self, verdict: Verdict) -> bool:
        """Return whether memory was short with more images at once than could be computed."""
        fewer = verdict.micro_batch
        return fewer is not None and (self._micro_batch is None or fewer < self._micro_batch)

    def _with_fewer(self, arguments: Sequence[str], verdict: Verdict) -> list[str]:
        """Return the arguments of the next attempt, which computes as many images at once as `verdict` says."""
        self._micro_batch = verdict.micro_batch
        died, place = "; ".join(verdict.lines), verdict.place or "the beginning"
        self.narrator.warn(f"{died}; going on from {place} with {self._micro_batch} images at once in each process")
        return with_setting(arguments, "device.micro_batch", str(self._micro_batch))

    def _attempt(self, arguments: Sequence[str], signals: Signals) -> Verdict:
        """Return what one attempt came to on this machine."""
        attempt, seen = self.starter.start(arguments), 0
        try:
            while not attempt.is_over:
                if signals.latest is not None:
                    if signals.count > seen and seen:  # a second one: at once
                        return attempt.end()
                    seen = signals.count
                    attempt.pass_on(signals.latest)
                if (problem := self.starter.must_end()) is not None:
                    attempt.end()
                    return Verdict(None, (problem,))
                if attempt.is_overdue:
                    break
                time.sleep(POLL_SECONDS)
        finally:
            verdict = attempt.end()
        return verdict

    def _place(self) -> str | None:
        """Return the newest checkpoint of the run, where this machine sees its folder."""
        try:
            return (self.run / "checkpoints" / "latest").read_text("utf-8").strip()
        except OSError:
            return None

    def _leave(self, verdict: Verdict, code: int) -> int:
        if code not in (0, *ENDED_BY_SIGNAL):
            self._say_error("; ".join(verdict.lines), verdict.hint)
        return code

    def _give_up(self, died: str, restarts: int, place: str | None) -> int:
        why = f"{restarts} restarts are used up"
        if self._idle >= MOST_IDLE:
            why = f"{self._idle} attempts in a row came no further than {place or 'the beginning'}"
        self._say_error(f"{died}; given up: {why}", "LINNE_DEBUG=1 shows where each process failed")
        return FAILED

    def _say_error(self, message: str, hint: str | None) -> None:
        if message:
            self.narrator.line(f"error: {message}")
        if message and hint:
            self.narrator.line(f"\nhint: {hint}")

    def _is_told_to_end_in(self, seconds: float, signals: Signals) -> bool:
        """Wait, unless a signal comes, and return whether one did."""
        end = time.monotonic() + seconds
        while signals.latest is None and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
        return signals.latest is not None


def with_setting(arguments: Sequence[str], path: str, value: str) -> list[str]:
    """Return `arguments` with `--set path=value`, in place of another value that they give the field."""
    kept: list[str] = []
    for word in arguments:
        given = word.removeprefix("--set=") if word.startswith("--set=") else word if kept[-1:] == ["--set"] else ""
        if given.partition("=")[0].strip() != path:
            kept.append(word)
        elif kept[-1:] == ["--set"]:
            kept.pop()
    return [*kept, "--set", f"{path}={value}"]
