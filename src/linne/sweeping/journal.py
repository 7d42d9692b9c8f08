"""Which trials there were and which comes next: Optuna's studies, the only module that knows Optuna's trials.

Two studies share one journal: `search` draws recipes, `repeats` trains the best few again with other seeds.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages.journal import JournalFileOpenLock
from optuna.trial import TrialState

from linne.sweeping.folder import SweepPlan, base_recipe, read_plan, space_of
from linne.sweeping.journal_file import JournalFile, held
from linne.sweeping.presence import Presence
from linne.sweeping.results import Ended, State, SweepReport, Trial, to_repeat
from linne.sweeping.space import Dimension, Range

JOURNAL = "journal.jsonl"
NUM_RANDOM = 8
"""Trials drawn at random before the sampler believes what it has seen."""
NUM_TO_EXPLAIN = 20
"""Finished trials from which on fields are compared; with fewer, the shares change with every trial."""
MAX_LOST = 3
"""How often a trial may take its worker with it before it counts as failed."""

Nothing = Literal["wait", "done", "no time"]
STATES = {
    "finished": TrialState.COMPLETE,
    # Both tell the sampler that this is no good place; a failed trial would tell it nothing.
    "pruned": TrialState.PRUNED,
    "diverged": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "interrupted": TrialState.FAIL,
}
REPEATS = {"trial": IntDistribution(1, 10**6), "offset": IntDistribution(1, 10**6)}
"""Of which trial, and how far its seed is from the sweep's."""


@dataclass(frozen=True, slots=True)
class Task:
    """A training that this worker has to do, and no other does."""

    handle: Any
    """Optuna's trial."""
    name: str
    settings: Mapping[str, Any]
    can_prune: bool
    epochs: int
    """How many it has to do."""

    def report(self, epoch: int, value: float) -> None:
        """Write what an epoch reached."""
        self.handle.report(value, epoch)

    def is_hopeless(self, epoch: int) -> bool:
        """Return whether it is so far behind the others after `epoch` that the rest is not worth its time."""
        return self.can_prune and epoch < self.epochs and bool(self.handle.should_prune())


class Journal:
    """The studies of a sweep's folder, as they are now."""

    def __init__(self, folder: Path) -> None:
        """Open the journal of `folder`, which has a plan already, or begin it."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.folder = folder
        self._base = base_recipe(folder)
        self._space = {dimension.path: dimension for dimension in space_of(folder, read_plan(folder))}
        self._lock = JournalFileOpenLock(str((folder / "claim").resolve()))
        plan = read_plan(folder)
        storage = optuna.storages.JournalStorage(cast(Any, JournalFile(folder / JOURNAL)))
        with held(self._lock):
            self._search = _study(storage, "search", plan, self._base.optim.epochs)
            self._repeats = _study(storage, "repeats", plan, self._base.optim.epochs)
            if not self._search.get_trials(deepcopy=False) and (start := self._start()) is not None:
                self._search.enqueue_trial(start, user_attrs={"automatic": True})

    def _start(self) -> dict[str, Any] | None:
        """Return the base recipe's own values, None when one lies outside of what is searched."""
        fields = self._base.to_fields()
        inside = all(dimension.holds(fields[path]) for path, dimension in self._space.items())
        return {path: fields[path] for path in self._space} if inside else None

    def claim(self, presence: Presence, until: float | None) -> Task | Nothing:
        """Return the next training for this worker, or why there is none; it is nobody else's from now on.

        Args:
            until: A Unix time; what cannot be done by then is not begun.
        """
        plan = read_plan(self.folder)
        presence.touch(now=True)
        with held(self._lock):
            self._take_up_lost(self._search, presence)
            self._take_up_lost(self._repeats, presence)
            trials = self._search.get_trials(deepcopy=False)
            waiting = any(trial.state == TrialState.WAITING for trial in trials)
            number = sum(map(_counts, trials))
            if waiting or number < plan.num_trials:
                if not self._is_time(until):
                    return "no time"
                # By the number of the trial and not by the process: a sweep that was stopped draws what it would have.
                self._search.sampler = _sampler(plan.seed + number)
                return self._begin(presence)
            if any(trial.state == TrialState.RUNNING for trial in trials):
                return "wait"
            return self._claim_repeat(plan, presence, until)

    def _begin(self, presence: Presence) -> Task:
        handle = self._search.ask({path: _distribution(each) for path, each in self._space.items()})
        handle.set_user_attr("worker", presence.name)
        settings = {path: self._space[path].rounded(value) for path, value in handle.params.items()}
        epochs = settings.get("optim.epochs", self._base.optim.epochs)
        return Task(handle, f"trial-{handle.number + 1:04d}", settings, can_prune=True, epochs=epochs)

    def _claim_repeat(self, plan: SweepPlan, presence: Presence, until: float | None) -> Task | Nothing:
        report = self.report(plan)
        there = [(repeat.repeats, repeat.seed) for repeat in report.repeats]
        for offset in range(1, 1 + plan.num_seeds):
            for number in to_repeat(report.ranked, report.automatic):
                if (number, self._base.seed + offset) not in there:
                    self._repeats.enqueue_trial({"trial": number, "offset": offset})
        states = [trial.state for trial in self._repeats.get_trials(deepcopy=False)]
        if TrialState.WAITING not in states:
            return "wait" if TrialState.RUNNING in states else "done"
        if not self._is_time(until):
            return "no time"
        handle = self._repeats.ask(REPEATS)
        handle.set_user_attr("worker", presence.name)
        settings = self._settings(self._search.get_trials(deepcopy=False)[handle.params["trial"] - 1])
        seeded = {**settings, "seed": self._base.seed + handle.params["offset"]}
        epochs = seeded.get("optim.epochs", self._base.optim.epochs)
        return Task(handle, f"repeat-{handle.number + 1:04d}", seeded, can_prune=False, epochs=epochs)

    def _is_time(self, until: float | None) -> bool:
        """Return whether a training as long as most can be done by then; the first is always begun."""
        if until is None:
            return True
        took = [t.user_attrs["seconds"] for t in self._search.get_trials(deepcopy=False, states=[TrialState.COMPLETE])]
        return time.time() + (statistics.median(took) if took else 0.0) < until

    def _take_up_lost(self, study: Any, presence: Presence) -> None:
        """Mark the trials whose worker is gone and put them back in line."""
        for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            worker = trial.user_attrs.get("worker")
            if worker is None or presence.is_lost(worker):
                study.tell(trial.number, state=TrialState.FAIL)
                self._again(study, trial, lost=trial.user_attrs.get("lost", 0) + 1)

    def _again(self, study: Any, trial: Any, *, lost: int) -> None:
        if lost < MAX_LOST and trial.params:
            attributes = {"again": trial.user_attrs.get("again", trial.number + 1), "lost": lost}
            if trial.user_attrs.get("automatic"):
                attributes["automatic"] = True
            study.enqueue_trial(trial.params, user_attrs=attributes)

    def finish(self, task: Task, ended: Ended, value: float | None, facts: Mapping[str, Any]) -> None:
        """Write how a task ended; an interrupted one is put back in line."""
        study = self._search if task.can_prune else self._repeats
        for name, fact in {"ended": ended, **facts}.items():
            task.handle.set_user_attr(name, fact)
        with held(self._lock):
            study.tell(task.handle, value if ended == "finished" else None, state=STATES[ended])
            if ended == "interrupted":
                trial = study.get_trials(deepcopy=False)[task.handle.number]
                self._again(study, trial, lost=trial.user_attrs.get("lost", 0))

    def report(self, plan: SweepPlan) -> SweepReport:
        """Return all trials as plain data."""
        frozen = self._search.get_trials(deepcopy=False)
        trials = tuple(_plain(each, "trial", self._settings(each)) for each in frozen)
        repeats = []
        for each in self._repeats.get_trials(deepcopy=False):
            params = each.params or each.system_attrs.get("fixed_params", {})
            of, seed = params["trial"], self._base.seed + params["offset"]
            repeats.append(_plain(each, "repeat", self._settings(frozen[of - 1]), of, seed))
        automatic = [each.number + 1 for each in frozen if each.user_attrs.get("automatic")]
        return SweepReport(
            folder=self.folder,
            source=plan.source,
            objective=plan.objective,
            num_trials=plan.num_trials,
            space={path: str(dimension) for path, dimension in self._space.items()},
            trials=trials,
            repeats=tuple(repeats),
            automatic=automatic[-1] if automatic else None,
            num_val=0,
        )

    def importance(self) -> dict[str, float] | None:
        """Return each field's share of what decides the objective (PED-ANOVA); None with too few finished trials."""
        done = self._search.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        if len(done) < NUM_TO_EXPLAIN or len({trial.value for trial in done}) < 2:
            return None
        shares: dict[str, float] = optuna.importance.get_param_importances(self._search)
        return shares

    def _settings(self, trial: Any) -> dict[str, Any]:
        drawn = trial.params or trial.system_attrs.get("fixed_params", {})
        return {path: self._space[path].rounded(value) for path, value in drawn.items() if path in self._space}


def _study(storage: Any, name: str, plan: SweepPlan, epochs: int) -> Any:
    # Half of the epochs first: while the rate rises, and just after, accuracy says little about the end. And the worst
    # quarter, not half: the others are those that finished, which are the better ones already.
    pruner = optuna.pruners.PercentilePruner(75.0, n_startup_trials=5, n_warmup_steps=math.ceil(epochs / 2))
    return optuna.create_study(
        storage=storage, study_name=name, direction=plan.direction(), pruner=pruner, load_if_exists=True
    )


def _sampler(seed: int) -> Any:
    return optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=NUM_RANDOM)


def _distribution(dimension: Dimension) -> Any:
    if not isinstance(dimension, Range):
        return CategoricalDistribution(dimension.values)
    if dimension.whole:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _counts(trial: Any) -> bool:
    """Return whether a trial is one of those asked for: not one that was cut off and is tried again."""
    if trial.state != TrialState.FAIL:
        return True
    lost = trial.user_attrs.get("lost", 0)
    return trial.user_attrs.get("ended") == "failed" or (_state(trial) == "lost" and lost + 1 >= MAX_LOST)


def _state(trial: Any) -> State:
    if trial.state == TrialState.WAITING:
        return "waiting"
    if trial.state == TrialState.RUNNING:
        return "running"
    ended: State = trial.user_attrs.get("ended", "lost")
    return ended if trial.state == STATES.get(ended) else "lost"


def _plain(
    trial: Any, kind: str, settings: Mapping[str, Any], repeats: int | None = None, seed: int | None = None
) -> Trial:
    facts = trial.user_attrs
    steps = trial.intermediate_values
    return Trial(
        number=trial.number + 1,
        name=f"{kind}-{trial.number + 1:04d}",
        state=_state(trial),
        settings=settings,
        worker=facts.get("worker"),
        epochs=max(steps, default=0),
        latest=steps[max(steps)] if steps else None,
        kept_epoch=facts.get("kept_epoch"),
        val_accuracy=facts.get("val_accuracy"),
        val_loss=facts.get("val_loss"),
        seconds=facts.get("seconds"),
        message=facts.get("message"),
        again=facts.get("again"),
        repeats=repeats,
        seed=seed,
    )
