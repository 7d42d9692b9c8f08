"""The moving average of the weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from linne.training.ema import MovingAverage


@pytest.mark.parametrize("joined", [True, False])
def test_the_average_follows_its_formula_weights_and_running_statistics_alike(joined):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = MovingAverage(model, 0.5, joined=joined)
    expected_weight, expected_mean = model[0].weight.detach().clone(), model[1].running_mean.clone()
    for update in range(1, 30):
        with torch.no_grad():
            model[0].weight.add_(torch.randn(4, 3))
            model[1].running_mean.add_(torch.randn(4))
        average.update()
        decay = min(0.5, (1 + update) / (10 + update))
        expected_weight = decay * expected_weight + (1 - decay) * model[0].weight.detach()
        expected_mean = decay * expected_mean + (1 - decay) * model[1].running_mean
    assert torch.allclose(average.model[0].weight, expected_weight, atol=1e-6)
    assert torch.allclose(average.model[1].running_mean, expected_mean, atol=1e-6)


def test_the_average_is_a_copy_that_takes_no_gradient():
    model = nn.Linear(2, 2)
    average = MovingAverage(model, 0.9)
    assert average.model.weight.data_ptr() != model.weight.data_ptr()
    assert not average.model.weight.requires_grad
    with pytest.raises(RuntimeError, match="does not require grad"):
        average.model(torch.ones(1, 2)).sum().backward()


def test_an_average_that_goes_on_from_its_state_is_the_same():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    first, second = MovingAverage(model, 0.999), MovingAverage(model, 0.999)
    for update in range(4):
        with torch.no_grad():
            model[0].weight.add_(torch.randn(4, 3))
        first.update()
        if update == 1:
            second.load(copy.deepcopy(first.state()))
        if update > 1:
            second.update()
    assert torch.equal(first.model[0].weight, second.model[0].weight)
