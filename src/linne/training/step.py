"""One training step, and one pass of evaluation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import torch
from torch.nn import functional as F

from linne.data.loading.loader import Batch, Batches
from linne.device import Device
from linne.recipe import Recipe
from linne.training.agreement import Agreement
from linne.training.distributed import ALONE, World
from linne.training.epoch_mean import measure_norms
from linne.training.finite import all_finite, marked
from linne.training.losses import disagreement
from linne.training.memory import fitting, parts_of
from linne.training.running_statistics import held
from linne.training.schedule import lr_factor
from linne.training.state import LR_FACTOR, Scores, TrainState


def train_step(state: TrainState, batch: Batch, recipe: Recipe, device: Device, steps_per_epoch: int) -> torch.Tensor:
    """Update `state` by one batch and return its loss, still on the device.

    Mutates the model, the optimiser and the average. Reads nothing back, so nothing waits, but where steps that are
    not finite are skipped; where they are gone back from, a gradient that is not finite makes the loss NaN. A batch
    that does not fit the memory is computed in parts, which `state` remembers. Where several processes share the batch,
    the mean of what they return is the batch's loss.

    Raises:
        LinneError: a single image does not fit.
        OutOfMemory: fewer at once may, but other processes share the batch.
        CheckFailed: too many steps in a row were not finite.
    """
    planned = state.planned_step(state.step, steps_per_epoch, recipe.optim.epochs)
    state.lr = recipe.optim.lr * lr_factor(planned, steps_per_epoch, recipe.optim)
    if state.plateau is not None:
        state.lr *= state.plateau.factor
    if state.rewinds:
        state.lr *= LR_FACTOR ** len(state.rewinds)
    loss, state.micro_batch = fitting(
        lambda largest: add_gradients(state, batch, recipe, device, largest),
        state.micro_batch,
        len(batch.labels_N),
        device,
        state.least_at_once,
        together=state.together,
    )
    # In fp16 the scaler looks at the gradients itself: it needs to see what overflowed.
    if recipe.optim.nonfinite == "rewind" and state.scaler is None:
        loss = marked(loss, state.parameters, joined=device.can.foreach.holds)
    if recipe.optim.nonfinite == "skip" and state.scaler is None and not all_finite(state.parameters):
        state.skips.add(state.step + 1)
    else:
        _update(state)
        state.skips.in_a_row = 0
    for parameter in state.parameters:
        parameter.grad = None
    state.step += 1
    return loss


def add_gradients(state: TrainState, batch: Batch, recipe: Recipe, device: Device, largest: int | None) -> torch.Tensor:
    """Add the gradients of the mean loss of `batch` to the parameters', at most `largest` images at once.

    Leaves no gradients behind when it raises.
    """
    mixed = contextlib.nullcontext() if state.mixout is None else state.mixout.mixed(state.step)
    try:
        with mixed:
            loss = _backward(state, batch, recipe, device, largest)
        if state.sharpness is not None:
            with state.sharpness.uphill():
                _backward(state, batch, recipe, device, largest)
    except BaseException:
        for parameter in state.parameters:
            parameter.grad = None
        raise
    return loss


def _backward(state: TrainState, batch: Batch, recipe: Recipe, device: Device, largest: int | None) -> torch.Tensor:
    total: torch.Tensor | None = None
    for part in parts_of(batch, largest):
        loss = _loss_of(state, part, recipe, *_forward(state, part, recipe, device))
        if part is not batch:
            loss = loss * (len(part.labels_N) / len(batch.labels_N))
        if batch.weight != 1:
            loss = loss * batch.weight
        scaled = loss if state.scaler is None else state.scaler.scale(loss)
        if state.recomputed_norms is None:
            scaled.backward()  # type: ignore[no-untyped-call]
        else:
            with held(state.recomputed_norms):
                scaled.backward()  # type: ignore[no-untyped-call]
        total = loss.detach() if total is None else total + loss.detach()
    assert total is not None
    return total


def _loss_of(
    state: TrainState, batch: Batch, recipe: Recipe, logits_NK: torch.Tensor, *others_NK: torch.Tensor
) -> torch.Tensor:
    """Return the mean loss of an image, `others_NK` being what auxiliary classifiers answered."""
    count, consistency, apart = len(batch.labels_N), recipe.augment.consistency, None
    if batch.views_NCHW and consistency is not None:
        logits_VNK = logits_NK.view(-1, count, logits_NK.shape[1])
        logits_NK, apart = logits_VNK[0], consistency * disagreement(logits_VNK)
    loss = state.loss(logits_NK, batch.labels_N, batch.mixture)
    if state.teacher is not None:
        loss = state.teacher.blend(loss, logits_NK, batch.images_NCHW)
    for other_NK in others_NK:
        loss = loss + (recipe.model.aux_weight or 0.0) * state.loss(other_NK[:count], batch.labels_N, batch.mixture)
    return loss if apart is None else loss + apart


def _forward(state: TrainState, batch: Batch, recipe: Recipe, device: Device) -> tuple[torch.Tensor, ...]:
    """Return logits in fp32, those of other views after those of the images; then those of auxiliary classifiers.

    bf16 keeps three digits, too few to sum a loss in.
    """
    images_NCHW = batch.images_NCHW
    if batch.views_NCHW:  # in one pass: batch norm has the statistics of all
        images_NCHW = torch.cat((images_NCHW, *batch.views_NCHW))
    with device.autocast(recipe.device.precision):
        answers = state.forward(images_NCHW)
    return tuple(logits_NK.float() for logits_NK in (answers if isinstance(answers, tuple) else (answers,)))


def _update(state: TrainState) -> None:
    """Change the weights by their gradients, and the average by the weights.

    In fp16 the scaler skips the update, inside the optimiser, when a gradient overflowed.
    """
    scaler, stepper = state.scaler, state.stepper
    if scaler is not None:
        scaler.unscale_(stepper.optimizer)
    if state.clip is not None:
        state.clip()
    if scaler is None:
        stepper.step(state.lr)
    else:
        stepper.set_lr(state.lr)
        scaler.step(stepper.optimizer)
        scaler.update()
    if state.ema is not None:
        state.ema.update()


def refresh_average(state: TrainState, batches: Batches, recipe: Recipe, device: Device, agreement: Agreement) -> None:
    """Bring averaged weights up to date at the end of an epoch, where the recipe asks for some.

    Their batch norms are measured anew, which passes over the training images once more, or until a signal comes.
    """
    average, epoch = state.late_average, state.epoch + 1
    if average is None:
        return
    average.end_epoch(epoch, state.planned_step(state.step, len(batches), recipe.optim.epochs) / len(batches))
    if average.ready:
        measure_norms(average.model, agreement.until(batches.epoch(epoch)), device, recipe.device.precision)


@torch.no_grad()  # inference mode has tensors without versions, which DirectML refuses (its issue 602)
def evaluate_model(
    state: TrainState, batches: Iterable[Batch], recipe: Recipe, device: Device, world: World = ALONE
) -> Scores:
    """Return the scores of the weights that would be kept, over all processes' `batches`; the device is read once."""
    model = state.evaluated.eval()
    correct = loss_sum = torch.zeros((), device=device.torch_device)
    count = 0
    for batch in batches:
        with device.autocast(recipe.device.precision):
            logits_NK = model(batch.images_NCHW)
        if batch.weight == 0:  # nothing of this process's own: it kept the others company
            continue
        correct = correct + (logits_NK.argmax(1) == batch.labels_N).sum()
        loss_sum = loss_sum + F.cross_entropy(logits_NK.float(), batch.labels_N, reduction="sum")
        count += len(batch.labels_N)
    state.train_mode()
    if world.size > 1:
        found = torch.stack([correct.double(), loss_sum.double(), torch.tensor(float(count)).to(correct).double()])
        correct, loss_sum, total = world.sum(found)
        count = int(total)
    return Scores(float(correct) / max(count, 1), float(loss_sum) / max(count, 1), count)
