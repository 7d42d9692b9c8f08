"""A training with a time budget, where its clock asks for other steps than planned: done, said and written down."""

from __future__ import annotations

import time
from dataclasses import replace

from linne.device import Device
from linne.log import Narrator, Run
from linne.recipe import Recipe
from linne.training.agreement import Agreement
from linne.training.progress import Progress
from linne.training.state import TrainState


def keep_to_budget(
    state: TrainState,
    last: int,
    steps_per_epoch: int,
    progress: Progress,
    recipe: Recipe,
    device: Device,
    run: Run,
    narrator: Narrator,
    agreement: Agreement,
) -> int:
    """Return after which step training ends, which was `last` so far: another one where the clock asks for it."""
    steps = agreement.num_steps(state, last, progress.run_start, device)
    if steps == last:
        return last
    state.cuts = (*state.cuts, state.step / steps_per_epoch, steps / steps_per_epoch)
    seconds = round(time.perf_counter() - progress.run_start, 3)
    run.log({"event": "shortened", "step": state.step, "steps": steps, "before": last, "seconds": seconds})
    epochs = f"{steps / steps_per_epoch:.3g} epochs instead of {last / steps_per_epoch:.3g}"
    narrator.line(f"{'time is short' if steps < last else 'there is time again'}: {epochs}, with a schedule that ends")
    narrator.retotal(steps)
    return steps


def as_decided(recipe: Recipe, state: TrainState) -> Recipe:
    """Return the recipe of a training that went by the clock, as one that does the same without."""
    cuts = state.cuts or (0.0, float(recipe.optim.epochs))
    return replace(recipe, optim=replace(recipe.optim, shortened=cuts))
