"""The learning rate as a function of the step."""

from __future__ import annotations

import math

from linne.recipe import OptimConfig

ONE_CYCLE_START = 1 / 25
"""Where one-cycle starts, as a share of the peak (Smith and Topin 2017; torch's `div_factor`)."""


def lr_factor(step: int, steps_per_epoch: int, config: OptimConfig) -> float:
    """Return what `config.lr` is multiplied by at `step`, counted from 0.

    `cosine` falls along half a cosine to 0 (Loshchilov and Hutter 2016); `one-cycle` rises linearly from 1/25 for
    `warmup_epochs` (30 % of training without it) and falls linearly to 0; `step` multiplies by `step_factor` every
    `step_epochs`; `constant` stays. The others rise linearly from 0 during `warmup_epochs`.
    """
    total = config.epochs * steps_per_epoch
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
    if config.schedule == "step":
        return config.step_factor ** (step // (config.step_epochs * steps_per_epoch))
    return 1.0
