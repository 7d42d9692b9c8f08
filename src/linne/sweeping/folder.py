"""A sweep's folder: what was asked, kept as JSON, and where the rest lies.

sweep.json      what is searched, how many trials, by which measure
recipe.json     the recipe that trials change; splits.json beside it
journal.jsonl   what was tried and what came of it
trial-0001/     one training: an ordinary run folder
repeat-0001/    the same for a recipe that is trained again with another seed
logs/           what the trainings said
workers/        a file for each worker that is alive
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from linne.errors import LinneError, suggest
from linne.recipe import Recipe
from linne.recipes import read_run
from linne.sweeping.space import Dimension, parse_space

FORMAT_VERSION = 1
PLAN = "sweep.json"
SWEEPS_FOLDER = "sweeps"

Objective = Literal["val_accuracy", "val_loss"]
OBJECTIVES: dict[str, Literal["maximize", "minimize"]] = {"val_accuracy": "maximize", "val_loss": "minimize"}
"""What trials are compared by, of the epoch each keeps. Never of the test split: the best of many trials is partly the
luckiest on whatever chose it, and what chose cannot judge."""

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""The system's words for "there is no room"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepPlan:
    """What a sweep was asked."""

    source: str
    space: Mapping[str, Any]
    """What is searched, as typed."""
    asked: Mapping[str, Any]
    """The fields that were given, and what else decides the trials; the same command has the same."""
    objective: Objective
    num_trials: int
    num_seeds: int
    """With how many other seeds the best few are trained again."""
    seed: int
    """Decides what is drawn."""
    cwd: str
    """Where relative paths in the recipe start."""

    def direction(self) -> Literal["maximize", "minimize"]:
        """Return which way is better."""
        return OBJECTIVES[self.objective]


def is_sweep(folder: Path) -> bool:
    """Return whether `folder` holds a sweep."""
    return (folder / PLAN).is_file()


def read_plan(folder: Path) -> SweepPlan:
    """Return what the sweep in `folder` was asked.

    Raises:
        LinneError: there is none, or it cannot be read.
    """
    try:
        content = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        version = content.pop("format")
        if version == FORMAT_VERSION:
            return SweepPlan(**content)
    except OSError as error:
        raise LinneError(
            f"`{folder}` holds no sweep: its {PLAN} cannot be read", hint="start one: linne sweep SOURCE"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise LinneError(f"`{folder / PLAN}` is damaged: {error}") from error
    raise LinneError(
        f"`{folder / PLAN}` has format {version}, this linne reads {FORMAT_VERSION}",
        hint="pip install --upgrade linne",
    )


def write_plan(folder: Path, plan: SweepPlan) -> None:
    """Write `plan` into `folder`, at once or not at all."""
    text = json.dumps({"format": FORMAT_VERSION, **dataclasses.asdict(plan)}, indent=2, ensure_ascii=False)
    write_whole(folder / PLAN, text + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write `text` under `path`, at once or not at all.

    Raises:
        LinneError: the disk is full.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        if error.errno in FULL:
            raise full(path, error) from error
        raise


def full(path: Path, error: OSError) -> LinneError:
    """Return what to raise when there is no room for `path`."""
    return LinneError(
        f"the disk that `{path}` is on is full ({os.strerror(error.errno or 0).lower()})",
        hint="make room; the same command continues",
    )


def base_recipe(folder: Path) -> Recipe:
    """Return the recipe that the trials in `folder` change."""
    return Recipe.from_dict(read_run(folder / "recipe.json")["recipe"])


def space_of(folder: Path, plan: SweepPlan) -> tuple[Dimension, ...]:
    """Return what is searched, read again."""
    return parse_space(plan.space, base_recipe(folder))


def refuse_another_question(folder: Path, before: SweepPlan, asked: Mapping[str, Any]) -> None:
    """Raise LinneError, naming the field, when `asked` is not what the sweep in `folder` was asked."""
    for path in {**before.asked, **asked}:
        then, now = before.asked.get(path), asked.get(path)
        if then != now:
            said = f"{path} was {_words(then)} and is now {_words(now)}"
            raise LinneError(
                f"the sweep in `{folder}` was asked something else: {said}",
                hint="type the same command to continue it, or name another folder: --output DIR",
            )


def _words(value: Any) -> str:
    return "not given" if value is None else f"`{value}`"


def check_objective(name: str) -> Objective:
    """Return `name` as an objective.

    Raises:
        LinneError: it is none; one that looks at the test split is refused with the reason.
    """
    if name in OBJECTIVES:
        return name  # type: ignore[return-value]
    if name.startswith("test"):
        raise LinneError(
            f"trials are not compared by `{name}`: the best of many is partly the luckiest on the images that chose "
            "it, and the test images have to judge it",
            hint="use val_accuracy or val_loss",
        )
    raise LinneError(f"no objective `{name}`", hint=suggest(name, OBJECTIVES) or "use val_accuracy or val_loss")
