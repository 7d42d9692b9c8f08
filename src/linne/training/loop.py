"""Recipe in, bundle out: the whole story of a training, from the first step to the kept weights."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from linne import models
from linne.bundle import Bundle, canary_batch
from linne.data.loading.loader import Batches, input_spec, make_batches
from linne.data.source import Source
from linne.device import Device
from linne.device.fallbacks import Fallbacks
from linne.errors import CheckFailed, RecipeError, SourceError
from linne.log import Narrator, Run
from linne.recipe import Recipe
from linne.training.first_step import prove_device
from linne.training.interrupt import Interrupt
from linne.training.losses import class_counts
from linne.training.result import write_result
from linne.training.state import Snapshot, TrainState
from linne.training.step import evaluate_model, refresh_average, train_step
from linne.training.waiting import Waiting

Ending = Literal["finished", "interrupted", "diverged"]


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training came to."""

    bundle: Bundle | None
    """None when it ended before an epoch was done."""
    kept: Snapshot | None
    ending: Ending
    problem: str | None
    """Where the loss stopped being a number, in words."""
    signal_number: int | None
    """Of the signal that came while training, if one did."""
    bad_images: tuple[str, ...]
    """Unreadable images that were left out: name and reason."""
    seconds: float
    """From the first step to the last, evaluation included, loading and writing not."""


def train(
    recipe: Recipe,
    source: Source,
    run: Run,
    narrator: Narrator,
    *,
    require_accelerator: bool = False,
    device_check: bool = True,
) -> Trained:
    """Train `recipe` on `source`, keeping everything in `run`, and return what came of it.

    With `device_check` the first step on an accelerator is compared with the CPU's, once for each model and device.
    Ctrl-C, SIGTERM and a loss that is no longer a number end the training early: the epoch kept so far becomes the
    bundle.

    Raises:
        CheckFailed: the device computes wrong numbers, or leaves work to the CPU with `require_accelerator`.
        SourceError: too many images cannot be read, or all of val.
        RecipeError: the network cannot learn from batches of one image.
        KeyboardInterrupt: before the first step, or for the second time.
    """
    device = Device.pick(recipe.device.name)
    with device.repeatable(recipe.seed, recipe.device.num_threads, recipe.device.determinism):
        train_batches, val_batches = load(source, recipe, device, narrator)
        ref = models.describe_recipe(recipe, source.num_classes)
        state = TrainState.create(models.build(ref), recipe, device, class_counts(source))
        fallbacks = Fallbacks(device, allowed=not require_accelerator)
        with fallbacks.watch(), Interrupt() as interrupt:
            if device_check and device.is_accelerator:
                prove_device(state.model, train_batches, recipe, device, fallbacks, narrator)
            start = time.perf_counter()
            problem = _train_epochs(
                state, train_batches, val_batches, recipe, device, run, narrator, interrupt, fallbacks
            )
            seconds = time.perf_counter() - start
            ending: Ending = "diverged" if problem else "finished" if interrupt.number is None else "interrupted"
            kept = state.kept
            bad_images = (*train_batches.bad_images, *(val_batches.bad_images if val_batches else ()))
            row = {"event": "end", "seconds": seconds, "epochs": state.epoch, "best_epoch": kept and kept.epoch}
            run.log({**row, "reason": ending, "unreadable": bad_images, "fallbacks": dict(fallbacks.counts)})
            if (left := fallbacks.in_words()) is not None:
                narrator.warn(left)
            bundle = None
            if kept is not None:
                all_done = problem is None and state.epoch == recipe.optim.epochs
                bundle = write_result(run, ref, kept, source, recipe, device, finished=all_done)
    return Trained(bundle, kept, ending, problem, interrupt.number, bad_images, seconds)


def _train_epochs(
    state: TrainState,
    train_batches: Batches,
    val_batches: Batches | None,
    recipe: Recipe,
    device: Device,
    run: Run,
    narrator: Narrator,
    interrupt: Interrupt,
    fallbacks: Fallbacks,
) -> str | None:
    """Train until the last epoch or an interrupt; return where the numbers stopped being numbers, or None."""
    start = time.perf_counter()
    narrator.epoch_header()
    try:
        with narrator.progress("training", recipe.optim.epochs * len(train_batches)):
            while state.epoch < recipe.optim.epochs:
                state.start_epoch()
                epoch = _Epoch(start, Waiting(device), state.micro_batch)
                for batch in epoch.waiting.timed(train_batches.epoch(state.epoch)):
                    loss = train_step(state, batch, recipe, device, len(train_batches))
                    epoch.add(loss, len(batch.labels_N))
                    if len(epoch.unread) == recipe.log_every:
                        _log_steps(epoch, state, recipe, len(train_batches), run, narrator)
                        fallbacks.check()
                    if interrupt.number is not None:
                        return None
                _log_steps(epoch, state, recipe, len(train_batches), run, narrator)
                state.epoch += 1
                refresh_average(state, train_batches, recipe, device)
                _finish_epoch(epoch, state, val_batches, recipe, device, run, narrator)
                fallbacks.check()
                if interrupt.number is not None and state.epoch < recipe.optim.epochs:
                    return None
    except CheckFailed as error:
        return error.message
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):  # torch's words for batch norm
            raise
        raise RecipeError(
            f"`{recipe.model.name}` cannot learn from a batch of one image: its batch norm needs two",
            hint="use --batch-size 2 or more",
        ) from error
    return None


def load(source: Source, recipe: Recipe, device: Device, narrator: Narrator) -> tuple[Batches, Batches | None]:
    """Return the training and validation batches, showing the progress of decoding."""
    total = len(source.splits["train"]) + len(source.splits.get("val", ()))
    with narrator.progress("decoding", total):
        return make_batches(source, recipe, device, narrator.advance, narrator.line)


@dataclass(slots=True)
class _Epoch:
    """What one epoch has measured so far; times are `time.perf_counter` seconds."""

    run_start: float
    waiting: Waiting
    micro_batch: int | None
    """What was computed at once when the epoch began."""
    start: float = field(default_factory=time.perf_counter)
    unread: list[torch.Tensor] = field(default_factory=list)
    """Losses still on the device: reading one waits for it."""
    unread_images: int = 0
    unread_since: float = field(default_factory=time.perf_counter)
    loss_sum: float = 0.0
    num_steps: int = 0
    num_images: int = 0

    def add(self, loss: torch.Tensor, num_images: int) -> None:
        self.unread.append(loss)
        self.unread_images += num_images


def _log_steps(
    epoch: _Epoch, state: TrainState, recipe: Recipe, steps_per_epoch: int, run: Run, narrator: Narrator
) -> None:
    """Read the losses of the last steps, once for all of them, and log their mean.

    Raises:
        CheckFailed: one of them is not a finite number.
    """
    if not epoch.unread:
        return
    losses = torch.stack(epoch.unread).tolist()
    now = time.perf_counter()
    epoch.waiting.read()
    finite = [loss for loss in losses if math.isfinite(loss)]
    for position, loss in enumerate(losses):
        if not math.isfinite(loss) and recipe.optim.nonfinite == "raise":
            step = state.step - len(losses) + position
            raise CheckFailed(f"the loss became {loss} at step {step + 1}, in epoch {step // steps_per_epoch + 1}")
    rate = epoch.unread_images / max(now - epoch.unread_since, 1e-9)
    row = {
        "event": "step",
        "step": state.step,
        "epoch": round(state.step / steps_per_epoch, 4),
        "loss": sum(finite) / len(finite) if finite else math.nan,
        "lr": state.lr,
        "images_per_second": round(rate, 1),
        "seconds": round(now - epoch.run_start, 3),
    }
    if state.skips.total:
        row["skipped"] = state.skips.total
    if state.micro_batch is not None:
        row["micro_batch"] = state.micro_batch
        _say_memory(epoch, state, narrator)
    run.log(row)
    narrator.advance(len(losses), f"loss {row['loss']:.3f}, {rate:,.0f} images/s")
    epoch.loss_sum += sum(finite)
    epoch.num_steps += len(finite)
    epoch.num_images += epoch.unread_images
    epoch.unread, epoch.unread_images, epoch.unread_since = [], 0, now


def _say_memory(epoch: _Epoch, state: TrainState, narrator: Narrator) -> None:
    if state.micro_batch != epoch.micro_batch:
        narrator.warn(
            f"memory is short: {state.micro_batch} images are computed at once; their gradients add up to those of the "
            "batch, whose size and schedule stay"
        )
        epoch.micro_batch = state.micro_batch


def _finish_epoch(
    epoch: _Epoch,
    state: TrainState,
    val_batches: Batches | None,
    recipe: Recipe,
    device: Device,
    run: Run,
    narrator: Narrator,
) -> None:
    """Evaluate, keep the weights if they are the best so far, and say so."""
    seconds = max(time.perf_counter() - epoch.start, 1e-9)
    row: dict[str, Any] = {"event": "epoch", "epoch": state.epoch, "step": state.step}
    row["data_wait"] = round(min(epoch.waiting.read() / seconds, 1.0), 4)
    row["train_loss"] = epoch.loss_sum / max(epoch.num_steps, 1)
    if not state.is_finite(device.put(torch.from_numpy(canary_batch(input_spec(recipe))))):
        raise CheckFailed(f"the model's answers became infinite or undefined in epoch {state.epoch}")
    if val_batches is None:
        row["best"] = state.keep(None)
    else:
        scores = evaluate_model(state, val_batches.in_order(), recipe, device)
        if scores.num_examples == 0:
            raise SourceError(
                f"none of the {len(val_batches.bad_images):,} images of split `val` can be read: no epoch is better "
                "than another",
                hint="replace them, or take that split out of the source",
            )
        row |= {"val_loss": scores.loss, "val_accuracy": scores.accuracy}
        if not math.isfinite(scores.loss):
            raise CheckFailed(f"the validation loss became {scores.loss} after epoch {state.epoch}")
        row["best"] = state.keep(scores)
        if state.plateau is not None:
            state.plateau.update(scores.loss)
    row["seconds"] = round(time.perf_counter() - epoch.run_start, 3)
    run.log(row)
    narrator.epoch(row, recipe.optim.epochs, epoch.num_images / seconds)
