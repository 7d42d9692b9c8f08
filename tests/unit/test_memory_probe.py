"""What fits the memory is found before the first step, by all processes alike, and leaves no trace."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from processes import run_together
from torch import nn

from linne.data import open_source
from linne.data.loading.loader import make_batches
from linne.device import Device
from linne.device.capabilities import no
from linne.errors import LinneError
from linne.log import Narrator, Run
from linne.planning import collect, make_plan
from linne.recipe import AugmentConfig, DataConfig, DeviceConfig, ModelConfig, OptimConfig, Recipe
from linne.training import distributed, loop, memory_probe
from linne.training.distributed import ALONE, World, joined
from linne.training.memory_probe import probe_memory, room_for_optimizer
from linne.training.resume import random_state
from linne.training.state import TrainState
from linne.training.step import train_step

CPU = Device.pick("cpu")
OTHER = replace(CPU, kind="other", can=replace(CPU.can, timed_events=no("a test"), memory_statistics=no("a test")))
"""The CPU under another name: an accelerator to all who ask."""
SHORT = "OTHER out of memory. Tried to allocate 2.00 GiB."
DATA = DataConfig(source="synthetic:classes=3,size=12,count=60", height=12, width=12, batch_size=16)
COUNTS_K = np.array([20, 20, 20])


class Small(nn.Module):
    """A network on a device that holds `most` images at once."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.asked = most, []
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.LazyLinear(3))
        self.body(torch.rand(2, 3, 12, 12))

    def forward(self, images):
        self.asked.append(len(images))
        if len(images) > self.most:
            raise RuntimeError(SHORT)
        return self.body(images)


def recipe_of(optim: dict | None = None, **device) -> Recipe:
    return Recipe(data=DATA, optim=OptimConfig(**(optim or {})), device=DeviceConfig(**device))


def probe(model: nn.Module, recipe: Recipe, device: Device = OTHER, world: World = ALONE) -> int | None:
    batches, _ = make_batches(open_source(DATA.source), recipe, CPU)
    return probe_memory(model, batches, recipe, device, COUNTS_K, Narrator(), world)


@pytest.mark.parametrize(
    ("most", "asked_for", "found", "tried"),
    [
        (99, None, None, [15]),
        (8, None, 8, [15, 7, 8]),
        (3, None, 2, [15, 7, 3, 4, 1, *[2] * 7]),
        (99, 5, 5, [5] * 3),
        (3, 5, 3, [5, *[3] * 5]),
    ],
)
def test_what_is_computed_at_once_is_halved_until_it_fits(most, asked_for, found, tried, capsys):
    model = Small(most)
    model.asked.clear()
    assert probe(model, recipe_of(micro_batch=asked_for)) == found
    assert model.asked == tried
    said = f"warning: memory is short: {found} images are computed at once; their gradients add up to"
    assert (said in capsys.readouterr().err) is (found != asked_for)


@pytest.mark.parametrize("most", [99, 4, 0])
@pytest.mark.parametrize(
    "optim", [{}, {"ema_decay": 0.9, "sam_rho": 0.05, "optimizer": "sgd"}, {"average_epochs": 2}], ids=str
)
def test_it_leaves_no_trace(most, optim):
    model = Small(most).eval()
    model.body[0].bias.requires_grad_(False)
    values = {name: value.clone() for name, value in model.state_dict().items()}
    before = random_state(OTHER)
    if most == 0:
        with pytest.raises(LinneError, match="`other:0` is out of memory with 2 images at once: OTHER out of memory"):
            probe(model, recipe_of(optim))
    else:
        probe(model, recipe_of(optim))
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())
    after = random_state(OTHER)
    assert torch.equal(after["torch"], before["torch"])
    for name in ("python", "numpy"):
        assert torch.equal(after[name][1], before[name][1])
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.body[0].parameters()] == [True, False]
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("mixes", [{}, {"mixup_alpha": 0.2}, {"policy": "augmix", "consistency": 12.0}], ids=str)
def test_frozen_layers_losses_that_ask_for_counts_and_mixing_are_tried_too(mixes):
    model = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(432, 8), nn.Linear(8, 3)))
    frozen = ModelConfig(freeze="backbone")
    recipe = replace(recipe_of({"class_balance": 0.9}), model=frozen, augment=AugmentConfig(**mixes))
    assert probe(model, recipe) is None
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    ("optim", "exactly"),
    [
        ({"optimizer": "sgd"}, True),
        ({"optimizer": "sgd", "momentum": 0.0}, True),
        ({"optimizer": "adamw"}, True),
        ({"optimizer": "lamb"}, True),
        ({"optimizer": "lion"}, True),
        ({"optimizer": "muon"}, False),
    ],
    ids=str,
)
def test_room_is_left_for_what_the_optimiser_keeps(optim, exactly):
    recipe = recipe_of(optim)
    plain = replace(CPU, can=replace(CPU.can, fused=no("a test")))  # fused, SGD's momentum is there from the start
    layers = [nn.Flatten(), nn.Linear(432, 8), nn.Linear(8, 8), nn.Linear(8, 3)]
    state = TrainState.create(nn.Sequential(*layers), recipe, plain)
    room = sum(tensor.numel() for tensor in room_for_optimizer(state, recipe.optim))
    batch, _ = make_batches(open_source(DATA.source), recipe, CPU)
    train_step(state, next(iter(batch.epoch(0))), recipe, plain, 10)
    kept = [value for values in state.stepper.optimizer.state.values() for value in values.values()]
    held = sum(value.numel() for value in kept if isinstance(value, torch.Tensor) and value.numel() > 1)
    assert room == held if exactly else room > held > 0
    assert room_for_optimizer(state, recipe.optim) == [] or not held


def test_nothing_is_tried_on_the_cpu_nor_before_weights_are_parted():
    model = Small(0)
    model.asked.clear()
    assert probe(model, recipe_of(), CPU) is None
    assert probe(model, recipe_of(micro_batch=7, parallel="fsdp"), world=World(0, 0, 2, 2)) == 7
    assert model.asked == []


def probe_together(most: list[int]) -> tuple:
    with joined() as world:
        try:
            return probe(Small(most[int(os.environ["RANK"])]), recipe_of(), world=world), None
        except LinneError as error:
            return None, error.message


@pytest.mark.long
def test_all_processes_take_the_smallest_and_end_together_where_one_has_no_room_at_all():
    assert run_together(probe_together, 2, [99, 2]) == [(2, None)] * 2  # of 8 images each
    said = f"`other:0` is out of memory with 2 images at once: {SHORT}"
    assert run_together(probe_together, 2, [99, 0]) == [(None, said)] * 2


def train_on_another_device(folder, monkeypatch) -> tuple[dict, list[dict]]:
    monkeypatch.setattr(distributed, "pick_device", lambda name, world: OTHER)
    overrides = {"model.dropout": 0.2, "optim.epochs": 2, "data.batch_size": 16, "log_every": 1}
    overrides["device.precision"] = "fp32"
    plan = make_plan(*collect(DATA.source, None, {"device.name": "cpu"}, overrides))
    folder.mkdir()
    run = Run(folder)
    trained = loop.train(plan.recipe, plan.source, run, Narrator(), device_check=False)
    run.close()
    return trained.kept.weights, [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_training_comes_to_the_same_bits_with_and_without(tmp_path, monkeypatch):
    tried = []
    real = memory_probe.add_gradients
    monkeypatch.setattr(memory_probe, "add_gradients", lambda *given: tried.append(given[-1]) or real(*given))
    with_it, rows = train_on_another_device(tmp_path / "with", monkeypatch)
    assert tried == [None]
    assert "micro_batch" not in rows[0]
    monkeypatch.setattr(loop, "probe_memory", lambda *given, trust_code: None)
    without, _ = train_on_another_device(tmp_path / "without", monkeypatch)
    assert all(torch.equal(weight, without[name]) for name, weight in with_it.items())


def test_what_was_found_is_said_once_and_is_in_the_measurements(tmp_path, monkeypatch, capsys):
    real = memory_probe.add_gradients

    def short(*given):
        if given[-1] is None or given[-1] > 4:
            raise RuntimeError(SHORT)
        return real(*given)

    monkeypatch.setattr(memory_probe, "add_gradients", short)
    _, rows = train_on_another_device(tmp_path / "run", monkeypatch)
    assert {row["micro_batch"] for row in rows if row["event"] == "step"} == {4}
    assert capsys.readouterr().err.count("memory is short: 4 images") == 1
