"""Part of `faults.py`: what checkpoints cost a training, measured in pairs of runs and by what each writing says."""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import measure

measure.use_checkout()

from linne.log import Narrator, Run  # noqa: E402
from linne.planning import Plan, collect, make_plan  # noqa: E402
from linne.training.loop import train  # noqa: E402

EVERY_SECONDS = 6
"""Instead of 60: ten times the cost, in runs of a tenth of the time."""
PAIRS, QUICK_PAIRS = 3, 1


def run_once(plan: Plan) -> dict[str, Any]:
    """Return what a training takes, and what its checkpoints say that they took."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        with measure.timed() as timing:
            train(plan.recipe, plan.source, run, Narrator(quiet=True))
        run.close()
        rows = map(json.loads, (Path(folder) / "metrics.jsonl").read_text().splitlines())
        checkpoints = [row for row in rows if row["event"] == "checkpoint"]
    names = ("size_bytes", "blocked_seconds", "write_seconds")
    return {**timing.to_dict(), "checkpoints": [{name: row[name] for name in names} for row in checkpoints]}


def cost(quick: bool) -> dict[str, Any]:
    """Return the measurements of both sides, and what they say in words."""
    fixed = {"optim.epochs": 1 if quick else 3, "data.batch_size": 128, "device.num_threads": 1, "log_every": 10}
    fixed |= {"device.precision": "fp32", "data.val_fraction": "none"}
    source = f"synthetic:classes=10,size=32,count={500 if quick else 5000}"
    sides = {"with": {"checkpoint.every_minutes": EVERY_SECONDS / 60}, "without": {"checkpoint.keep": "none"}}
    plans = {
        name: make_plan(*collect(source, None, {"device.name": "cpu"}, {**fixed, **extra}))
        for name, extra in sides.items()
    }
    runs = measure.interleave(
        QUICK_PAIRS if quick else PAIRS, {name: lambda plan=plan: run_once(plan) for name, plan in plans.items()}
    )
    return {"runs": runs, "notes": [in_words(runs)]}


def in_words(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Return what the pairs came to, and what the checkpoints themselves say."""
    said = [f"checkpoints every {EVERY_SECONDS} s, {len(runs['with'])} pairs of runs"]
    for clock in ("cpu_seconds", "wall_seconds"):
        slower = [
            100 * (ours[clock] / theirs[clock] - 1) for ours, theirs in zip(runs["with"], runs["without"], strict=True)
        ]
        alone = [run[clock] for run in runs["without"]]
        said.append(
            f"{clock.replace('_', '-')} more by {measure.middle(slower, 1)} % (without, {measure.middle(alone, 1)})"
        )
    written = [row for run in runs["with"] for row in run["checkpoints"]]
    if written:
        blocked, writing = ([row[f"{name}_seconds"] for row in written] for name in ("blocked", "write"))
        share = 100 * (statistics.median(blocked) + statistics.median(writing)) / 60
        said.append(
            f"{len(written)} checkpoints of {written[-1]['size_bytes'] / 1e6:.1f} MB: training stood still for "
            f"{measure.middle([1e3 * s for s in blocked], 1)} ms, a thread wrote for "
            f"{measure.middle([1e3 * s for s in writing], 0)} ms; both together are {share:.2f} % of 60 s"
        )
    return "; ".join(said)
