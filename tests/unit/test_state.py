"""Which epoch's weights are kept."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from linne.device import Device
from linne.recipe import DataConfig, OptimConfig, Recipe
from linne.training.state import Scores, TrainState, standard_error


def make_state(**optim) -> TrainState:
    recipe = Recipe(data=DataConfig(source="x"), optim=OptimConfig(**optim))
    return TrainState.create(nn.Linear(2, 2), recipe, Device.pick("cpu"))


def kept_after(accuracies: list[float], num_examples: int) -> int:
    """Return the epoch that is kept, counted from 1."""
    state = make_state()
    for accuracy in accuracies:
        state.epoch += 1
        state.keep(Scores(accuracy, 1.0 - accuracy, num_examples))
    assert state.kept is not None
    return state.kept.epoch


def test_the_highest_accuracy_is_kept_when_the_split_can_tell_epochs_apart():
    assert kept_after([0.5, 0.9, 0.8], num_examples=10_000) == 2


def test_of_epochs_that_the_split_cannot_tell_apart_the_latest_is_kept():
    # One standard error of 0.9 on 100 examples is 0.031.
    assert kept_after([0.5, 0.9, 0.88], num_examples=100) == 3
    assert kept_after([0.5, 0.9, 0.86], num_examples=100) == 2


def test_epochs_are_measured_against_the_best_ever_so_that_the_kept_one_cannot_slide_down():
    assert kept_after([0.90, 0.88, 0.86, 0.84], num_examples=100) == 2


def test_without_validation_the_newest_epoch_is_kept():
    state = make_state()
    for epoch in (1, 2, 3):
        state.epoch = epoch
        assert state.keep(None)
    assert state.kept.epoch == 3


def test_kept_weights_are_a_copy_that_training_does_not_touch():
    state = make_state()
    state.keep(None)
    with torch.no_grad():
        state.model.weight.add_(1)
    assert not torch.equal(state.kept.weights["weight"], state.model.weight)


def test_the_average_is_what_is_kept_when_there_is_one():
    state = make_state(ema_decay=0.9)
    with torch.no_grad():
        state.model.weight.add_(1)
    state.keep(None)
    assert torch.equal(state.kept.weights["weight"], state.ema.model.weight)
    assert not torch.equal(state.kept.weights["weight"], state.model.weight)


def test_the_mean_of_the_last_epochs_is_kept_once_there_is_one():
    state = make_state(epochs=3, average_epochs=2)
    for state.epoch in (1, 2, 3):
        with torch.no_grad():
            state.model.weight.add_(1)
        state.late_average.end_epoch(state.epoch)
        state.keep(None)
        expected = state.model.weight - (0.5 if state.epoch == 3 else 0.0)
        torch.testing.assert_close(state.kept.weights["weight"], expected.detach())
        assert state.evaluated is (state.model if state.epoch == 1 else state.late_average.model)


@pytest.mark.parametrize(
    ("fraction", "count", "expected"), [(0.9, 100, 0.0312), (1.0, 30, 0.0404), (0.5, 10_000, 0.005)]
)
def test_the_standard_error_follows_its_formula(fraction, count, expected):
    assert standard_error(fraction, count) == pytest.approx(expected, rel=0.01)
