"""Steps that are not finite end the run, or are left out, as the recipe says; the weights never meet them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from linne.data.loading.loader import Batch
from linne.device import Device
from linne.errors import CheckFailed
from linne.recipe import DataConfig, OptimConfig, Recipe
from linne.training.finite import MOST_IN_A_ROW, all_finite
from linne.training.state import TrainState
from linne.training.step import train_step

CPU = Device.pick("cpu")
SKIP = Recipe(data=DataConfig(source="digits"), optim=OptimConfig(optimizer="sgd", nonfinite="skip", ema_decay=0.5))
GOOD = Batch(torch.ones(4, 1, 2, 2), torch.arange(4) % 2)


def bad(value):
    return Batch(torch.full((4, 1, 2, 2), value), torch.arange(4) % 2)


def make_state():
    torch.manual_seed(0)
    return TrainState.create(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), SKIP, CPU)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_changes_neither_weights_nor_average_and_is_counted(value):
    state = make_state()
    train_step(state, GOOD, SKIP, CPU, 10)
    before = [p.clone() for p in (*state.parameters, *state.ema.model.parameters())]
    train_step(state, bad(value), SKIP, CPU, 10)
    after = (*state.parameters, *state.ema.model.parameters())
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(before, after, strict=True))
    assert (state.skips.total, state.skips.in_a_row, state.step) == (1, 1, 2)
    train_step(state, GOOD, SKIP, CPU, 10)
    assert (state.skips.total, state.skips.in_a_row) == (1, 0)
    assert not torch.equal(before[0], state.parameters[0])


def test_too_many_in_a_row_are_a_run_that_has_diverged():
    state = make_state()
    for _ in range(MOST_IN_A_ROW):
        train_step(state, bad(float("nan")), SKIP, CPU, 10)
    with pytest.raises(CheckFailed, match="21 steps in a row were not finite, the last of them step 21"):
        train_step(state, bad(float("nan")), SKIP, CPU, 10)


def test_gradients_are_looked_at_and_not_only_the_loss():
    weight = nn.Parameter(torch.ones(2))
    assert all_finite([weight])
    weight.grad = torch.tensor([1.0, 2.0])
    assert all_finite([weight])
    weight.grad = torch.tensor([1.0, float("inf")])
    assert not all_finite([weight])
