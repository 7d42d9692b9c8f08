"""From what was typed to a sweep's folder: begun, or continued when it is the same question."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linne.errors import LinneError, RecipeError
from linne.lock import exclusive
from linne.log import Narrator, Run
from linne.sweeping.folder import (
    SWEEPS_FOLDER,
    SweepPlan,
    check_objective,
    is_sweep,
    read_plan,
    refuse_another_question,
    write_plan,
)
from linne.sweeping.space import default_space, parse_space, read_space, shown

if TYPE_CHECKING:
    from linne.planning import Plan

NUM_TRIALS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What was typed."""

    source: str | None
    recipe: str | None
    flags: Mapping[str, Any]
    overrides: Mapping[str, Any]
    search: Mapping[str, Any]
    space_file: Path | None
    objective: str | None
    num_trials: int | None
    num_seeds: int | None
    num_workers: int
    output: Path | None


def take_up(question: Question, narrator: Narrator, *, trust_code: bool = False) -> Path:
    """Return the folder of the sweep that `question` asks for, begun now or before.

    `trust_code` lets the user's own Python be run; it is not written down, so that each call says it for itself.

    Raises:
        LinneError: something given cannot be used, or the folder's sweep was asked something else.
    """
    for name, least in (("num_trials", 1), ("num_seeds", 0), ("num_workers", 1)):
        value = getattr(question, name)
        if value is not None and value < least:
            raise LinneError(f"--{name.removeprefix('num_')} is {value}, expected {least} or more")
    typed = _typed_space(question)
    named = None if question.source is None else Path(question.source)
    if named is not None and is_sweep(named):
        return _join(named, question, typed)
    from linne.planning import collect

    given, reasons = collect(question.source, question.recipe, question.flags, question.overrides)
    if both := sorted(set(typed) & (set(question.overrides) | {p for p, v in question.flags.items() if v is not None})):
        raise RecipeError(f"{both[0]} is both set and searched")
    if reasons.get("optim.minutes") == "given" or "optim.minutes" in typed:
        raise RecipeError(
            "optim.minutes chooses the epochs of one run by the clock, and trials are compared at the same number",
            hint="say how many epochs each has: --epochs N",
        )
    asked = _asked(question, given, typed)
    folder = question.output or Path(SWEEPS_FOLDER) / _name(given)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(folder):
        if is_sweep(folder):
            refuse_another_question(folder, read_plan(folder), asked)
            _raise_counts(folder, question)
            narrator.line(f"sweep   {folder}, continued")
        else:
            _begin(folder, question, given, reasons, typed, asked, narrator, trust_code)
    return folder


def _typed_space(question: Question) -> dict[str, Any]:
    typed = {} if question.space_file is None else read_space(question.space_file)
    return {**typed, **question.search}


def _asked(question: Question, given: Mapping[str, Any], typed: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the trials, as JSON holds it: tuples are lists there."""
    fields = {path: list(value) if isinstance(value, tuple) else value for path, value in given.items()}
    searched = {f"the search of {path}": value for path, value in typed.items()}
    return {**fields, **searched, "the objective": check_objective(question.objective or "val_accuracy")}


def _name(given: Mapping[str, Any]) -> str:
    """Return what a sweep is called, the same for the same command, so that it is found again."""
    from linne.planning import default_output_name
    from linne.recipe import DataConfig, ModelConfig, Recipe

    model = ModelConfig(name=given.get("model.name", ModelConfig().name))
    return default_output_name(Recipe(data=DataConfig(source=given["data.source"]), model=model))


def _join(folder: Path, question: Question, typed: Mapping[str, Any]) -> Path:
    """Continue the sweep in `folder`, or help with it from another machine."""
    given = {**{p: v for p, v in question.flags.items() if v is not None}, **question.overrides, **typed}
    said = [*given, *(["--recipe"] if question.recipe else []), *(["--objective"] if question.objective else [])]
    if said or question.output is not None:
        raise LinneError(
            f"`{folder}` is a sweep, which goes on as it was asked: {next(iter(said), '--output')} cannot be given",
            hint="to ask something else, name the source and a new folder: linne sweep SOURCE --output DIR",
        )
    _raise_counts(folder, question)
    return folder


def _raise_counts(folder: Path, question: Question) -> None:
    plan = read_plan(folder)
    trials, seeds = question.num_trials, question.num_seeds
    changed = replace(
        plan,
        num_trials=plan.num_trials if trials is None else trials,
        num_seeds=plan.num_seeds if seeds is None else seeds,
    )
    if changed != plan:
        write_plan(folder, changed)


def _begin(
    folder: Path,
    question: Question,
    given: Mapping[str, Any],
    reasons: Mapping[str, str],
    typed: Mapping[str, Any],
    asked: Mapping[str, Any],
    narrator: Narrator,
    trust_code: bool,
) -> None:
    """Write the folder: the recipe that trials change, the splits they share, what is searched."""
    from linne.planning import earlier_run, make_plan
    from linne.run_start import save_splits, say_plan, warn_of_data
    from linne.run_start import write_plan as write_recipe

    plan = make_plan(given, reasons, earlier_run(question.recipe, given), trust_code=trust_code)
    if "val" not in plan.source.splits:
        raise RecipeError(
            "no images are held out to compare trials by", hint="use --set data.val_fraction=0.1, or a validation split"
        )
    plan = _share_cores(plan, question.num_workers, given)
    space = typed or default_space(plan.recipe)
    dimensions = parse_space(space, plan.recipe)
    run = Run.create(folder, folder.name)
    say_plan(plan, run, narrator)
    warnings = warn_of_data(plan.source, narrator)
    narrator.line()
    narrator.table([(f"search  {each.path}", str(each)) for each in dimensions], "")
    fields = plan.recipe.to_fields()
    for each in dimensions:
        if not each.holds(fields[each.path]):
            narrator.line(f"        {shown(fields[each.path])} is not in it, so the recipe as it is will not be tried")
    save_splits(plan, run)
    write_recipe(plan, run, warnings)
    write_plan(
        folder,
        SweepPlan(
            source=plan.source.name,
            space=space,
            asked=asked,
            objective=check_objective(question.objective or "val_accuracy"),
            num_trials=question.num_trials or NUM_TRIALS,
            num_seeds=question.num_seeds or 0,
            seed=plan.recipe.seed,
            cwd=os.getcwd(),
        ),
    )


def _share_cores(plan: Plan, num_workers: int, given: Mapping[str, Any]) -> Plan:
    """Return `plan` with threads for each of several workers on one machine's cores."""
    threads = plan.recipe.device.num_threads
    if num_workers == 1 or threads in (None, 1) or "device.num_threads" in given:
        return plan
    share = max(1, (threads or 1) // num_workers)
    why = f"{num_workers} workers share {threads} cores"
    recipe = plan.recipe.override({"device.num_threads": share})
    return replace(plan, recipe=recipe, reasons={**plan.reasons, "device.num_threads": why})
