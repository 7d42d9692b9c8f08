"""The backstop of a time budget: how many steps fit, where the schedule then is, and what a recipe may say of it."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest

from linne.errors import RecipeError
from linne.recipe import DataConfig, OptimConfig, Recipe
from linne.training.clock import AIM, Clock, make_clock
from linne.training.schedule import lr_factor, planned_step
from linne.training.state import TrainState

EPOCHS, STEPS = 10, 20
"""A plan of 200 steps in epochs of 20."""


def make_clock_of(seconds: float, end_steps: float = 0.0) -> Clock:
    return Clock(seconds, EPOCHS * STEPS, STEPS, end_steps)


def test_a_training_that_will_end_in_time_keeps_its_steps():
    assert make_clock_of(200.0).fitting(50, 2, 200, used_seconds=50.0, step_seconds=1.0) == 200


def test_steps_that_will_not_fit_are_taken_away():
    total = make_clock_of(200.0).fitting(50, 2, 200, used_seconds=50.0, step_seconds=2.0)
    assert total == 50 + (AIM * 200 - 50) // 2


def test_the_ends_of_the_epochs_that_are_left_have_to_fit_too():
    clock = make_clock_of(200.0, end_steps=5.0)
    total = clock.fitting(50, 2, 200, used_seconds=50.0, step_seconds=2.0)
    ends = -(-total // STEPS) - 2
    assert 50 + (total - 50) * 2 + ends * 10 <= AIM * 200
    more_ends = -(-(total + 1) // STEPS) - 2
    assert 50 + (total + 1 - 50) * 2 + more_ends * 10 > AIM * 200


def test_steps_come_back_when_there_is_time_again_but_never_more_than_planned():
    clock = make_clock_of(200.0)
    assert 100 < clock.fitting(60, 3, 100, used_seconds=60.0, step_seconds=1.0) == 60 + (AIM * 200 - 60)
    assert clock.fitting(60, 3, 100, used_seconds=60.0, step_seconds=0.1) == EPOCHS * STEPS


def test_one_more_step_is_done_where_no_time_is_left():
    assert make_clock_of(200.0).fitting(50, 2, 200, used_seconds=300.0, step_seconds=1.0) == 51


def test_steps_that_would_last_until_the_next_decision_stay_while_there_is_much_time():
    clock = make_clock_of(200.0)
    clock.fastest = 0.5  # of a machine that was not busy
    assert (
        clock.fitting(60, 2, 200, used_seconds=100.0, step_seconds=40.0) == 60 + 44
    )  # 1.1 x a fifth of 100 s, in steps of 0.5 s
    assert clock.fitting(60, 2, 200, used_seconds=190.0, step_seconds=40.0) == 61


def test_the_last_step_changes_nothing():
    assert make_clock_of(200.0).fitting(150, 7, 150, used_seconds=300.0, step_seconds=1.0) == 150


def test_nothing_looks_at_the_clock_without_a_budget_or_after_another_runs_decisions():
    assert make_clock(OptimConfig(), {}) is None
    assert make_clock(OptimConfig(minutes=1.0, shortened=(1.0, 5.0)), {}) is None


CUTS = (2.5, 6.25, 3.0, 8.0)
"""At step 50 there are 125 in all, at step 60 again 160."""


def test_a_step_before_the_first_cut_is_that_of_the_plan_and_what_is_left_is_spread_evenly_after_it():
    places = [planned_step(step, STEPS, EPOCHS, CUTS) for step in range(161)]
    assert places[:51] == list(range(51))
    assert {round(b - a, 9) for a, b in pairwise(places[50:61])} == {2.0}  # 150 / 75
    assert places[60] == 70
    assert {round(b - a, 9) for a, b in pairwise(places[60:])} == {1.3}  # 130 / 100
    assert places[160] == pytest.approx(EPOCHS * STEPS)


def test_a_cut_at_the_start_that_takes_nothing_away_changes_no_step_to_the_bit():
    assert [planned_step(s, 7, 13, (0.0, 13.0)) for s in range(91)] == list(range(91))


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle", "wsd"])
def test_a_shortened_schedule_comes_to_its_end_without_a_jump(schedule):
    config = OptimConfig(schedule=schedule, epochs=EPOCHS, warmup_epochs=1.0)
    steepest = max(abs(_factor(s + 1, config) - _factor(s, config)) for s in range(199))
    values = [_factor(planned_step(s, STEPS, EPOCHS, CUTS), config) for s in range(160)]
    assert max(abs(b - a) for a, b in pairwise(values)) <= 2.01 * steepest
    assert values[-1] < 0.01 * max(values) or schedule == "wsd"
    assert values[-1] == pytest.approx(_factor(200 - 1.3, config))


def _factor(step: float, config: OptimConfig) -> float:
    return lr_factor(step, STEPS, config)


def test_a_state_knows_how_many_epochs_and_steps_are_left_of_its_plan():
    state = object.__new__(TrainState)
    state.cuts, state.patience, state.epoch = (), None, 7
    assert (state.num_epochs(EPOCHS), state.num_steps(EPOCHS, STEPS), state.is_done(EPOCHS)) == (10, 200, False)
    state.cuts = (2.5, 6.25)
    assert (state.num_epochs(EPOCHS), state.num_steps(EPOCHS, STEPS), state.is_done(EPOCHS)) == (7, 125, True)


def test_a_recipe_keeps_what_was_decided_to_the_bit():
    recipe = Recipe(data=DataConfig(source="digits"), optim=OptimConfig(minutes=0.5, shortened=(10 / 3, 17 / 3)))
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert recipe.override({"optim.shortened": "3.5,6"}).optim.shortened == (3.5, 6.0)


@pytest.mark.parametrize(
    ("cuts", "message"),
    [
        ((2.0, 11.0), "at epoch 2 get 11 epochs in all, expected epochs that rise from 0 and more in all, up to 10"),
        ((4.0, 8.0, 3.0, 6.0), "at epoch 3 get 6 epochs in all, expected epochs that rise from 4 and more"),
        ((4.0, 4.0), "at epoch 4 get 4 epochs in all"),
        ((4.0,), "optim.shortened has 1 numbers, expected pairs: an epoch, and how many there are in all then"),
        ((), "optim.shortened has 0 numbers, expected pairs"),
    ],
    ids=str,
)
def test_pairs_that_no_training_can_follow_are_refused(cuts, message):
    with pytest.raises(RecipeError) as caught:
        dataclasses.replace(OptimConfig(epochs=EPOCHS), shortened=cuts)
    assert message in caught.value.message


def test_a_training_that_went_back_is_timed_anew_from_there():
    clock = make_clock_of(200.0)
    clock.start_steps(0)
    for step in (2, 60):
        clock.look(step, 0, 200, used_seconds=1.0)
    clock.end_steps()
    assert clock.next_step > 60
    clock.restart()
    clock.start_steps(20)
    assert clock.next_step == 22, "not the step that was to be looked at before"
    assert clock.look(22, 1, 200, used_seconds=1.0) == 200
    assert clock.next_step == 23
