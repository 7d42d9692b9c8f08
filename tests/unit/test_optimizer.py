"""Stepping through the kernels does what the optimiser itself does, to the bit."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from linne.device import Device
from linne.device.capabilities import fact
from linne.recipe import OptimConfig
from linne.training.optimizer import Stepper, make_optimizer

CPU = Device.pick("cpu")


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("optimizer", "momentum"), [("adamw", 0.9), ("sgd", 0.9), ("sgd", 0.0)])
def test_twenty_steps_equal_the_optimisers_own(optimizer, momentum, weight_decay, fused):
    config = OptimConfig(optimizer=optimizer, momentum=momentum, weight_decay=weight_decay)
    device = replace(CPU, can=replace(CPU.can, fused=fact(fused, "this test")))
    ours, theirs = make_model(), make_model()
    stepper = Stepper(make_optimizer(ours, config, device))
    reference = make_optimizer(theirs, config, device)
    for step in range(20):
        images, lr = torch.randn(8, 6), 0.01 * (1 + step % 3)
        for model in (ours, theirs):
            model.zero_grad()
            model(images).square().mean().backward()
        stepper.step(lr)
        for group in reference.param_groups:
            group["lr"] = lr
        reference.step()
    for mine, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, expected)
    saved, expected_state = stepper.optimizer.state_dict()["state"], reference.state_dict()["state"]
    for key, values in expected_state.items():
        for name, value in values.items():
            assert value is None or torch.equal(saved[key][name], value), "a checkpoint holds the same state"


def test_a_parameter_without_a_gradient_is_left_alone_as_the_optimiser_does():
    config = OptimConfig(optimizer="adamw", weight_decay=0.1)
    model = make_model()
    stepper = Stepper(make_optimizer(model, config, CPU))
    for step in range(4):
        model.zero_grad()
        model(torch.randn(8, 6)).sum().backward()
        if step == 2:
            model[0].weight.grad = None
            before = model[0].weight.detach().clone()
        stepper.step(0.1)
        if step == 2:
            assert torch.equal(model[0].weight, before)
    assert not torch.equal(model[0].weight, before)


def test_biases_and_norms_do_not_decay():
    model = make_model()
    groups = make_optimizer(model, OptimConfig(weight_decay=0.1), CPU).param_groups
    decaying = {id(p) for p in groups[0]["params"]}
    assert groups[0]["weight_decay"] == 0.1
    assert groups[1]["weight_decay"] == 0
    assert decaying == {id(model[0].weight), id(model[3].weight)}


def test_no_parameter_is_updated_twice_or_forgotten():
    for decay in (0.0, 0.1):
        model = copy.deepcopy(make_model())
        groups = make_optimizer(model, OptimConfig(weight_decay=decay), CPU).param_groups
        found = [id(p) for group in groups for p in group["params"]]
        assert sorted(found) == sorted(id(p) for p in model.parameters())
