"""How long an epoch will take: a few real steps and a part of a validation, timed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

from linne.data.loading.loader import Batch, make_batches
from linne.data.source import Source
from linne.device import Device
from linne.recipe import Recipe
from linne.training.starting import throwaway_state
from linne.training.state import TrainState
from linne.training.step import evaluate_model, train_step

LOOK_SHARE, LONGEST_LOOK = 0.1, 6.0
"""How long steps are timed: a share of the budget, and at most so many seconds. Validation takes a third of it more."""
RESERVE = 0.05
"""Of the budget: for logs, checkpoints and what else a measurement of steps does not see."""
STEPS_AT_ONCE = 10
"""Between two looks at the clock, which wait for the device."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What training takes, in seconds."""

    start: float
    """More than usual for the first steps: kernels are chosen, the network is compiled."""
    epoch: float
    """Of training and validation."""
    pass_over: float
    """Of one more pass over the training images without learning, for the statistics of averaged weights."""

    def epochs_in(self, seconds: float, recipe: Recipe) -> int:
        """Return how many whole epochs of `recipe` fit into `seconds` less the reserve, at least 1."""
        optim, epoch, start = recipe.optim, self.epoch, self.start
        if optim.schedule == "schedule-free":
            epoch += self.pass_over
        start += (optim.average_epochs or 0) * self.pass_over
        return max(1, int((seconds * (1 - RESERVE) - start) / epoch))


def measure_pace(
    recipe: Recipe, source: Source, device: Device, budget_seconds: float, *, trust_code: bool = False
) -> Pace:
    """Return the pace of `recipe`, found with a network that is thrown away, on images of full size."""
    recipe = recipe.override({"augment.size_start": None, "augment.size_tune_epochs": None})
    look = min(LOOK_SHARE * budget_seconds, LONGEST_LOOK)
    with device.repeatable(recipe.seed, recipe.device.num_threads, recipe.device.determinism):
        train, val = make_batches(source, recipe, device)
        state = throwaway_state(recipe, source, device, train, trust_code=trust_code)
        endless = itertools.chain.from_iterable(train.epoch(epoch) for epoch in itertools.count())
        first = _seconds_of_steps(state, itertools.islice(endless, 2), recipe, device, len(train))
        steps, taken = 0, 0.0
        while taken < look:
            taken += _seconds_of_steps(state, itertools.islice(endless, STEPS_AT_ONCE), recipe, device, len(train))
            steps += STEPS_AT_ONCE
        step = taken / steps
        watched = train if val is None else val
        evaluate_model(state, itertools.islice(watched.in_order(), 1), recipe, device)
        start = time.perf_counter()
        passes = itertools.chain.from_iterable(watched.in_order() for _ in itertools.count())
        scores = evaluate_model(state, _for_seconds(passes, look / 3), recipe, device)
        image = (time.perf_counter() - start) / max(scores.num_examples, 1)
        start = time.perf_counter()
        state.keep(scores)
        keeping = time.perf_counter() - start
        validation = 0.0 if val is None else val.num_examples * image
    epoch = len(train) * step + validation + keeping
    return Pace(start=max(first - 2 * step, 0.0), epoch=epoch, pass_over=train.num_examples * image)


def _seconds_of_steps(
    state: TrainState, batches: Iterator[Batch], recipe: Recipe, device: Device, steps_per_epoch: int
) -> float:
    start = time.perf_counter()
    for batch in batches:
        train_step(state, batch, recipe, device, steps_per_epoch)
        state.step = 0  # the schedule has no end here
    device.synchronise()
    return time.perf_counter() - start


def _for_seconds(batches: Iterator[Batch], seconds: float) -> Iterator[Batch]:
    """Yield `batches` until `seconds` are over, at least one."""
    start = time.perf_counter()
    for batch in batches:
        yield batch
        if time.perf_counter() - start > seconds:
            return
