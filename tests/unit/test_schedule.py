"""Learning-rate schedules against their formulas."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
import torch

from linne.recipe import OptimConfig
from linne.training.schedule import Plateau, lr_factor


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


def test_wsd_stays_and_falls_as_one_minus_the_square_root():
    values = factors(schedule="wsd", epochs=10, warmup_epochs=1.0, decay_share=0.4)
    assert values[:10] == [(step + 1) / 11 for step in range(10)]
    assert set(values[10:61]) == {1.0}
    assert values[70] == pytest.approx(1 - math.sqrt(10 / 40))
    assert values[99] == pytest.approx(1 - math.sqrt(39 / 40))


def test_schedule_free_and_plateau_warm_up_and_stay():
    for schedule in ("schedule-free", "plateau"):
        values = factors(schedule=schedule, epochs=4, warmup_epochs=1.0)
        assert values[4] == pytest.approx(5 / 11)
        assert set(values[10:]) == {1.0}


def test_swa_holds_its_rate_while_weights_are_averaged():
    values = factors(schedule="cosine", epochs=10, average_epochs=3, swa_lr=0.25)
    assert values[:70] == factors(schedule="cosine", epochs=10)[:70]
    assert set(values[70:]) == {0.25}


LOSSES = [1.0, 0.9, 0.95, 0.9, 0.91, 0.92, 0.89999, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.4]


@pytest.mark.parametrize("patience", [1, 3])
def test_a_plateau_drops_the_rate_when_torchs_does(patience):
    plateau = Plateau(OptimConfig(schedule="plateau", plateau_epochs=patience, step_factor=0.5))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    # torch counts the epochs that it still tolerates.
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=patience - 1)
    seen = []
    for loss in LOSSES:
        plateau.update(loss)
        reference.step(loss)
        seen.append(plateau.factor)
        assert plateau.factor == optimizer.param_groups[0]["lr"]
    assert len(set(seen)) > 1


def test_a_plateau_goes_on_from_its_state():
    config = OptimConfig(schedule="plateau", plateau_epochs=2)
    first, second = Plateau(config), Plateau(config)
    for loss in LOSSES[:4]:
        first.update(loss)
    second.load(json.loads(json.dumps(first.state())))
    for loss in LOSSES[4:]:
        first.update(loss)
        second.update(loss)
        assert first.factor == second.factor
