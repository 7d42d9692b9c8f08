"""Schedule-free learning against the formulas of its paper."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from linne.device import Device
from linne.recipe import OptimConfig
from linne.training.optimizer import Stepper, make_optimizer
from linne.training.schedule_free import ScheduleFreeMean

pytest.importorskip("schedulefree", reason="needs `linne[schedule-free]`")


def test_the_evaluated_weights_are_the_average_and_gradients_are_taken_between():
    beta, lr = 0.9, 0.1
    torch.manual_seed(0)
    model = nn.Linear(3, 1, bias=False)
    config = OptimConfig(optimizer="sgd", schedule="schedule-free", momentum=beta)
    stepper = Stepper(make_optimizer(model, config, Device.pick("cpu")))
    mean = ScheduleFreeMean(model, stepper.optimizer)
    x = z = model.weight.detach().clone()
    for step in range(1, 30):
        inputs = torch.randn(8, 3)
        y = (1 - beta) * z + beta * x
        torch.testing.assert_close(model.weight.detach(), y, rtol=1e-4, atol=1e-5)
        model.weight.grad = None
        model(inputs).square().mean().backward()
        z = z - lr * model.weight.grad
        x = (1 - 1 / step) * x + z / step
        stepper.step(lr)
        before = model.weight.detach().clone()
        mean.end_epoch(step)
        assert torch.equal(model.weight, before), "looking at the average does not move the training"
        torch.testing.assert_close(mean.model.weight, x, rtol=1e-4, atol=1e-5)


def test_adamw_becomes_its_schedule_free_form():
    import schedulefree

    config = OptimConfig(optimizer="adamw", schedule="schedule-free", momentum=0.95, beta2=0.99, weight_decay=0.1)
    optimizer = make_optimizer(nn.Linear(3, 2), config, Device.pick("cpu"))
    assert isinstance(optimizer, schedulefree.AdamWScheduleFree)
    assert [(g["weight_decay"], g["betas"]) for g in optimizer.param_groups] == [(0.1, (0.95, 0.99)), (0, (0.95, 0.99))]
