"""When checkpoints are written, by whom, how many stay, and what happens when the disk refuses."""

from __future__ import annotations

import contextlib
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
            older = [path for path in find_checkpoints(run.checkpoints) if path.name < resumed.path.name]
            keeper._stored = [*map(_Stored, reversed(older)), _Stored(resumed.path, resumed.kept)]
            keeper.last_step = resumed.step
        return keeper

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
        if config.every_steps is not None and state.step - self.last_step >= config.every_steps:
            return True
        waited = now - self.last_time
        if config.every_minutes is not None and waited >= 60 * config.every_minutes:
            return True
        return at_epoch_end and waited >= LEAST_SECONDS

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

    def _settle(self, *, may_end: bool = True) -> None:
        """Say how the latest write ended, and raise when that was the last of too many failures."""
        assert self._writing is not None
        (_, writing), self._writing = self._writing, None
        if writing.problem is None:
            self._num_failures, self.not_before = 0, 0.0
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
