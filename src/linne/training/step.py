"""One training step, and one pass of evaluation."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.nn import functional as F

from linne.data.loading.augment_mix import Mixture
from linne.data.loading.loader import Batch
from linne.device import Device
from linne.recipe import Recipe
from linne.training.schedule import lr_factor
from linne.training.state import Scores, TrainState


def train_step(state: TrainState, batch: Batch, recipe: Recipe, device: Device, steps_per_epoch: int) -> torch.Tensor:
    """Update `state` by one batch and return its loss, still on the device.

    Mutates the model, the optimiser and the average; reads nothing back, so nothing waits.
    """
    state.lr = recipe.optim.lr * lr_factor(state.step, steps_per_epoch, recipe.optim)
    logits_NK = _forward(state, batch, recipe, device)
    loss = batch_loss(logits_NK, batch.labels_N, batch.mixture, recipe.optim.label_smoothing)
    if state.scaler is None:
        loss.backward()  # type: ignore[no-untyped-call]
        _clip(state, recipe)
        state.stepper.step(state.lr)
    else:
        _scaled_update(state, loss, recipe)
    for parameter in state.parameters:
        parameter.grad = None
    if state.ema is not None:
        state.ema.update()
    state.step += 1
    return loss.detach()


def batch_loss(
    logits_NK: torch.Tensor, labels_N: torch.Tensor, mixture: Mixture | None, label_smoothing: float
) -> torch.Tensor:
    """Return the mean cross entropy; of a mixed image, that of both labels by their shares.

    Cross entropy is linear in its target, so this is the loss against soft labels without K numbers an image.
    """
    if mixture is None:
        return F.cross_entropy(logits_NK, labels_N, label_smoothing=label_smoothing)
    own_N, other_N = (
        F.cross_entropy(logits_NK, labels, label_smoothing=label_smoothing, reduction="none")
        for labels in (labels_N, mixture.labels_N)
    )
    return (mixture.shares_N * own_N + (1 - mixture.shares_N) * other_N).mean()


def _forward(state: TrainState, batch: Batch, recipe: Recipe, device: Device) -> torch.Tensor:
    """Return logits in fp32: bf16 keeps three digits, too few to sum a loss in."""
    if recipe.device.precision == "fp32":
        logits_NK: torch.Tensor = state.forward(batch.images_NCHW)
        return logits_NK
    with device.autocast(recipe.device.precision):
        logits_NK = state.forward(batch.images_NCHW)
    return logits_NK.float()


def _clip(state: TrainState, recipe: Recipe) -> None:
    if recipe.optim.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(state.parameters, recipe.optim.clip_norm)


def _scaled_update(state: TrainState, loss: torch.Tensor, recipe: Recipe) -> None:
    """Update in fp16: the scaler skips the step, inside the optimiser, when a gradient overflowed."""
    scaler, optimizer = state.scaler, state.stepper.optimizer
    assert scaler is not None
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    scaler.unscale_(optimizer)
    _clip(state, recipe)
    for group in optimizer.param_groups:
        group["lr"] = state.lr
    scaler.step(optimizer)
    scaler.update()


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
