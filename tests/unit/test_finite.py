"""Steps that are not finite end the run, or are left out, as the recipe says; the weights never meet them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from linne.data.loading.loader import Batch
from linne.device import Device
from linne.errors import CheckFailed
from linne.recipe import DataConfig, DeviceConfig, OptimConfig, Recipe
from linne.training.finite import MOST_IN_A_ROW, all_finite, is_good, marked
from linne.training.schedule import lr_factor
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


@pytest.mark.parametrize("joined", [True, False])
def test_a_loss_is_as_it_was_to_the_bit_where_gradients_are_finite_and_nan_where_they_are_not(joined):
    weights = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))]
    loss = torch.tensor(0.1)
    assert marked(loss, weights, joined=joined) is loss, "no gradient is bad"
    weights[0].grad = torch.tensor([1.0, -1e10])
    assert torch.equal(marked(loss, weights, joined=joined), loss)
    for value in (float("inf"), float("nan")):
        weights[0].grad = torch.tensor([1.0, value])
        assert marked(loss, weights, joined=joined).isnan()


def test_what_may_be_written_down_is_finite_in_losses_and_weights():
    good, bad = torch.tensor(1.0), torch.tensor(float("inf"))
    assert is_good([], [])
    assert is_good([good], [nn.Parameter(torch.ones(2))])
    assert not is_good([good, bad], [nn.Parameter(torch.ones(2))])
    assert not is_good([good], [nn.Parameter(torch.tensor([1.0, float("nan")]))])


REWIND = Recipe(data=DataConfig(source="digits"), optim=OptimConfig(optimizer="sgd", lr=0.1, nonfinite="rewind"))


def test_where_training_is_to_go_back_a_gradient_that_is_not_finite_is_seen_in_the_loss():
    class Steep(nn.Module):
        """A network whose answers are finite, and whose gradients are not."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))

        def forward(self, images):
            return self.weight.abs().sqrt() * images.flatten(1)[:, :2]

    state = TrainState.create(Steep(), REWIND, CPU)
    assert train_step(state, GOOD, REWIND, CPU, 10).isnan()
    raising = replace(REWIND, optim=replace(REWIND.optim, nonfinite="raise"))
    state = TrainState.create(Steep(), raising, CPU)
    assert train_step(state, GOOD, raising, CPU, 10).isfinite()


def test_in_fp16_what_the_scaler_makes_up_for_is_no_failure():
    recipe = replace(REWIND, device=DeviceConfig(precision="fp16"))
    torch.manual_seed(0)
    state = TrainState.create(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), recipe, CPU)
    state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    before = [p.clone() for p in state.parameters]
    assert train_step(state, GOOD, recipe, CPU, 10).isfinite()
    assert state.scaler.get_scale() == 2.0**59, "it has overflowed, and was halved"
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(before, state.parameters, strict=True))


def test_each_time_that_training_went_back_halves_the_learning_rate():
    state = TrainState.create(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), REWIND, CPU)
    state.rewinds = [{}, {}]
    train_step(state, GOOD, REWIND, CPU, 10)
    assert state.lr == 0.1 * 0.25 * lr_factor(0, 10, REWIND.optim)
