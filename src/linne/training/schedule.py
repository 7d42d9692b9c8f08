"""The learning rate as a function of the step, and of the validation loss for `plateau`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from linne.recipe import OptimConfig

ONE_CYCLE_START = 1 / 25
"""Where one-cycle starts, as a share of the peak (Smith and Topin 2017; torch's `div_factor`)."""
PLATEAU_THRESHOLD = 1e-4
"""A loss counts as lower when it is by this share (torch's `ReduceLROnPlateau`)."""


def planned_step(step: int, steps_per_epoch: int, epochs: int, cuts: Sequence[float]) -> float:
    """Return the step of the plan, of `epochs`, at whose rate `step` is done, counted from 0.

    `cuts` are pairs as in `optim.shortened`: from each on, what is left of the plan is spread evenly over what is left
    of training. Before the first, a step is that of the plan.
    """
    place, since, pace = 0.0, 0, 1.0
    for at, total in zip(cuts[::2], cuts[1::2], strict=True):
        start, end = round(at * steps_per_epoch), round(total * steps_per_epoch)
        if start > step:
            break
        place += (start - since) * pace
        since, pace = start, (epochs * steps_per_epoch - place) / max(end - start, 1)
    return place + (step - since) * pace


def lr_factor(step: float, steps_per_epoch: int, config: OptimConfig) -> float:
    """Return what `config.lr` is multiplied by at `step` of the plan, counted from 0.

    `cosine` falls along half a cosine to 0 (Loshchilov and Hutter 2016); `one-cycle` rises linearly from 1/25 for
    `warmup_epochs` (30 % of training without it) and falls linearly to 0; `wsd` stays and falls in the last
    `decay_share` as 1 - sqrt (Haegele et al. 2024); `step` multiplies by `step_factor` every `step_epochs`; the others
    stay. All but one-cycle rise linearly from 0 during `warmup_epochs`. With `swa_lr` the last `average_epochs` have
    that factor throughout (Izmailov et al. 2018).
    """
    total = config.epochs * steps_per_epoch
    if config.swa_lr is not None and step >= total - (config.average_epochs or 0) * steps_per_epoch:
        return config.swa_lr
    warmup = (config.warmup_epochs or 0.0) * steps_per_epoch
    if config.schedule == "one-cycle":
        if config.warmup_epochs is None:
            warmup = 0.3 * total
        if step < warmup:
            return ONE_CYCLE_START + (1 - ONE_CYCLE_START) * step / warmup
        return (total - step) / max(total - warmup, 1.0)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.schedule == "cosine":
        return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(total - warmup, 1.0))
    if config.schedule == "wsd":
        decay = config.decay_share * total
        return 1 - math.sqrt(max(step - (total - decay), 0.0) / decay)
    if config.schedule == "step":
        return config.step_factor ** int(step // (config.step_epochs * steps_per_epoch))
    return 1.0


class Plateau:
    """Multiplies the rate by `step_factor` whenever `plateau_epochs` brought no lower validation loss."""

    def __init__(self, config: OptimConfig) -> None:
        self.factor = 1.0
        """What the rate is multiplied by now."""
        self._config = config
        self._best = math.inf
        self._num_worse = 0

    def update(self, loss: float) -> None:
        """Take note of an epoch's validation loss."""
        if loss < self._best * (1 - PLATEAU_THRESHOLD):
            self._best, self._num_worse = loss, 0
            return
        self._num_worse += 1
        if self._num_worse == self._config.plateau_epochs:
            self.factor, self._num_worse = self.factor * self._config.step_factor, 0

    def state(self) -> dict[str, Any]:
        """Return what a restart needs."""
        return {"factor": self.factor, "best": self._best, "num_worse": self._num_worse}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.factor, self._best, self._num_worse = state["factor"], state["best"], state["num_worse"]
