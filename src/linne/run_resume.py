"""Going on with a run: what its folder holds, and whether the command at hand still means that run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from linne.data.source import Source
from linne.errors import BundleError, CheckFailed, LinneError, RecipeError, suggest
from linne.log import LOCK, Narrator, Run
from linne.planning import Plan, asked_for, earlier_run, make_plan
from linne.recipe import Recipe, recipe_fields
from linne.recipes import read_run
from linne.report import EvalReport
from linne.run_facts import RunRecord, value_text
from linne.run_facts import read_run as read_record
from linne.run_start import save_splits
from linne.training.watchdog import was_stuck

if TYPE_CHECKING:
    from linne.training.checkpoint_format import Checkpoint

Resume = bool | Literal["auto"]
"""Whether to go on with the run in the output folder; "auto" does so where there is one."""

RECIPE = "recipe.json"
FINGERPRINT = "source.fingerprint"
FREE = (
    "checkpoint.",
    "data.cache",
    "data.max_bad_images",
    "data.num_workers",
    "log_every",
    "log_samples",
    "tta",
    "optim.shortened",
    "device.micro_batch",
)
"""Fields and sections that may change in mid-run: what is learnt does not depend on them, or a checkpoint says it.

Or memory that runs short changes them as well.
"""
LEFT_BEHIND = {LOCK, "splits.json"}
"""What a process leaves that was killed before it had a recipe."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a command says about a run, in the arguments of `linne.train`."""

    source: str | None
    opened: Source | None
    recipe: str | None
    flags: Mapping[str, Any]
    overrides: Mapping[str, Any]
    require_accelerator: bool = False
    trust_code: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """Where a run goes on from."""

    plan: Plan
    checkpoint: Checkpoint | None
    """None begins it again, because none was ever written."""
    finished: bool
    """Whether there is nothing left to do."""


def find_run(output: str | Path | None, resume: Resume) -> Run | None:
    """Return the run in the folder `output`, to be gone on with; None where a new one begins there.

    Raises:
        LinneError: no folder was named, or there is no run in it and one must be.
    """
    if not resume:
        return None
    if output is None:
        raise LinneError("nothing says which run to go on with", hint="name its folder: --output DIR --resume")
    folder = Path(output)
    if (folder / RECIPE).is_file():
        return Run(folder)
    if resume != "auto":
        raise LinneError(
            f"there is no run in `{folder}` to go on with", hint="`--resume auto` begins one where there is none"
        )
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= LEFT_BEHIND:
        for name in LEFT_BEHIND - {LOCK}:
            (folder / name).unlink(missing_ok=True)
        (folder / LOCK).unlink(missing_ok=True)
    return None


def plan_to_go_on(run: Run, asked: Asked, resume: Resume, allow_change: Collection[str], narrator: Narrator) -> Start:
    """Return the plan of the run in `run`, and the newest checkpoint of it that is whole.

    What the command does not say is as it was; what it says must be what it was, unless `allow_change` names it.

    Raises:
        RecipeError: something is not as it was.
        CheckFailed: there are checkpoints, and none of them is whole.
        LinneError: there is no checkpoint, and one must be; or they are of a newer format.
    """
    from linne.training.checkpoint_format import newest_good

    _check_names(allow_change)
    document = read_run(run.path / RECIPE)
    recipe_before = Recipe.from_dict(document["recipe"])
    fields, reasons = asked_for(asked.source, asked.recipe, asked.flags, asked.overrides)
    given = {**recipe_before.to_fields(), **fields}
    if "optim.epochs" in fields and given["optim.epochs"] != recipe_before.optim.epochs:  # nor is time taken away then
        given["optim.shortened"], given["optim.minutes"] = None, fields.get("optim.minutes")
    earlier = earlier_run(str(run.path / RECIPE), given)
    if earlier is not None:
        earlier = dataclasses.replace(earlier, fingerprint=None)  # compared below, with its own words
    reasons = {**document.get("reasons", {}), **reasons}
    plan = make_plan(
        given,
        reasons,
        earlier,
        asked.opened,
        require_accelerator=asked.require_accelerator,
        trust_code=asked.trust_code,
    )
    checkpoint, problems = newest_good(run.checkpoints)
    fingerprint_before = document.get("source", {}).get("fingerprint")
    if checkpoint is not None:
        recipe_before, fingerprint_before = (
            Recipe.from_dict(checkpoint.facts["recipe"]),
            checkpoint.facts["fingerprint"],
        )
    changes = _changes(recipe_before, plan, fingerprint_before)
    if "optim.epochs" in allow_change and fields.get("optim.minutes") is None:
        allow_change = {*allow_change, "optim.minutes"}
    refused = {path: values for path, values in changes.items() if not _is_free(path) and path not in allow_change}
    if refused:
        raise _other_run(run, refused)
    finished = _is_finished(run) and all(map(_is_free, changes))
    if not finished:
        _check_checkpoints(run, checkpoint, problems, resume, narrator)
    return Start(plan, checkpoint, finished)


def _check_names(allow_change: Collection[str]) -> None:
    known = [*recipe_fields(), FINGERPRINT]
    for path in allow_change:
        if path not in known:
            hint = suggest(path, known) or "`docs/reference/recipe.md` lists the fields"
            raise RecipeError(f"no recipe field `{path}` that could change", hint=hint)


def _changes(before: Recipe, plan: Plan, fingerprint_before: str | None) -> dict[str, tuple[Any, Any]]:
    """Return the old and the new value of everything that is not as it was."""
    then, now = before.to_fields(), plan.recipe.to_fields()
    changes = {path: (then[path], now[path]) for path in now if then[path] != now[path]}
    if fingerprint_before != plan.source.fingerprint:
        changes[FINGERPRINT] = (fingerprint_before, plan.source.fingerprint)
    return changes


def _is_free(path: str) -> bool:
    return path.startswith(FREE[0]) or path in FREE


def _other_run(run: Run, refused: Mapping[str, tuple[Any, Any]]) -> RecipeError:
    said = [f"{path} was {value_text(then)} and is {value_text(now)}" for path, (then, now) in refused.items()]
    flags = " ".join(f"--allow-change {path}" for path in refused)
    what = "images, labels or splits of the source have changed: " if FINGERPRINT in refused else ""
    return RecipeError(
        f"this is not the run in `{run.path}`: {what}{'; '.join(said)}",
        hint=f"leave it as it was, or train on with the change: {flags}",
    )


def _check_checkpoints(
    run: Run, checkpoint: Checkpoint | None, problems: list[str], resume: Resume, narrator: Narrator
) -> None:
    """Say what is wrong with checkpoints, and raise where there is none to go on from."""
    if checkpoint is None and problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise CheckFailed(
            f"the run in `{run.path}` cannot go on: no checkpoint is whole\n{listed}",
            hint="bring one back from a copy, or train anew in another folder: --output DIR",
        )
    if checkpoint is None and _is_finished(run):
        raise LinneError(
            f"the run in `{run.path}` is finished, and its checkpoints are gone",
            hint="train anew in another folder, with --set checkpoint.keep_after=true to train on later",
        )
    if checkpoint is None and resume != "auto":
        raise LinneError(
            f"the run in `{run.path}` has no checkpoint yet", hint="`--resume auto` begins it again from its recipe"
        )
    for problem in problems:
        narrator.warn(problem)
    if checkpoint is None:
        narrator.warn(f"the run in `{run.path}` was ended before its first checkpoint: it begins again")
    elif problems:
        narrator.warn(f"going back to `{checkpoint.path}`")


def _is_finished(run: Run) -> bool:
    """Return whether nothing is left to do: the last epoch is trained, its bundle written, the report too.

    The report is written last, and taken away when a run goes on.
    """
    from linne.bundle import open_bundle

    if not (run.path / "report.html").is_file() or read_record(run.path).ending != "finished":
        return False
    try:
        return open_bundle(run.path / "bundle").provenance.get("finished") is True
    except BundleError:
        return False


def prepare(run: Run, start: Start, narrator: Narrator) -> None:
    """Make the folder of `run` what it was at the checkpoint, and write down what has changed since."""
    plan, checkpoint = start.plan, start.checkpoint
    (run.path / "report.html").unlink(missing_ok=True)
    for name in run.cut({} if checkpoint is None else checkpoint.state["log_bytes"]):
        narrator.warn(f"`{run.path / name}` is shorter than it was at the checkpoint: rows are missing")
    for path in sorted(run.path.glob("stuck*.txt")):
        if was_stuck(path):
            narrator.warn(f"a process of this run stood still and was ended: `{path}` has where every thread was")
    _write_changes(run, plan, 0 if checkpoint is None else checkpoint.step)
    if checkpoint is None:
        return
    place = {"step": checkpoint.step, "epochs": checkpoint.epoch, "checkpoint": checkpoint.path.name}
    run.log({"event": "resume", **place})
    where = f"step {checkpoint.step:,}, in epoch {min(checkpoint.epoch + 1, plan.recipe.optim.epochs)}"
    narrator.line(f"resume  at {where}, from {checkpoint.path}")
    _warn_of_versions(checkpoint.facts, plan, narrator)


def _write_changes(run: Run, plan: Plan, step: int) -> None:
    """Write into recipe.json what is another way from now on, and since when."""
    document = read_run(run.path / RECIPE)
    source = dict(document.get("source", {}))
    changes = _changes(Recipe.from_dict(document["recipe"]), plan, source.get("fingerprint"))
    if not changes:
        return
    if FINGERPRINT in changes:
        save_splits(plan, run)
        source |= {"fingerprint": plan.source.fingerprint, "splits_sha256": run.splits_sha256()}
    rows = [{"step": step, "field": path, "before": then, "after": now} for path, (then, now) in changes.items()]
    again = {"source": source, "recipe": plan.recipe.to_dict(), "reasons": dict(plan.reasons)}
    run.write_json(RECIPE, {**document, **again, "changes": [*document.get("changes", []), *rows]})


def _warn_of_versions(facts: Mapping[str, Any], plan: Plan, narrator: Narrator) -> None:
    """Say where the same numbers cannot be promised."""
    from linne.device import describe_versions

    device, versions = f"{plan.device.address} ({plan.device.name})", describe_versions()
    then_and_now = [(name, facts["versions"].get(name), versions[name]) for name in ("torch", "numpy")]
    for name, then, now in [*then_and_now, ("device", facts["device"], device)]:
        if then != now:
            narrator.warn(f"{name} was {then} and is {now}: the rest of the run may differ in its last digits")


def read_result(run: Run) -> tuple[RunRecord, EvalReport | None]:
    """Return what a finished run says about itself, and its evaluation if it has one."""
    path = run.path / "evaluation.json"
    report = EvalReport.from_dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
    return read_record(run.path), report
