"""What is logged and said of steps and epochs."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from linne.errors import CheckFailed
from linne.log import Narrator, Run
from linne.recipe import Recipe
from linne.training.distributed import World
from linne.training.progress import Progress
from linne.training.state import Scores, TrainState


def log_steps(
    progress: Progress,
    state: TrainState,
    recipe: Recipe,
    steps_per_epoch: int,
    run: Run,
    narrator: Narrator,
    world: World,
) -> None:
    """Read the losses of the last steps, once for all of them, and log their mean.

    Raises:
        CheckFailed: one of them is not a finite number.
    """
    if not progress.unread:
        return
    losses, num_images = torch.stack(progress.unread).tolist(), progress.unread_images
    if world.size > 1:
        *losses, images = world.sum(torch.tensor([*losses, float(num_images)], dtype=torch.float64)).tolist()
        losses, num_images = [loss / world.size for loss in losses], round(images)
    now = time.perf_counter()
    progress.waiting.read()
    finite = [loss for loss in losses if math.isfinite(loss)]
    for position, loss in enumerate(losses):
        if not math.isfinite(loss) and recipe.optim.nonfinite != "skip":
            step = state.step - len(losses) + position
            progress.failed_step = step + 1
            what = "the loss" if recipe.optim.nonfinite == "raise" else "the loss or a gradient"
            raise CheckFailed(f"{what} became {loss} at step {step + 1}, in epoch {step // steps_per_epoch + 1}")
    rate = num_images / max(now - progress.unread_since, 1e-9)
    row = {
        "event": "step",
        "step": state.step,
        "epoch": round(state.step / steps_per_epoch, 4),
        "loss": sum(finite) / len(finite) if finite else math.nan,
        "lr": state.lr,
        "images_per_second": round(rate, 1),
        "seconds": round(now - progress.run_start, 3),
    }
    if state.skips.total:
        row["skipped"] = state.skips.total
    if state.micro_batch is not None:
        row["micro_batch"] = state.micro_batch
        if state.micro_batch != progress.micro_batch:
            say_memory(state.micro_batch, narrator)
            progress.micro_batch = state.micro_batch
    run.log(row)
    narrator.advance(len(losses), f"loss {row['loss']:.3f}, {rate:,.0f} images/s")
    progress.loss_sum += sum(finite)
    progress.num_steps += len(finite)
    progress.num_images += num_images
    progress.unread, progress.unread_images, progress.unread_since = [], 0, now


def say_memory(micro_batch: int, narrator: Narrator) -> None:
    """Say how many images are computed at once, since memory is short."""
    narrator.warn(
        f"memory is short: {micro_batch} images are computed at once; their gradients add up to those of the "
        "batch, whose size and schedule stay"
    )


def finish_epoch(
    progress: Progress, state: TrainState, scores: Scores | None, recipe: Recipe, run: Run, narrator: Narrator
) -> None:
    """Keep the weights if they are the best so far, and say what the epoch came to."""
    row: dict[str, Any] = {"event": "epoch", "epoch": state.epoch, "step": state.step}
    row["data_wait"] = round(min(progress.waiting.read() / progress.train_seconds, 1.0), 4)
    row["train_loss"] = progress.loss_sum / max(progress.num_steps, 1)
    if scores is not None:
        row |= {"val_loss": scores.loss, "val_accuracy": scores.accuracy}
        if state.plateau is not None:
            state.plateau.update(scores.loss)
        if state.patience is not None:
            state.patience.update(scores.accuracy)
    row["best"] = state.keep(scores)
    row["seconds"] = round(time.perf_counter() - progress.run_start, 3)
    run.log(row)
    for lines in (run.metrics, run.samples):
        if lines.problem is not None:
            narrator.warn(f"{lines.problem}; its rows wait")
    narrator.epoch(row, state.num_epochs(recipe.optim.epochs), progress.num_images / progress.train_seconds)
    if state.patience is not None and state.patience.is_over and state.epoch < state.num_epochs(recipe.optim.epochs):
        narrator.line(f"ended early: {state.patience.most} epochs brought no higher validation accuracy")
