"""When checkpoints are written, by whom, how many stay, and what happens when the disk refuses.

A kill loses what was trained since the newest checkpoint that is on the disk; one that is being written is not yet. So
that this is never more than the interval, a checkpoint is begun earlier by as much as the last one took, and where that
was too little, training waits for it before it goes past the interval.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError

from linne.errors import BundleError, LinneError
from linne.log import Narrator, Run
from linne.recipe import CheckpointConfig
from linne.training.checkpoint_format import (
    UNFINISHED,
    Checkpoint,
    Contents,
    Tensors,
    find_checkpoints,
    name_of,
    remove,
    write_checkpoint,
)
from linne.training.progress import Progress
from linne.training.resume import Recorder
from linne.training.state import TrainState

LEAST_SECONDS = 30.0
"""Between two checkpoints at the ends of epochs: short epochs are not worth waiting for a disk."""
MOST_FAILURES = 5
"""In a row, before training ends: what it goes on to learn would be lost."""
RETRY_SECONDS = 15.0
"""Until a checkpoint is tried again that could not be written; doubled with every failure."""


@dataclass(eq=False, slots=True)
class _Write:
    """One checkpoint on its way to the disk; filled by the thread that writes it."""

    contents: Contents
    blocked_seconds: float
    """For which training stood still."""
    problem: str | None = None
    seconds: float = 0.0
    steps_meanwhile: int | None = None
    """How many steps were trained until training had to wait for it; None where it had not."""
    seconds_meanwhile: float = 0.0
    """For how long that was."""


@dataclass(frozen=True, eq=False, slots=True)
class _Stored:
    """A checkpoint that is on the disk."""

    path: Path
    kept: Tensors | None = None
    """The kept weights in it; None where that is not known."""


@dataclass(eq=False, kw_only=True, slots=True)
class Keeper:
    """Writes a run's checkpoints and takes the old ones away; one is written at a time, in a thread of its own."""

    run: Run
    config: CheckpointConfig
    narrator: Narrator
    recorder: Recorder
    retry_seconds: float = RETRY_SECONDS
    last_step: int = 0
    """Of the latest that was taken."""
    last_time: float = field(default_factory=time.monotonic)
    not_before: float = 0.0
    """When the next may be taken; times are `time.monotonic` seconds."""
    lead_steps: int = 0
    """By how many steps the next is begun before the interval is over: as many as the last took to write."""
    lead_seconds: float = 0.0
    _safe_step: int = 0
    """Of the newest that is on the disk."""
    _safe_time: float = field(default_factory=time.monotonic)
    """When that was taken."""
    _stored: list[_Stored] = field(default_factory=list)
    """Oldest first."""
    _writing: tuple[threading.Thread, _Write] | None = None
    _num_failures: int = 0

    @classmethod
    def open(
        cls, run: Run, config: CheckpointConfig, narrator: Narrator, recorder: Recorder, resumed: Checkpoint | None
    ) -> Self:
        """Return the keeper of `run`, which goes on from `resumed` or begins."""
        keeper = cls(run=run, config=config, narrator=narrator, recorder=recorder)
        if resumed is not None:
            keeper.go_on_from(resumed)
        return keeper

    def go_on_from(self, checkpoint: Checkpoint) -> None:
        """Take `checkpoint` for the newest, from which the run goes on; nothing is being written."""
        found = find_checkpoints(self.run.checkpoints)
        older = [path for path in found if path.name < checkpoint.path.name]
        self._stored = [*map(_Stored, reversed(older)), _Stored(checkpoint.path, checkpoint.kept)]
        self.last_step = self._safe_step = checkpoint.step
        self.last_time = self._safe_time = time.monotonic()

    @property
    def newest(self) -> Path | None:
        """The newest checkpoint that is on the disk."""
        return self._stored[-1].path if self._stored else None

    def is_due(self, state: TrainState, *, at_epoch_end: bool = False) -> bool:
        """Return whether a checkpoint should be taken now.

        Raises:
            LinneError: too many in a row could not be written.
        """
        if self._writing is not None and not self._writing[0].is_alive():
            self._settle()
        now, config = time.monotonic(), self.config
        if config.keep is None or self._writing is not None or now < self.not_before:
            return False
        waited = now - self.last_time
        if self._is_over(state.step - self.last_step + self.lead_steps, waited + self.lead_seconds):
            return True
        return at_epoch_end and waited >= LEAST_SECONDS

    def keep_up(self) -> None:
        """Wait for the checkpoint that is being written, if a further step could be lost beyond the interval.

        Raises:
            LinneError: too many in a row could not be written.
        """
        if self._writing is None:
            return
        thread, writing = self._writing
        step, now = self.recorder.state.step, time.monotonic()
        if self._is_over(step - self._safe_step, now - self._safe_time):
            writing.steps_meanwhile, writing.seconds_meanwhile = step - writing.contents.step, now - self.last_time
            thread.join()
            writing.blocked_seconds += time.monotonic() - now
            self._settle()

    def _is_over(self, steps: int, seconds: float) -> bool:
        """Return whether so many steps, or seconds, are the interval or more."""
        every_steps, every_minutes = self.config.every_steps, self.config.every_minutes
        return (every_steps is not None and steps >= every_steps) or (
            every_minutes is not None and seconds >= 60 * every_minutes
        )

    def save(self, progress: Progress) -> None:
        """Take a checkpoint now and have it written by a thread."""
        start = time.monotonic()
        contents = self.recorder.take(progress)
        if self.config.keep is None:  # one of several processes that had a part to give
            return
        self.last_step, self.last_time = contents.step, time.monotonic()
        writing = _Write(contents, self.last_time - start)
        # A daemon: a second signal leaves at once, and what it cuts off has no name of a checkpoint yet.
        thread = threading.Thread(target=self._write, args=(writing,), name="checkpoint", daemon=True)
        self._writing = thread, writing
        thread.start()

    def save_now(self, progress: Progress) -> None:
        """Take a checkpoint and wait until it is written, before training ends; what hinders it is said."""
        self.wait()
        if self.config.keep is not None and not self.is_stored():
            self.save(progress)
            self.wait()

    def wait(self) -> None:
        """Wait for the checkpoint that is being written, if one is."""
        if self._writing is not None:
            self._writing[0].join()
            self._settle(may_end=False)

    def is_stored(self) -> bool:
        """Return whether the newest checkpoint is of this step."""
        return self.newest is not None and self.newest.name == name_of(
            self.recorder.state.epoch, self.recorder.state.step
        )

    def _write(self, writing: _Write) -> None:
        """Write a checkpoint; runs in the thread."""
        start = time.perf_counter()
        contents, keep = writing.contents, self.config.keep or 1
        # Not from the newest: the two newest never share a file, so that one damaged place on the disk spoils one.
        before = self._stored[-min(keep, 2)] if len(self._stored) >= min(keep, 2) else None
        shared = before.path if before is not None and before.kept is contents.kept else None
        try:
            if contents.holds_nan():
                raise ValueError("weights hold values that are not numbers")
            self.run.sync()
            path = write_checkpoint(self.run.checkpoints, contents, shared)
            self._stored = [*self._stored, _Stored(path, contents.kept)][-keep:]
            self._tidy()
        except (OSError, SafetensorError, BundleError, ValueError) as error:
            writing.problem = _reason(error)
        except Exception as error:  # a fault of ours must not pass unseen, because it happened in a thread
            writing.problem = f"unexpected {type(error).__name__}: {error}"
        writing.seconds = time.perf_counter() - start

    def _tidy(self) -> None:
        """Remove older checkpoints, damaged ones, and what a killed process left; what cannot be removed stays."""
        stay = [stored.path for stored in self._stored]
        for path in find_checkpoints(self.run.checkpoints):
            if path not in stay:
                with contextlib.suppress(OSError):
                    remove(path)
        for path in self.run.checkpoints.glob(f"{UNFINISHED}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _set_lead(self, writing: _Write) -> None:
        """Begin the next one earlier by as much as this one took, by half of the interval at most."""
        every_steps, every_minutes = self.config.every_steps, self.config.every_minutes
        if every_minutes is not None:
            self.lead_seconds = min(writing.seconds, 30 * every_minutes)
        if every_steps is not None:
            steps, seconds = writing.steps_meanwhile, writing.seconds_meanwhile
            if steps is None:  # it was done before anyone waited for it
                steps, seconds = self.recorder.state.step - writing.contents.step, writing.seconds
            pace = steps / max(seconds, 1e-3)
            # One more: a step that began before it was done. Training that waited from the start has shown no pace.
            self.lead_steps = min(1 + math.ceil(pace * writing.seconds), every_steps // 2)

    def _settle(self, *, may_end: bool = True) -> None:
        """Say how the latest write ended, and raise when that was the last of too many failures."""
        assert self._writing is not None
        (_, writing), self._writing = self._writing, None
        if writing.problem is None:
            self._num_failures, self.not_before = 0, 0.0
            self._safe_step, self._safe_time = writing.contents.step, self.last_time
            self._set_lead(writing)
            self.run.log(_row(writing))
            return
        self._num_failures += 1
        self.not_before = time.monotonic() + self.retry_seconds * 2 ** (self._num_failures - 1)
        last = "there is none yet" if self.newest is None else f"the last one is `{self.newest}`"
        problem = f"the checkpoint at step {writing.contents.step:,} could not be written: {writing.problem}; {last}"
        if may_end and self._num_failures >= MOST_FAILURES:
            raise LinneError(
                f"{self._num_failures} checkpoints in a row could not be written: {writing.problem}; {last}",
                hint=f"make room on the disk, then: linne train --output {self.run.path} --resume",
            )
        self.narrator.warn(problem)


def clear(folder: Path) -> None:
    """Remove all checkpoints of a run that needs them no more."""
    shutil.rmtree(folder, ignore_errors=True)


def _row(writing: _Write) -> dict[str, Any]:
    """Return what the measurements of a run say about a checkpoint."""
    contents = writing.contents
    size = sum(t.nbytes for tensors in (contents.tensors, contents.kept or {}) for t in tensors.values())
    return {
        "event": "checkpoint",
        "step": contents.step,
        "epoch": contents.epoch,
        "size_bytes": size,
        "blocked_seconds": round(writing.blocked_seconds, 4),
        "write_seconds": round(writing.seconds, 4),
    }


def _reason(error: Exception) -> str:
    """Return why a checkpoint could not be written; safetensors hides the system's number in its words."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    number = re.search(r"\(os error (\d+)\)", said)
    said = said if number is None else os.strerror(int(number[1]))
    return said[:1].lower() + said[1:]
