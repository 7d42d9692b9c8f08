"""How many images of a batch are computed at once, found before the first step: forward, backward and nothing learnt.

In mid-run several processes cannot each halve what they compute at once: they exchange something in the middle of it.
Before the first step they have nothing to exchange yet, so each tries on its own and all take the smallest.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from linne.data.loading.augment import NUM_VIEWS
from linne.data.loading.augment_mix import Mixture
from linne.data.loading.loader import Batch, Batches, input_spec
from linne.device import Device
from linne.errors import LinneError
from linne.log import Narrator
from linne.recipe import OptimConfig, Recipe
from linne.training.distributed import World
from linne.training.measurements import say_memory
from linne.training.memory import fitting
from linne.training.resume import random_state, set_random_state
from linne.training.state import TrainState
from linne.training.step import add_gradients

OPTIMIZER_COPIES = {"sgd": 1, "adamw": 2, "muon": 2, "lamb": 2, "lion": 1}
"""How many numbers an optimiser keeps for a weight, at most: momentum, and the second moment."""


def probe_memory(
    model: nn.Module,
    batches: Batches,
    recipe: Recipe,
    device: Device,
    counts_K: NDArray[np.int64],
    narrator: Narrator,
    world: World,
    *,
    trust_code: bool = False,
) -> int | None:
    """Return how many images to compute at once, the same in all processes; None for whole batches.

    Nothing is tried on the CPU, where the system lends more than it has and ends the process instead of refusing; nor
    before FSDP has parted the weights, which may be there because one device cannot hold them. `model` is on `device`,
    not yet spread over processes, and is left as it was, to the bit. With `trust_code` the teacher may be Python.

    Raises:
        LinneError: a single image does not fit, on one of them.
    """
    wanted = recipe.device.micro_batch
    if not device.is_accelerator or (world.size > 1 and recipe.device.parallel == "fsdp"):
        return wanted
    found, problem = wanted, None
    largest = math.ceil(math.ceil(batches.num_examples / len(batches)) / world.size)
    try:
        with _as_it_was(model, device):
            found = _try(model, largest, recipe, device, counts_K, trust_code)
    except LinneError as error:
        problem = [error.message, error.hint]
    told = world.from_all([found, problem])
    for _, theirs in told:
        if theirs is not None:
            raise LinneError(theirs[0], hint=theirs[1])
    smallest = min((size for size, _ in told if size is not None), default=None)
    if smallest is not None and smallest != wanted:
        say_memory(smallest, narrator)
    return smallest


def _try(
    model: nn.Module, count: int, recipe: Recipe, device: Device, counts_K: NDArray[np.int64], trust_code: bool
) -> int | None:
    """Return how many of `count` images can be computed at once, beside all that training keeps."""
    eager = replace(recipe, device=replace(recipe.device, compile=False))  # compiled, a network takes less
    state = TrainState.create(model, eager, device, counts_K, forward=model, trust_code=trust_code)
    state.train_mode()
    batch = _batch_of(count, recipe, device)

    def compute(largest: int | None) -> torch.Tensor:
        room = room_for_optimizer(state, recipe.optim)
        loss = add_gradients(state, batch, eager, device, largest)
        device.synchronise()
        del room
        return loss

    return fitting(compute, state.micro_batch, count, device, state.least_at_once)[1]


def room_for_optimizer(state: TrainState, config: OptimConfig) -> list[torch.Tensor]:
    """Return tensors as large as those that the optimiser will make in its first step."""
    if state.stepper.optimizer.state:  # it has made them already
        return []
    copies = OPTIMIZER_COPIES[config.optimizer]
    if config.optimizer == "sgd" and config.momentum == 0:
        copies = 0
    return [torch.empty_like(parameter) for parameter in state.parameters for _ in range(copies)]


def _batch_of(count: int, recipe: Recipe, device: Device) -> Batch:
    """Return `count` black images on the device, mixed where the recipe mixes, in as many views as it compares."""
    spec, on = input_spec(recipe), device.torch_device
    images_NCHW = torch.zeros((count, spec.channels, spec.height, spec.width), device=on)
    if recipe.device.channels_last:
        images_NCHW = images_NCHW.to(memory_format=torch.channels_last)
    labels_N = torch.zeros(count, dtype=torch.int64, device=on)
    mixes = recipe.augment.mixup_alpha is not None or recipe.augment.cutmix_alpha is not None
    mixture = Mixture(labels_N, torch.ones(count, device=on)) if mixes else None
    views_NCHW = () if recipe.augment.consistency is None else (images_NCHW,) * NUM_VIEWS
    return Batch(images_NCHW, labels_N, mixture, views_NCHW=views_NCHW)


@contextlib.contextmanager
def _as_it_was(model: nn.Module, device: Device) -> Iterator[None]:
    """Leave buffers, modes and gradients of `model`, and every random state, as they were before."""
    random = random_state(device)
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    modes = [(module, module.training) for module in model.modules()]
    needs = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        for module, training in modes:
            module.training = training
        for parameter, needed in needs:
            parameter.grad = None
            parameter.requires_grad_(needed)
        set_random_state(random, device)
