"""Train on a device and on the CPU with the same kernels, and print as JSON how they differ.

`python -m fakes.compare dml plain adamw`, in a child (see `fakes`): the device as `--device` names it, and some of
`RECIPES`.
"""

from __future__ import annotations

import copy
import itertools
import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from linne import models
from linne.data import open_source
from linne.data.loading.loader import make_batches
from linne.device import Device
from linne.device.fallbacks import Fallbacks
from linne.recipe import AugmentConfig, DataConfig, DeviceConfig, ModelConfig, OptimConfig, Recipe
from linne.training.agreement import Agreement
from linne.training.distributed import ALONE
from linne.training.interrupt import Interrupt
from linne.training.losses import class_counts
from linne.training.state import TrainState
from linne.training.step import evaluate_model, refresh_average, train_step
from linne.training.watchdog import Watchdog

NUM_STEPS = 4
MIX = AugmentConfig(flip=True, crop_padding=1, cutout=4, mixup_alpha=0.4, cutmix_alpha=1.0)
COLOURS = AugmentConfig(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1, policy="rand", resized_crop_area=0.6)
RECIPES: dict[str, tuple[OptimConfig, AugmentConfig, dict[str, Any]]] = {
    "plain": (OptimConfig(optimizer="sgd", lr=0.05), AugmentConfig(), {}),
    "everything": (
        OptimConfig(optimizer="sgd", lr=0.05, weight_decay=1e-3, label_smoothing=0.1, clip_norm=1.0, ema_decay=0.9),
        MIX,
        {},
    ),
    "colours": (OptimConfig(optimizer="sgd", lr=0.05), COLOURS, {"channels": 3, "loader": "streaming"}),
    "bce": (
        OptimConfig(optimizer="sgd", lr=0.05, loss="bce", class_balance=0.99, clip_value=0.1, sam_rho=0.05),
        MIX,
        {},
    ),
    "focal": (
        OptimConfig(optimizer="sgd", lr=0.05, loss="focal", logit_adjustment=0.5, epochs=1, average_epochs=1),
        AugmentConfig(),
        {},
    ),
    "adamw": (OptimConfig(optimizer="adamw"), AugmentConfig(), {}),
}


def make_recipe(optim: OptimConfig, augment: AugmentConfig, data: dict[str, Any], model: str = "small") -> Recipe:
    """Return a recipe for the digits."""
    channels = data.get("channels", 1)
    values = {"height": 8, "width": 8, "batch_size": 64, "num_workers": 1, "channels": channels, **data}
    spec = DataConfig(source="digits", mean=(0.3,) * channels, std=(0.37,) * channels, **values)
    device = DeviceConfig(precision="fp32")
    return Recipe(data=spec, model=ModelConfig(name=model), optim=optim, augment=augment, device=device)


def train_on(device: Device, recipe: Recipe) -> dict[str, Any]:
    """Return what a few steps and an evaluation came to."""
    source = open_source("digits")
    with device.repeatable(0):
        train, val = make_batches(source, recipe, device)
        model = models.build(models.describe_recipe(recipe, source.num_classes))
        state = TrainState.create(model, recipe, device, class_counts(source))
        reads, losses = num_reads(), []
        for batch in itertools.islice(train.epoch(0), NUM_STEPS):
            losses.append(train_step(state, batch, recipe, device, len(train)))
        reads = num_reads() - reads
        assert val is not None
        state.epoch = 1
        refresh_average(state, train, recipe, device, Agreement(ALONE, Interrupt(), Watchdog(Path(), None)))
        scores = evaluate_model(state, val.in_order(), recipe, device)
        state.keep(scores)
    assert state.kept is not None
    return {
        "losses": [float(loss) for loss in losses],
        "scores": scores,
        "weights": {name: copy.deepcopy(value) for name, value in state.kept.weights.items()},
        "reads": reads,
    }


def num_reads() -> int:
    """Return how often numbers have come back from the simulated device."""
    simulation = sys.modules.get("fakes.device")
    return 0 if simulation is None else simulation.TRACE.num_reads


def compare(device: Device, titles: list[str]) -> dict[str, Any]:
    """Return, for each recipe, how far the device is from the CPU, and what reached the device."""
    from fakes.device import TRACE

    # The CPU has fused and joined optimisers, which round otherwise.
    cpu = Device.pick("cpu")
    cpu = replace(cpu, can=replace(cpu.can, fused=device.can.fused, foreach=device.can.foreach))
    found = {}
    for title in titles:
        recipe = make_recipe(*RECIPES[title])
        TRACE.operators.clear()
        TRACE.dtypes.clear()
        fallbacks = Fallbacks(device)
        with fallbacks.watch():
            here = train_on(device, recipe)
        seen = TRACE.to_dict()
        there = train_on(cpu, recipe)
        differences = [(value - there["weights"][key]).abs().max().item() for key, value in here["weights"].items()]
        found[title] = {
            "weights_differ_by": max(differences),
            "losses": (here["losses"], there["losses"]),
            "scores_agree": here["scores"].accuracy == there["scores"].accuracy,
            "reads_in_steps": here["reads"],
            "dtypes": seen["dtypes"],
            "operators": seen["operators"],
            "fallbacks": dict(fallbacks.counts),
            "seeds": seen["seeds"],
        }
    return found


if __name__ == "__main__":
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    picked = Device.pick(sys.argv[1])
    json.dump({"device": picked.to_dict(), "recipes": compare(picked, sys.argv[2:])}, sys.stdout)
