"""Stepping through the kernels does what the optimiser itself does, to the bit."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from linne.device import Device
from linne.device.capabilities import fact
from linne.recipe import OptimConfig
from linne.training.checkpoint_format import from_plain, to_plain
from linne.training.optimizer import Stepper, make_optimizer

CPU = Device.pick("cpu")


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("layer_decay", [None, 0.5])
@pytest.mark.parametrize(("optimizer", "momentum"), [("adamw", 0.9), ("sgd", 0.9), ("sgd", 0.0)])
def test_twenty_steps_equal_the_optimisers_own(optimizer, momentum, layer_decay, weight_decay, fused):
    config = OptimConfig(optimizer=optimizer, momentum=momentum, weight_decay=weight_decay, layer_decay=layer_decay)
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
            group["lr"] = lr * group.get("lr_scale", 1.0)
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


OTHERS = {"muon": {"momentum": 0.95, "beta2": 0.95}, "lamb": {}, "lion": {"beta2": 0.99}}


def deeper_model() -> nn.Module:
    torch.manual_seed(0)
    # A bias before a batch norm has no gradient but rounding, whose sign Adam and Lion would follow.
    hidden = nn.Linear(8, 10, bias=False)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), hidden, nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 3))


def gradients_for(*models: nn.Module) -> None:
    inputs = torch.randn(8, 6)
    for model in models:
        model.zero_grad()
        model(inputs).square().mean().backward()


def test_lion_follows_its_formula():
    config = OptimConfig(optimizer="lion", momentum=0.9, beta2=0.99, weight_decay=0.1)
    model = deeper_model()
    stepper = Stepper(make_optimizer(model, config, CPU))
    weights = [p.detach().clone() for p in model.parameters()]
    averages = [torch.zeros_like(w) for w in weights]
    for _ in range(10):
        gradients_for(model)
        for i, parameter in enumerate(model.parameters()):
            update = (0.9 * averages[i] + 0.1 * parameter.grad).sign()
            decay = 0.1 if parameter.ndim > 1 else 0.0
            weights[i] = weights[i] - 0.01 * (update + decay * weights[i])
            averages[i] = 0.99 * averages[i] + 0.01 * parameter.grad
        stepper.step(0.01)
    for mine, expected in zip(model.parameters(), weights, strict=True):
        torch.testing.assert_close(mine.detach(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_lamb_follows_its_formula_and_adapts_matrices_alone(weight_decay):
    config = OptimConfig(optimizer="lamb", weight_decay=weight_decay)
    model = deeper_model()
    stepper = Stepper(make_optimizer(model, config, CPU))
    weights = [p.detach().clone() for p in model.parameters()]
    firsts, seconds = ([torch.zeros_like(w) for w in weights] for _ in range(2))
    for step in range(1, 11):
        gradients_for(model)
        for i, parameter in enumerate(model.parameters()):
            firsts[i] = 0.9 * firsts[i] + 0.1 * parameter.grad
            seconds[i] = 0.999 * seconds[i] + 0.001 * parameter.grad**2
            ratio = (firsts[i] / (1 - 0.9**step)) / ((seconds[i] / (1 - 0.999**step)).sqrt() + 1e-6)
            if parameter.ndim > 1:
                ratio = ratio + weight_decay * weights[i]
                ratio = ratio * weights[i].norm() / ratio.norm()
            weights[i] = weights[i] - 0.01 * ratio
        stepper.step(0.01)
    for mine, expected in zip(model.parameters(), weights, strict=True):
        torch.testing.assert_close(mine.detach(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has Muon from 2.9 on")
def test_muon_is_torchs_on_hidden_matrices_and_adamw_on_the_rest():
    config = OptimConfig(optimizer="muon", weight_decay=0.1, **OTHERS["muon"])
    ours, theirs = deeper_model(), deeper_model()
    stepper = Stepper(make_optimizer(ours, config, CPU))
    hidden = theirs[2].weight
    muon = torch.optim.Muon(
        [hidden], lr=0.01, momentum=0.95, weight_decay=0.1, nesterov=True, adjust_lr_fn="match_rms_adamw"
    )
    rest = [p for p in theirs.parameters() if p is not hidden]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95))
    for _ in range(10):
        gradients_for(ours, theirs)
        stepper.step(0.01)
        muon.step()
        adamw.step()
    for mine, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        # Both multiply in bfloat16, which keeps three digits, in another order.
        torch.testing.assert_close(mine.detach(), expected.detach(), rtol=1e-2, atol=2e-4)


def test_muons_update_of_a_convolution_is_nearly_orthogonal_over_its_flattened_filters():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(16 * 16, 2))
    stepper = Stepper(make_optimizer(model, OptimConfig(optimizer="muon", momentum=0.95), CPU))
    before = model[1].weight.detach().clone()
    model(torch.randn(4, 1, 8, 8)).square().mean().backward()
    stepper.step(1.0)
    update = (before - model[1].weight.detach()).reshape(16, -1) / (0.2 * 72**0.5)
    values = torch.linalg.svdvals(update)
    assert values.min() > 0.5
    assert values.max() < 1.3, "five steps of the quintic bring singular values to between 0.7 and 1.2"


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", *OTHERS])
def test_the_rate_of_every_layer_follows_the_schedule(optimizer):
    config = OptimConfig(optimizer=optimizer, layer_decay=0.5, **OTHERS.get(optimizer, {}))
    model = deeper_model()
    stepper = Stepper(make_optimizer(model, config, CPU))
    for lr in (0.1, 0.0):
        before = [p.detach().clone() for p in model.parameters()]
        gradients_for(model)
        stepper.step(lr)
        moved = [not torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True)]
        assert all(moved) if lr else not any(moved)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", *OTHERS, "schedule-free"])
def test_an_optimiser_that_goes_on_from_its_state_takes_the_same_steps(optimizer):
    fields = {"optimizer": optimizer, **OTHERS.get(optimizer, {})}
    if optimizer == "schedule-free":
        pytest.importorskip("schedulefree", reason="needs `linne[schedule-free]`")
        fields = {"optimizer": "adamw", "schedule": "schedule-free"}
    config = OptimConfig(weight_decay=0.1, **fields)
    first = deeper_model()
    stepper = Stepper(make_optimizer(first, config, CPU))
    for _ in range(5):
        gradients_for(first)
        stepper.step(0.01)

    second = copy.deepcopy(first)
    resumed = Stepper(make_optimizer(second, config, CPU))
    tensors: dict[str, torch.Tensor] = {}
    plain = json.dumps(to_plain(stepper.state(), "optimizer", tensors))
    resumed.load(from_plain(json.loads(plain), {name: tensor.clone() for name, tensor in tensors.items()}))
    for _ in range(5):
        gradients_for(first, second)
        stepper.step(0.01)
        resumed.step(0.01)
    for mine, expected in zip(second.parameters(), first.parameters(), strict=True):
        assert torch.equal(mine, expected)
