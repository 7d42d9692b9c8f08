"""What an epoch has measured so far, so that it can be logged, written down and gone on with."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from linne.device import Device
from linne.errors import CheckFailed
from linne.log import Narrator, Run
from linne.recipe import Recipe
from linne.training.distributed import World
from linne.training.state import TrainState
from linne.training.waiting import Waiting


@dataclass(slots=True)
class Progress:
    """Of the epoch at hand; times are `time.perf_counter` seconds."""

    run_start: float
    """When training would have begun, had it never been interrupted."""
    waiting: Waiting
    micro_batch: int | None = None
    """What was computed at once when that was last said."""
    start: float = field(default_factory=time.perf_counter)
    unread: list[torch.Tensor] = field(default_factory=list)
    """Losses still on the device: reading one waits for it."""
    unread_images: int = 0
    unread_since: float = field(default_factory=time.perf_counter)
    loss_sum: float = 0.0
    num_steps: int = 0
    num_images: int = 0
    failed_step: int | None = None
    """The step, from 1, that was found not to be finite."""
    train_seconds: float = 0.0
    """From the start to the end of the last step; validation comes after."""

    @classmethod
    def begin(cls, state: TrainState, device: Device, run_start: float | None = None) -> Progress:
        """Return the progress of an epoch that begins now, of a run that began at `run_start`, or now too."""
        return cls(time.perf_counter() if run_start is None else run_start, Waiting(device), state.micro_batch)

    def add(self, loss: torch.Tensor, num_images: int) -> None:
        """Count a step."""
        self.unread.append(loss)
        self.unread_images += num_images

    def end_steps(self) -> None:
        """Note that all steps are done."""
        self.train_seconds = max(time.perf_counter() - self.start, 1e-9)

    def to_plain(self) -> dict[str, Any]:
        """Return numbers and tensors that `from_plain` reads; waits for the device."""
        now = time.perf_counter()
        return {
            "micro_batch": self.micro_batch,
            "run_seconds": now - self.run_start,
            "seconds": now - self.start,
            "waited_seconds": self.waiting.read(),
            "unread": torch.stack(self.unread).cpu() if self.unread else None,
            "unread_images": self.unread_images,
            "unread_seconds": now - self.unread_since,
            "loss_sum": self.loss_sum,
            "num_steps": self.num_steps,
            "num_images": self.num_images,
        }

    @classmethod
    def from_plain(cls, values: Mapping[str, Any], device: Device) -> Progress:
        """Return what `to_plain` wrote, its clocks set as if no time had passed since."""
        now = time.perf_counter()
        unread = values["unread"]
        return cls(
            run_start=now - values["run_seconds"],
            waiting=Waiting(device, values["waited_seconds"]),
            micro_batch=values["micro_batch"],
            start=now - values["seconds"],
            unread=[] if unread is None else list(device.put(unread).unbind()),
            unread_images=values["unread_images"],
            unread_since=now - values["unread_seconds"],
            loss_sum=values["loss_sum"],
            num_steps=values["num_steps"],
            num_images=values["num_images"],
        )


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
        _say_memory(progress, state, narrator)
    run.log(row)
    narrator.advance(len(losses), f"loss {row['loss']:.3f}, {rate:,.0f} images/s")
    progress.loss_sum += sum(finite)
    progress.num_steps += len(finite)
    progress.num_images += num_images
    progress.unread, progress.unread_images, progress.unread_since = [], 0, now


def _say_memory(progress: Progress, state: TrainState, narrator: Narrator) -> None:
    if state.micro_batch != progress.micro_batch:
        narrator.warn(
            f"memory is short: {state.micro_batch} images are computed at once; their gradients add up to those of the "
            "batch, whose size and schedule stay"
        )
        progress.micro_batch = state.micro_batch
