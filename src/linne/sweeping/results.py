"""What a sweep found, as plain data; computes ranks, and draws no conclusion that the numbers do not carry."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Ended = Literal["finished", "pruned", "diverged", "failed", "interrupted", "lost"]
State = Literal["waiting", "running", "finished", "pruned", "diverged", "failed", "interrupted", "lost"]
NUM_REPEATED = 3
"""How many of the best are repeated with other seeds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One training of a sweep."""

    number: int
    """From 1, in the order in which they were drawn."""
    name: str
    """Its run folder in the sweep's."""
    state: State
    settings: Mapping[str, Any]
    """The fields it changed, with its values."""
    worker: str | None = None
    epochs: int = 0
    """Epochs it has finished."""
    latest: float | None = None
    """The objective after the last of them."""
    kept_epoch: int | None = None
    val_accuracy: float | None = None
    """Of the kept epoch, as is the loss."""
    val_loss: float | None = None
    seconds: float | None = None
    """From starting its process to the end of it."""
    message: str | None = None
    """What went wrong."""
    again: int | None = None
    """The trial that was cut off and is tried again by this one."""
    repeats: int | None = None
    """The trial whose recipe this one repeats."""
    seed: int | None = None
    """Of a repeat."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values, without those that are not there."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in values.items() if value is not None} | {"settings": dict(self.settings)}


@dataclass(frozen=True, slots=True)
class Repeated:
    """A recipe trained several times with other seeds than the one that chose it."""

    number: int
    """Of the trial it comes from."""
    settings: Mapping[str, Any]
    values: tuple[float, ...]
    """The objective of each repeat."""

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """The standard deviation over seeds; None for a single one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {"trial": self.number, "values": list(self.values), "mean": self.mean, "spread": self.spread}


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepReport:
    """A sweep so far."""

    folder: Path
    source: str
    objective: str
    num_trials: int
    space: Mapping[str, str]
    trials: tuple[Trial, ...]
    repeats: tuple[Trial, ...]
    automatic: int | None
    """The trial with the recipe that trials change; None when that lies outside what is searched."""
    num_val: int
    """Validation images that trials are compared by."""
    test: Mapping[str, Any] | None = None
    """The best trial's evaluation on the split that no trial was chosen by."""
    importance: Mapping[str, float] | None = None
    """Each field's share of what decides the objective; None when there are too few trials to say."""
    stopped: str | None = None
    """Why it ended before all trials were done, in words."""
    signal_number: int | None = None

    @property
    def ranked(self) -> list[Trial]:
        """Finished trials, the best first; of equals the earlier, so that the recipe as it was yields to gain alone."""
        done = [trial for trial in self.trials if trial.state == "finished"]
        sign = 1 if self.objective == "val_loss" else -1
        return sorted(done, key=lambda trial: (sign * _value(trial, self.objective), trial.number))

    @property
    def best(self) -> Trial | None:
        """The best trial: by the mean of its repeats where the best few were repeated, else the first in rank."""
        ranked, repeated = self.ranked, self.repeated
        if not repeated:
            return next(iter(ranked), None)
        # A sweep that was stopped may have repeated some less often than others.
        most = max(len(each.values) for each in repeated)
        number = next(each.number for each in repeated if len(each.values) == most)
        return next(trial for trial in ranked if trial.number == number)

    @property
    def num_done(self) -> int:
        """Trials that count as one of those asked for and have ended."""
        return sum(trial.state in ("finished", "pruned", "diverged", "failed") for trial in self.trials)

    @property
    def standard_error(self) -> float | None:
        """What chance alone does to the highest accuracy, with that many validation images (Agresti and Coull 1998)."""
        if not self.ranked or not self.num_val:
            return None
        highest = max(trial.val_accuracy or 0.0 for trial in self.ranked)
        adjusted = (highest * self.num_val + 2) / (self.num_val + 4)
        return math.sqrt(adjusted * (1 - adjusted) / (self.num_val + 4))

    @property
    def num_near(self) -> int:
        """Finished trials that chance alone may have put behind the first: within one standard error of it."""
        ranked, error = self.ranked, self.standard_error
        if not ranked or error is None:
            return 0
        highest = max(trial.val_accuracy or 0.0 for trial in ranked)
        return sum((trial.val_accuracy or 0.0) >= highest - error for trial in ranked)

    @property
    def repeated(self) -> list[Repeated]:
        """The recipes that were repeated, the best mean first."""
        by_trial: dict[int, list[Trial]] = {}
        for repeat in self.repeats:
            if repeat.state == "finished" and repeat.repeats is not None:
                by_trial.setdefault(repeat.repeats, []).append(repeat)
        found = [
            Repeated(number, repeats[0].settings, tuple(_value(repeat, self.objective) for repeat in repeats))
            for number, repeats in by_trial.items()
        ]
        return sorted(found, key=lambda each: each.mean if self.objective == "val_loss" else -each.mean)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        best = self.best
        return {
            "format": 1,
            "folder": str(self.folder),
            "source": self.source,
            "objective": self.objective,
            "num_trials": self.num_trials,
            "space": dict(self.space),
            "best": best and best.number,
            "bundle": best and str(self.folder / best.name / "bundle"),
            "automatic": self.automatic,
            "num_val": self.num_val,
            "standard_error": self.standard_error,
            "test": None if self.test is None else dict(self.test),
            "importance": None if self.importance is None else dict(self.importance),
            "stopped": self.stopped,
            "repeated": [each.to_dict() for each in self.repeated],
            "trials": [trial.to_dict() for trial in self.trials],
        }


def to_repeat(ranked: Sequence[Trial], automatic: int | None) -> list[int]:
    """Return the trials to repeat: the best few, and the automatic recipe to hold them against."""
    best = [trial.number for trial in ranked[:NUM_REPEATED]]
    known = automatic in [trial.number for trial in ranked]
    return best if automatic is None or automatic in best or not known else [*best, automatic]


def _value(trial: Trial, objective: str) -> float:
    value = trial.val_loss if objective == "val_loss" else trial.val_accuracy
    return math.nan if value is None else value
