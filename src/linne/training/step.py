"""One training step, and one pass of evaluation."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.nn import functional as F

from linne.data.loading.loader import Batch, Batches
from linne.device import Device
from linne.recipe import Recipe
from linne.training.epoch_mean import measure_norms
from linne.training.schedule import lr_factor
from linne.training.state import Scores, TrainState


def train_step(state: TrainState, batch: Batch, recipe: Recipe, device: Device, steps_per_epoch: int) -> torch.Tensor:
    """Update `state` by one batch and return its loss, still on the device.

    Mutates the model, the optimiser and the average; reads nothing back, so nothing waits.
    """
    state.lr = recipe.optim.lr * lr_factor(state.step, steps_per_epoch, recipe.optim)
    if state.plateau is not None:
        state.lr *= state.plateau.factor
    loss = _loss(state, batch, recipe, device)
    if state.scaler is None:
        loss.backward()  # type: ignore[no-untyped-call]
        if state.sharpness is not None:
            with state.sharpness.uphill():
                _loss(state, batch, recipe, device).backward()  # type: ignore[no-untyped-call]
        if state.clip is not None:
            state.clip()
        state.stepper.step(state.lr)
    else:
        _scaled_update(state, state.scaler, loss)
    for parameter in state.parameters:
        parameter.grad = None
    if state.ema is not None:
        state.ema.update()
    state.step += 1
    return loss.detach()


def _loss(state: TrainState, batch: Batch, recipe: Recipe, device: Device) -> torch.Tensor:
    return state.loss(_forward(state, batch, recipe, device), batch.labels_N, batch.mixture)


def _forward(state: TrainState, batch: Batch, recipe: Recipe, device: Device) -> torch.Tensor:
    """Return logits in fp32: bf16 keeps three digits, too few to sum a loss in."""
    if recipe.device.precision == "fp32":
        logits_NK: torch.Tensor = state.forward(batch.images_NCHW)
        return logits_NK
    with device.autocast(recipe.device.precision):
        logits_NK = state.forward(batch.images_NCHW)
    return logits_NK.float()


def _scaled_update(state: TrainState, scaler: torch.amp.GradScaler, loss: torch.Tensor) -> None:
    """Update in fp16: the scaler skips the step, inside the optimiser, when a gradient overflowed."""
    optimizer = state.stepper.optimizer
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    scaler.unscale_(optimizer)
    if state.clip is not None:
        state.clip()
    state.stepper.set_lr(state.lr)
    scaler.step(optimizer)
    scaler.update()


def refresh_average(state: TrainState, batches: Batches, recipe: Recipe, device: Device) -> None:
    """Bring averaged weights up to date at the end of an epoch, where the recipe asks for some.

    Their batch norms are measured anew, which passes over the training images once more.
    """
    average = state.late_average
    if average is None:
        return
    average.end_epoch(state.epoch)
    if average.ready:
        measure_norms(average.model, batches.epoch(state.epoch), device, recipe.device.precision)


@torch.inference_mode()
def evaluate_model(state: TrainState, batches: Iterable[Batch], recipe: Recipe, device: Device) -> Scores:
    """Return the scores of the weights that would be kept, over all of `batches`; the device is read once."""
    model = state.evaluated.eval()
    correct = loss_sum = torch.zeros((), device=device.torch_device)
    count = 0
    for batch in batches:
        with device.autocast(recipe.device.precision):
            logits_NK = model(batch.images_NCHW)
        correct = correct + (logits_NK.argmax(1) == batch.labels_N).sum()
        loss_sum = loss_sum + F.cross_entropy(logits_NK.float(), batch.labels_N, reduction="sum")
        count += len(batch.labels_N)
    state.forward.train()
    return Scores(float(correct) / max(count, 1), float(loss_sum) / max(count, 1), count)
