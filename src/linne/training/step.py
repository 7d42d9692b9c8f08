"""One training step, and one pass of evaluation."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.nn import functional as F

from linne.data.loader import Batch
from linne.device import Device
from linne.recipe import Recipe
from linne.training.schedule import lr_factor
from linne.training.state import Scores, TrainState


def train_step(state: TrainState, batch: Batch, recipe: Recipe, device: Device, steps_per_epoch: int) -> torch.Tensor:
    """Update `state` by one batch and return its loss, still on the device.

    Mutates the model, the optimiser and the average; reads nothing back, so nothing waits.
    """
    lr = recipe.optim.lr * lr_factor(state.step, steps_per_epoch, recipe.optim)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    with device.autocast(recipe.device.precision):
        logits_NK = state.forward(batch.images_NCHW)
    # The loss is summed in fp32: bf16 keeps three digits.
    loss = F.cross_entropy(logits_NK.float(), batch.labels_N, label_smoothing=recipe.optim.label_smoothing)
    if state.scaler is not None:
        state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        state.scaler.unscale_(state.optimizer)
    else:
        loss.backward()  # type: ignore[no-untyped-call]
    if recipe.optim.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), recipe.optim.clip_norm)
    if state.scaler is not None:
        state.scaler.step(state.optimizer)
        state.scaler.update()
    else:
        state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    if state.ema is not None:
        state.ema.update()
    state.step += 1
    return loss.detach()


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
