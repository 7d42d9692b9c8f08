"""Learning-rate schedules against their formulas."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from linne.recipe import OptimConfig
from linne.training.schedule import lr_factor


def factors(steps_per_epoch: int = 10, **fields) -> list[float]:
    config = OptimConfig(**fields)
    return [lr_factor(step, steps_per_epoch, config) for step in range(config.epochs * steps_per_epoch)]


def test_constant_stays_at_the_peak():
    assert set(factors(schedule="constant", epochs=3)) == {1.0}


def test_cosine_falls_along_half_a_cosine():
    values = factors(schedule="cosine", epochs=4)
    assert values[0] == 1.0
    assert values[20] == pytest.approx(0.5)
    assert values[30] == pytest.approx(0.5 + 0.5 * math.cos(0.75 * math.pi))
    assert values[-1] < 0.01


def test_warm_up_rises_linearly_to_the_peak_and_starts_above_zero():
    values = factors(schedule="cosine", epochs=4, warmup_epochs=1.0)
    rises = {round(b - a, 12) for a, b in pairwise(values[:10])}
    assert len(rises) == 1
    assert values[0] > 0
    assert max(values) == values[10] == 1.0


def test_one_cycle_rises_from_a_twenty_fifth_and_falls_to_zero():
    values = factors(schedule="one-cycle", epochs=5, warmup_epochs=1.0)
    assert values[0] == pytest.approx(1 / 25)
    assert values[10] == 1.0
    assert values[30] == pytest.approx(0.5)
    assert values[-1] == pytest.approx(1 / 40)
    assert all(a < b for a, b in pairwise(values[:11]))
    assert all(a > b for a, b in pairwise(values[10:]))


def test_one_cycle_without_a_warm_up_peaks_after_three_tenths():
    values = factors(schedule="one-cycle", epochs=10)
    assert values.index(max(values)) == 30


def test_step_multiplies_at_every_interval():
    values = factors(schedule="step", epochs=6, step_epochs=2, step_factor=0.1)
    assert values[19] == 1.0
    assert values[20] == pytest.approx(0.1)
    assert values[40] == pytest.approx(0.01)


def test_one_cycle_without_any_warm_up_starts_at_the_peak():
    assert factors(schedule="one-cycle", epochs=10, warmup_epochs=0)[0] == 1.0
