"""A time budget: how many epochs fit, and who says how many there are."""

from __future__ import annotations

import json

import pytest

from linne.errors import RecipeError
from linne.planning import Plan, collect, plan_anew
from linne.recipe import DataConfig, OptimConfig, Recipe
from linne.training.pace import Pace, measure_pace

SOURCE = "synthetic:classes=3,size=12,count=120"


def make_recipe(**optim) -> Recipe:
    return Recipe(data=DataConfig(source=SOURCE), optim=OptimConfig(**optim))


@pytest.mark.parametrize(
    ("optim", "expected"),
    [
        ({}, 9),  # (100 x 0.95 - 5) / 10
        ({"schedule": "schedule-free"}, 7),  # / (10 + 2): its statistics are measured each epoch
        ({"average_epochs": 5}, 8),  # (95 - 5 - 5 x 2) / 10
    ],
    ids=str,
)
def test_as_many_whole_epochs_are_trained_as_fit(optim, expected):
    pace = Pace(start=5.0, epoch=10.0, pass_over=2.0)
    assert pace.epochs_in(100.0, make_recipe(**optim)) == expected


def test_one_epoch_is_trained_where_none_fits():
    assert Pace(start=5.0, epoch=10.0, pass_over=2.0).epochs_in(3.0, make_recipe()) == 1


def plan_with(recipe: str | None = None, **options) -> tuple[Plan, list[str]]:
    """Return a plan, and what was said while it was made."""
    said: list[str] = []
    flags = {"model.name": "mlp", "device.name": "cpu", **options.pop("flags", {})}
    source = SOURCE if recipe is None or not recipe.endswith(".json") else None
    return plan_anew(source, recipe, flags, {}, say=said.append, **options), said


def test_a_budget_sets_the_epochs_by_what_was_measured_and_twice_of_it_about_twice_as_many():
    small, said = plan_with(flags={"optim.minutes": 0.05})
    assert said == ["measuring how long an epoch takes"]
    assert small.recipe.optim.epochs > 1
    assert small.reasons["optim.epochs"].endswith("s, as measured, fit into 0.05 min")
    assert small.reasons["optim.minutes"] == "given"
    assert small.recipe.optim.shortened is None
    assert small.reasons["optim.shortened"] == "decided by the clock, where the epochs turn out not to fit"
    measured = measure_pace(small.recipe, small.source, small.device, 3.0)
    assert measured.epoch > 0
    once, twice = (measured.epochs_in(seconds, small.recipe) for seconds in (100.0, 200.0))
    assert twice == pytest.approx(2 * once, rel=0.1)


def test_a_repeated_run_has_the_epochs_it_had_and_measures_nothing(tmp_path):
    first, _ = plan_with(flags={"optim.minutes": 0.02})
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"format": 1, "recipe": first.recipe.to_dict()}))
    again, said = plan_with(str(path), flags={})
    assert said == []
    assert again.recipe == first.recipe


def test_epochs_that_are_typed_replace_a_budget_of_the_recipe_and_a_typed_budget_its_epochs(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(
        json.dumps({"format": 1, "recipe": make_recipe(minutes=0.02, epochs=7, shortened=(1.5, 3.0)).to_dict()})
    )
    given, _ = collect(None, str(path), {"optim.epochs": 4}, {})
    assert (given["optim.epochs"], given["optim.minutes"], given["optim.shortened"]) == (4, None, None)
    given, _ = collect(None, str(path), {"optim.minutes": 0.5}, {})
    assert given["optim.shortened"] is None
    given, _ = collect(None, str(path), {"seed": 3}, {})
    assert given["optim.shortened"] == (1.5, 3.0)
    plan, said = plan_with("quick", flags={"optim.minutes": 0.02, "model.name": "small"})
    assert len(said) == 1
    assert "as measured" in plan.reasons["optim.epochs"]


def test_a_budget_and_a_number_of_epochs_are_refused_together():
    with pytest.raises(RecipeError) as caught:
        plan_with(flags={"optim.minutes": 0.02, "optim.epochs": 3})
    assert caught.value.message == "optim.epochs and optim.minutes both say how long to train"
    assert caught.value.hint == "leave --epochs or --time-budget out"


def test_a_budget_of_several_processes_is_refused():
    with pytest.raises(RecipeError) as caught:
        plan_with(flags={"optim.minutes": 0.02}, num_processes=2)
    assert caught.value.message == "optim.minutes is measured by one process, and 2 train together"
    assert caught.value.hint == "say how many epochs: --epochs N"


def test_a_budget_that_a_recipe_brings_is_kept_when_its_epochs_are_found(tmp_path):
    path = tmp_path / "ten.py"
    path.write_text('def plan():\n    return {"optim.minutes": 0.02}\n')
    plan, said = plan_with(f"{path}:plan")
    assert len(said) == 1
    assert plan.recipe.optim.minutes == 0.02
