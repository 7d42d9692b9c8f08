"""A sweep's folder read together: the journal, the splits that trials were compared on, the best trial's test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from linne.errors import LinneError
from linne.recipes import read_run
from linne.sweeping.folder import read_plan
from linne.sweeping.journal import JOURNAL, Journal
from linne.sweeping.results import SweepReport


def gather(folder: Path) -> SweepReport:
    """Return what the sweep in `folder` has found so far.

    Raises:
        LinneError: there is no sweep in it, or nothing was tried yet.
    """
    plan = read_plan(folder)
    if not (folder / JOURNAL).is_file():
        raise LinneError(f"nothing was tried yet in `{folder}`", hint=f"linne sweep {folder}")
    journal = Journal(folder)
    report = journal.report(plan)
    counts = read_run(folder / "recipe.json").get("source", {}).get("counts", {})
    report = replace(report, num_val=int(counts.get("val", 0)))
    test = None if report.best is None else _test_of(folder / report.best.name)
    # What decided a difference that chance may have made is nothing that could be told.
    is_clear = report.objective == "val_loss" or 2 * report.num_near <= len(report.ranked)
    return replace(report, importance=journal.importance() if is_clear else None, test=test)


def _test_of(run: Path) -> Mapping[str, Any] | None:
    """Return a run's evaluation on the test split, None where it has none: then val chose the recipe and the epoch."""
    try:
        found = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    told = ("accuracy", "accuracy_interval", "num_examples", "tta")
    return {name: found[name] for name in told} if found.get("split") == "test" else None
