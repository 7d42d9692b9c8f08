"""What a training says and writes down before its first step."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from linne.device.repeating import promise
from linne.log import Narrator, Run

if TYPE_CHECKING:
    from linne.data.source import Source
    from linne.planning import Plan


def say_plan(plan: Plan, run: Run, narrator: Narrator) -> None:
    """Say what is trained on, where, and every value of the recipe with its reason."""
    say_source(plan, run, narrator)
    narrator.line()
    fields = plan.recipe.to_fields()
    rows = [(path, _show(fields[path]), why) for path, why in plan.reasons.items() if path != "data.source"]
    narrator.table(rows)


def say_source(plan: Plan, run: Run, narrator: Narrator) -> None:
    """Say what is trained on, and where."""
    source = plan.source
    counts = ", ".join(f"{len(split):,} {name}" for name, split in source.splits.items())
    size = "x".join(map(str, source.image_size)) if source.same_size else "of many sizes"
    colour = "grey" if source.channels == 1 else "colour"
    narrator.line(f"source  {source.name}: {counts}; {source.num_classes} classes; {colour} images {size}")
    for note in source.notes:
        narrator.line(f"        {note}")
    narrator.line(f"device  {plan.device.name} ({plan.device.reason})")
    narrator.line(f"run     {run.path}")
    wanted = plan.recipe.device
    narrator.line(f"repeats {promise(wanted.determinism, plan.device, wanted.num_threads)}")


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_show, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def warn_of_data(source: Source, narrator: Narrator) -> list[str]:
    """Say, and return, what is doubtful about `source` and can be known without decoding it."""
    from linne.checking import quick_check

    warnings = quick_check(source)
    for warning in warnings:
        narrator.warn(warning)
    if warnings:
        narrator.line(f"`linne data check {shlex.quote(source.name)}` looks at every image\n")
    return warnings


def save_splits(plan: Plan, run: Run) -> None:
    """Write which examples train, validate and test to the run's splits.json, where the source may not say it again.

    Files may be joined by others before the next verb, and lists may be edited.
    """
    from linne.data import save_manifest

    stored = plan.source.splits["train"].store.array is not None
    if not stored or plan.recipe.data.splits_file or plan.recipe.data.quarantine:
        save_manifest(plan.source, run.path / "splits.json")


def write_plan(plan: Plan, run: Run, warnings: Sequence[str]) -> None:
    """Write the run's recipe.json: everything that decides its result, with reasons and the facts of its source."""
    from linne import __version__
    from linne.recipes import recipe_document

    source = plan.source
    facts: dict[str, Any] = {
        "linne": __version__,
        "command": ["linne", *sys.argv[1:]],
        "device": f"{plan.device.address} ({plan.device.name})",
        "device_record": plan.device.to_dict(),
        "source": {
            "name": source.name,
            "fingerprint": source.fingerprint,
            "labels": list(source.labels),
            "counts": {name: len(split) for name, split in source.splits.items()},
            "splits_sha256": run.splits_sha256(),
            "notes": list(source.notes),
            "warnings": list(warnings),
        },
    }
    if plan.started_from is not None:
        facts["started_from"] = asdict(plan.started_from)
    run.write_json("recipe.json", recipe_document(plan.recipe, plan.reasons, **facts))
