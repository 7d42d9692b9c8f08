"""What a recipe reaches on a set, and what each of its fields is worth there: test accuracy and time, by seed.

    python benchmarks/recipes.py cifar10 default fast "fast model.whiten=false"
    python benchmarks/recipes.py tiny default tiny-data --seeds 5

An ARM is a recipe's name, or `default` for none, and the fields that are given beside it. Arms take turns.

cifar10, fashion-mnist, digits   the whole set
tiny        50 images a class of CIFAR-10's training images (by the seed), all test images
long-tail   CIFAR-10 with 5,000 images in the first class and 50 in the last, falling geometrically (Cui et al. 2019,
            imbalance 100); all test images, on which every class counts the same

Accuracy is that of the test images, looked at once, when training is over; validation images are held out of training
as the recipe says.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure

IMAGES_A_CLASS = 50
MOST, LEAST = 5000, 50


def whole(name: str) -> Callable[[argparse.Namespace, int, float | None], Any]:
    """Return what opens the set `name`, the same for every seed."""

    def open_set(options: argparse.Namespace, seed: int, val_fraction: float | None) -> Any:
        from linne.data import open_source

        location = name if name == "digits" else measure.source_name(name, options.data)
        return open_source(location, val_fraction=val_fraction)

    return open_set


def part(counts: Callable[[int, int], int], name: str) -> Callable[[argparse.Namespace, int, float | None], Any]:
    """Return what opens `counts(class, classes)` training images of each class of CIFAR-10, chosen by the seed."""

    def open_part(options: argparse.Namespace, seed: int, val_fraction: float | None) -> Any:
        import numpy as np

        from linne import from_arrays
        from linne.data import open_source

        source = open_source(measure.source_name("cifar10", options.data), val_fraction=None)
        train, test = source.splits["train"], source.splits["test"]
        order = np.random.default_rng(seed).permutation(len(train))
        chosen = []
        for number in range(source.num_classes):
            mine = order[train.labels_N[order] == number]
            chosen.append(mine[: counts(number, source.num_classes)])
        taken = np.sort(np.concatenate(chosen))
        images, tested = train.store.array[train.indices_N[taken]], test.store.array[test.indices_N]
        return from_arrays(
            images,
            train.labels_N[taken],
            test=(tested, test.labels_N),
            label_names=source.labels,
            val_fraction=val_fraction,
            name=name,
        )

    return open_part


TASKS = {
    "cifar10": whole("cifar10"),
    "fashion-mnist": whole("fashion-mnist"),
    "digits": whole("digits"),
    "tiny": part(lambda number, classes: IMAGES_A_CLASS, "cifar10-tiny"),
    "long-tail": part(lambda number, classes: round(MOST * (LEAST / MOST) ** (number / (classes - 1))), "cifar10-lt"),
}


def train_arm(options: argparse.Namespace, arm: str, seed: int) -> dict[str, Any]:
    """Return what one training of `arm` reached and took."""
    import linne
    from linne.recipe import parse_value
    from linne.recipes import read_recipe

    recipe, *fields = [*arm.split(), *options.set]
    given = dict(field.partition("=")[::2] for field in fields)
    if options.quick:
        given |= {"optim.epochs": "1", "model.width": "0.2"}
    fixed = {} if recipe == "default" else read_recipe(recipe)
    fixed |= {path: parse_value(path, value) for path, value in given.items()}
    source = TASKS[options.task](options, seed, fixed.get("data.val_fraction", 0.1))
    with tempfile.TemporaryDirectory() as folder, measure.timed() as timing:
        result = linne.train(
            source,
            recipe=None if recipe == "default" else recipe,
            overrides=given,
            seed=seed,
            device=options.device,
            output=Path(folder) / "run",
            quiet=True,
        )
    assert result.report is not None
    rows = result.report.to_dict()
    found = {
        "accuracy": result.report.accuracy,
        "worst_class": min(row["recall"] for row in rows["per_class"]),
        "seconds": result.seconds,
        "program": timing.to_dict(),
    }
    print(f"{arm}, seed {seed}: {measure.percent(found['accuracy'])}, {found['seconds']:.1f} s", flush=True)
    return found


def main() -> None:
    parser = measure.parser(__doc__, data=True)
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("arms", nargs="+", metavar="ARM")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from --first-seed on")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="for every arm")
    parser.add_argument("--device", help="as for `linne train`")
    options = parser.parse_args()
    measure.use_checkout()
    seeds = range(options.first_seed, options.first_seed + (1 if options.quick else options.seeds))
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in options.arms}
    for seed in seeds:
        for arm in options.arms:
            found[arm].append(train_arm(options, arm, seed))
    rows = []
    base = statistics.mean(run["accuracy"] for run in found[options.arms[0]])
    for arm, runs in found.items():
        accuracies = [100 * run["accuracy"] for run in runs]
        spread = f" ± {statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
        worst = statistics.mean(100 * run["worst_class"] for run in runs)
        gain = statistics.mean(accuracies) - 100 * base
        seconds = [run["seconds"] for run in runs]
        cpu = [run["program"]["cpu_seconds"] for run in runs]
        shown = f"{statistics.mean(accuracies):.2f} %{spread}"
        rows.append([arm, shown, f"{gain:+.2f}", f"{worst:.1f} %", measure.middle(seconds, 1), measure.middle(cpu, 1)])
    measure.report(
        f"Recipes on {options.task}, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}",
        ["arm", "test accuracy", "points", "worst class", "s of training", "CPU-s of the program"],
        rows,
        notes=["points: against the first arm; ±: standard deviation over the seeds; seconds: median (lowest-highest)"],
        packages=("torch", "timm"),
        raw=found,
        options=options,
    )


if __name__ == "__main__":
    main()
