"""What training on smaller images at first (`augment.size_start`) buys in time and costs in accuracy, on CIFAR-10.

Every side trains the same network with the same recipe on one thread, over the same images; only the size of the
training images differs, and the epochs of `full in less`, which takes about as long as growing images do: three
quarters. Sides take turns, a seed each turn. `full` is the recipe as it is.

CPU-seconds are those of training: steps and validations from the first to the last, with laying out the pixels and
without the test. The test is made on images of full size by the finished bundle.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import measure

SHORTER = 0.75
SIDES: dict[str, dict[str, Any]] = {
    "full": {},
    "full in less": {},
    "grown from 1/2": {"augment.size_start": 0.5},
    "grown from 3/4": {"augment.size_start": 0.75},
    "at 3/4": {"augment.size_start": 0.75, "augment.size_end": 0.75},
    "at 3/4 then tuned": {"augment.size_start": 0.75, "augment.size_end": 0.75, "augment.size_tune_epochs": 1},
}


def train(source: Any, changes: dict[str, Any], epochs: int, seeds: Iterator[int]) -> dict[str, float]:
    """Return seconds and accuracies of one training with the next seed."""
    from linne.evaluation import evaluate
    from linne.inference.backends.base import RunOptions
    from linne.inference.predictor import Predictor
    from linne.log import Narrator, Run
    from linne.planning import make_plan
    from linne.training.loop import train as run_training

    given = {"data.source": source.name, "optim.epochs": epochs, "seed": next(seeds), **changes}
    given |= {"device.name": "cpu", "device.num_threads": 1, "device.precision": "fp32", "checkpoint.keep": None}
    plan = make_plan(given, {}, source=source)
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", "run")
        with measure.timed() as timing:
            trained = run_training(plan.recipe, plan.source, run, Narrator(quiet=True))
        run.close()
        report, _ = evaluate(Predictor.open(trained.bundle, how=RunOptions(device="cpu")), plan.source, "test")
    scores = {"test": report.accuracy, "val": trained.kept.scores.accuracy, "kept": trained.kept.epoch}
    print(f"{changes}, {epochs} epochs: {timing.cpu:.0f} CPU-s, {scores}", file=sys.stderr, flush=True)
    return {**timing.to_dict(), **scores}


def first_images(source: Any, count: int) -> Any:
    """Return `source` with only the first `count` images to train on."""
    split, first = source.splits["train"], slice(count)
    split = dataclasses.replace(split, indices_N=split.indices_N[first], labels_N=split.labels_N[first])
    return dataclasses.replace(source, splits={**source.splits, "train": split})


def make_rows(found: dict[str, list[dict[str, float]]]) -> list[list[str]]:
    """Return a row for each side, compared with the first one seed by seed."""
    rows, base = [], next(iter(found.values()))
    for name, trainings in found.items():
        ratios = [run["cpu_seconds"] / full["cpu_seconds"] for run, full in zip(trainings, base, strict=True)]
        points = [100 * (run["test"] - full["test"]) for run, full in zip(trainings, base, strict=True)]
        cpu, test = [run["cpu_seconds"] for run in trainings], [100 * run["test"] for run in trainings]
        rows.append([name, measure.middle(cpu, 0), measure.middle(ratios), measure.middle(test)])
        rows[-1].append(f"{statistics.fmean(points):+.2f}")
    return rows


def main() -> None:
    """Train every side and print the table."""
    parser = measure.parser(__doc__, data=True)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=50_000, help="train on so many, the first ones")
    parser.add_argument("--sides", default=",".join(SIDES), help="names with commas between; the first is the base")
    options = parser.parse_args()
    from linne.data import open_source

    name = "synthetic:size=32,count=400" if options.quick else measure.source_name("cifar10", options.data)
    source = first_images(open_source(name), options.images)
    epochs, rounds = (2, 1) if options.quick else (options.epochs, options.rounds)
    shorter = round(SHORTER * epochs)
    runs = {
        side: partial(train, source, SIDES[side], shorter if "less" in side else epochs, iter(range(rounds)))
        for side in options.sides.split(",")
    }
    found = measure.interleave(rounds, runs)
    measure.report(
        "Growing images, CIFAR-10",
        ["side", "CPU-seconds", "of full", "% of test right", "difference in points, mean"],
        make_rows(found),
        notes=[
            f"{len(source.splits['train']):,} training images, {epochs} epochs, of `full in less` {shorter}",
            f"n = {rounds} seeds, the same for each side; median (lowest-highest)",
        ],
        packages=["torch"],
        raw=found,
        options=options,
    )


if __name__ == "__main__":
    main()
