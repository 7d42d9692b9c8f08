"""CIFAR-10 by the command line of DirectML's samples: as they compute, corrected, and by linne's own training.

faithful   `linne compat directml train --faithful`: the samples' arithmetic with its faults. That it is theirs to the
           bit is tested (tests/pipeline/test_directml_samples.py), so it stands for them.
corrected  the same without --faithful
linne      `linne train cifar10` with the same network and as many epochs; the rest is linne's choice

Each in a process of its own, in turn, for each seed. Times are of whole programs, imports included; accuracies are on
the test images: of the samples' last epoch and of their best one, which the test images chose; linne's is of the epoch
that its validation images chose, looked at once.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import measure

ROW_BYTES = 3073
NAMES = (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin")


def write_part(source: Path, folder: Path, images: int, tests: int) -> None:
    """Write the first images of CIFAR-10's files to `folder`, a fifth of `images` from each of the five."""
    folder.mkdir(parents=True)
    for name in NAMES:
        count = tests if name == "test_batch.bin" else images // 5
        with open(source / name, "rb") as whole:
            (folder / name).write_bytes(whole.read(count * ROW_BYTES))


def linne_command(*words: object) -> list[str]:
    return [sys.executable, "-m", "linne", *map(str, words)]


def compat(options: argparse.Namespace, folder: Path, seed: int, *more: str) -> dict[str, Any]:
    """Return time and accuracies of the samples' command line."""
    command = linne_command("compat", "directml", "train", "--path", folder, "--model", options.model, "--seed", seed)
    command += ["--device", options.device, "--epochs", str(options.epochs), *more]
    timing, printed = measure.run_child(command, environment(options))
    accuracies = [float(text) for text in re.findall(r"Accuracy: ([0-9.]+)%", printed)]
    best = re.search(r"Done! with highest_accuracy:  ([0-9.e-]+)", printed)
    assert best is not None
    return {**timing.to_dict(), "accuracy": accuracies[-1] / 100, "best": float(best[1]), "epochs": accuracies}


def linne(options: argparse.Namespace, folder: Path, seed: int) -> dict[str, Any]:
    """Return time and accuracy of linne's own training."""
    with tempfile.TemporaryDirectory() as runs:
        words = ["train", f"cifar10:{folder}", "--model", f"torchvision/{options.model}", "--seed", seed, "--json"]
        words += ["--epochs", options.epochs, "--device", options.device, "--output", f"{runs}/run", "--quiet"]
        timing, printed = measure.run_child(linne_command(*words), environment(options))
        recipe = json.loads((Path(runs) / "run" / "recipe.json").read_text())["recipe"]
    found = json.loads(printed)["evaluation"]["accuracy"]
    return {**timing.to_dict(), "accuracy": found, "best": None, "recipe": recipe}


def environment(options: argparse.Namespace) -> dict[str, str | None]:
    return measure.checkout_env(**measure.threads_env(options.threads))


def main() -> None:
    parser = measure.parser(__doc__, data=True)
    parser.add_argument("--model", default="resnet50", help="one of the samples' sixteen")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=50_000, help="training images, a multiple of 5")
    parser.add_argument("--tests", type=int, default=10_000, help="test images")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, help="for all; without it each side's own choice")
    options = parser.parse_args()
    if options.quick:
        options.model, options.epochs, options.images, options.tests = "mobilenet_v3_small", 2, 100, 50
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "cifar"
        write_part(official_folder(options.data), folder, options.images, options.tests)
        sides = {
            "the samples (faithful)": lambda seed: compat(options, folder, seed, "--faithful"),
            "corrected": lambda seed: compat(options, folder, seed),
            "linne train": lambda seed: linne(options, folder, seed),
        }
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        for seed in range(options.seeds):
            for name, run in sides.items():
                results[name].append(run(seed))
    print_results(results, options)


def official_folder(data: str | None) -> Path:
    """Return the folder with CIFAR-10's binary files."""
    measure.use_checkout()
    from linne.data.places import locate
    from linne.data.sources.cifar import CIFAR10

    return locate(CIFAR10, data, None)["test_batch.bin"].parent


def print_results(results: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> None:
    ours = statistics.median(run["wall_seconds"] for run in results["linne train"])
    rows = []
    for name, runs in results.items():
        wall = [run["wall_seconds"] for run in runs]
        best = [100 * run["best"] for run in runs if run["best"] is not None]
        rows.append(
            [
                name,
                measure.middle(wall, 1),
                measure.middle([run["cpu_seconds"] for run in runs], 1),
                measure.middle([100 * run["accuracy"] for run in runs]),
                measure.middle(best) if best else "-",
                f"{statistics.median(wall) / ours:.1f}x",
            ]
        )
    size = results["linne train"][0]["recipe"]["data"]["height"]
    measure.report(
        f"{options.model}, {options.epochs} epochs of CIFAR-10, {options.images:,} images, on {options.device}",
        ["way", "wall s", "CPU s", "test %, last or chosen", "test %, best of all epochs", "wall / linne"],
        rows,
        notes=[
            f"seeds: {options.seeds}; each side in turn for each; {options.tests:,} test images",
            f"the samples train at 224 pixels (inception_v3 at 299), linne at {size} by its own choice",
            "the best of all epochs is chosen by the test images, and so too high",
        ],
        packages=["torch", "torchvision"],
        raw=results,
        options=options,
    )


if __name__ == "__main__":
    main()
