"""Fashion-MNIST: seconds an epoch of Keras 3 `model.fit` and of linne for the same small network; then linne's own
recipe against ten epochs of Keras' tutorial.

The network of Keras' first tutorial: Flatten, Dense 128 with ReLU, Dense 10; Adam with lr 1e-3, batches of 32, 60,000
pictures an epoch, no augmentation, no validation. linne runs it as `--recipe fashion-mnist-dense`. Both
sides are child processes that wait for each other between epochs: Keras, linne, Keras, linne. An epoch of Keras is
the time between two callbacks of one `fit` call (its pictures are float32 in memory, its progress bar is off); an epoch
of linne is the time between two ends of an epoch in its loop, logging and keeping the weights included. The first
epoch of Keras builds its graph; medians are given, so it does not count, and the sum of all epochs, where it does.

Keras runs on TensorFlow for CPUs in an environment of its own, which the script makes (500 MB from the package index)
or is given with --keras-python.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

import measure

EPOCHS = 10


def keras_side(options: argparse.Namespace) -> None:
    """Train Keras' tutorial network, an epoch each time the parent says so; runs under Keras' own Python."""
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}
    started = time.perf_counter()
    import keras
    import numpy as np
    import tensorflow as tf

    if options.threads is not None:
        tf.config.threading.set_intra_op_parallelism_threads(options.threads)
        tf.config.threading.set_inter_op_parallelism_threads(options.threads)
    keras.utils.set_random_seed(options.seed)
    arrays = dict(np.load(options.arrays))
    # The tutorial divides to float64, which Keras then converts batch by batch; float32 is faster for it.
    train_x, test_x = (arrays[name].astype("float32") / 255.0 for name in ("train_x", "test_x"))
    train_y, test_y = arrays["train_y"], arrays["test_y"]
    layers = [keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(128, activation="relu")]
    model = keras.Sequential([*layers, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=loss, metrics=["accuracy"])

    class Paced(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if options.paced:
                measure.wait_for_go()
            self.wall, self.cpu = time.perf_counter(), measure.cpu_seconds()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            wall, cpu = time.perf_counter() - self.wall, measure.cpu_seconds() - self.cpu
            measure.say(wall_seconds=wall, cpu_seconds=cpu, loss=float(logs["loss"]))

    found = {"keras": keras.__version__, "tensorflow": tf.__version__, "python": sys.version.split()[0]}
    measure.say(ready=True, versions=found, preparing_seconds=time.perf_counter() - started)
    model.fit(train_x, train_y, epochs=options.epochs, batch_size=32, verbose=0, callbacks=[Paced()])
    if options.paced:
        measure.wait_for_go()
    _, accuracy = model.evaluate(test_x, test_y, verbose=0)
    measure.say(accuracy=float(accuracy))


def linne_side(options: argparse.Namespace) -> None:
    """Train the same network with linne's loop, an epoch each time the parent says so."""
    measure.use_checkout()
    from linne.evaluation import evaluate
    from linne.inference.backends.base import RunOptions
    from linne.inference.predictor import Predictor
    from linne.log import Narrator, Run
    from linne.planning import collect, make_plan
    from linne.training.loop import train

    class Paced(Narrator):
        """Waits before each epoch, and tells the parent what it took."""

        def epoch_header(self) -> None:
            self._begin()

        def epoch(self, row: Any, epochs: int, images_per_second: float) -> None:
            wall, cpu = time.perf_counter() - self.wall, measure.cpu_seconds() - self.cpu
            measure.say(wall_seconds=wall, cpu_seconds=cpu, loss=row["train_loss"])
            if row["epoch"] < epochs:
                self._begin()

        def _begin(self) -> None:
            measure.wait_for_go()
            self.wall, self.cpu = time.perf_counter(), measure.cpu_seconds()

    overrides = {"data.val_fraction": "none", "seed": options.seed, "optim.epochs": options.epochs}
    if options.threads is not None:
        overrides["device.num_threads"] = options.threads
    source = measure.source_name("fashion-mnist", options.data)
    given, reasons = collect(source, "fashion-mnist-dense", {"device.name": "cpu"}, overrides)
    plan = make_plan(given, reasons)
    measure.say(ready=True, threads=plan.recipe.device.num_threads)
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", "mlp")
        trained = train(plan.recipe, plan.source, run, Paced(quiet=True))
        run.close()
        measure.wait_for_go()
        assert trained.bundle is not None
        found, _ = evaluate(Predictor.open(trained.bundle, how=RunOptions(device="cpu")), plan.source, "test")
    measure.say(accuracy=found.accuracy)


def same_network(options: argparse.Namespace, arrays: Path, threads: int | None, seed: int) -> dict[str, Any]:
    """Return what both sides took for each epoch, and reached, taking turns."""
    common = ["--epochs", str(options.epochs), "--seed", str(seed), "--paced"]
    common += [] if threads is None else ["--threads", str(threads)]
    here = str(Path(__file__).resolve())
    env = measure.threads_env(threads)
    ours = [sys.executable, here, "--side", "linne", *common, *(["--data", options.data] if options.data else [])]
    theirs = [options.keras_python, here, "--side", "keras", *common, "--arrays", str(arrays)]
    sides = {"Keras": measure.Paced(theirs, env), "linne": measure.Paced(ours, measure.checkout_env(**env))}
    result: dict[str, Any] = {name: {"ready": side.answer(), "epochs": []} for name, side in sides.items()}
    for _ in range(options.epochs):
        for name, side in sides.items():
            result[name]["epochs"].append(side.go())
    for name, side in sides.items():
        result[name] |= side.go()
        side.close()
    return result


def own_recipe(options: argparse.Namespace, arrays: Path) -> dict[str, dict[str, Any]]:
    """Return wall seconds and accuracy of a whole `linne train`, and of Keras' tutorial as a whole program."""
    here = str(Path(__file__).resolve())
    theirs = [options.keras_python, here, "--side", "keras", "--epochs", str(options.epochs), "--arrays", str(arrays)]
    env = measure.threads_env(None)
    whole, printed = measure.run_child(theirs, env)
    answers = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    fitted = [answer for answer in answers if "wall_seconds" in answer]
    keras = {
        "whole": whole.to_dict(),
        "training": {key: sum(answer[key] for answer in fitted) for key in ("wall_seconds", "cpu_seconds")},
        "accuracy": answers[-1]["accuracy"],
    }
    with tempfile.TemporaryDirectory() as folder:
        source = measure.source_name("fashion-mnist", options.data)
        ours = [sys.executable, "-m", "linne", "train", source, "--output", f"{folder}/run", "--json", "--quiet"]
        ours += ["--epochs", "1", "--model", "mlp"] if options.quick else []
        whole, printed = measure.run_child(ours, measure.checkout_env(**env))
        recipe = json.loads((Path(folder) / "run" / "recipe.json").read_text())["recipe"]
    result = json.loads(printed)
    linne = {
        "whole": whole.to_dict(),
        "training": {"wall_seconds": result["seconds"]},
        "accuracy": result["evaluation"]["accuracy"],
        "epochs": recipe["optim"]["epochs"],
        "recipe": recipe,
    }
    return {"Keras tutorial": keras, "linne train": linne}


def save_arrays(options: argparse.Namespace, path: Path) -> None:
    """Write the set as numpy arrays for Keras' side, whose own loader would download it."""
    measure.use_checkout()
    import numpy as np

    from linne.data import open_source

    source = open_source(measure.source_name("fashion-mnist", options.data), val_fraction=None)
    arrays = {}
    for name in ("train", "test"):
        split = source.splits[name]
        assert split.store.array is not None
        limit = 640 if options.quick else len(split)
        arrays[f"{name}_x"] = split.store.array[split.indices_N[:limit], ..., 0]
        arrays[f"{name}_y"] = split.labels_N[:limit]
    np.savez(path, **arrays)


def make_keras(folder: Path) -> str:
    """Return the Python of an environment with Keras and TensorFlow, made if it is not there."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        print(f"making an environment with tensorflow-cpu in {folder} ...", file=sys.stderr)
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "tensorflow-cpu"], check=True)
    return str(python)


def main() -> None:
    parser = measure.parser(__doc__, data=True)
    parser.add_argument("--keras-python", metavar="PATH", help="a Python that has keras and tensorflow")
    parser.add_argument("--rounds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--skip-own-recipe", action="store_true", help="only the same network on both sides")
    parser.add_argument("--only-own-recipe", action="store_true", help="only linne's own choice against the tutorial")
    hidden = {"help": argparse.SUPPRESS}
    parser.add_argument("--side", choices=["keras", "linne"], **hidden)
    parser.add_argument("--threads", type=int, **hidden)
    parser.add_argument("--seed", type=int, default=0, **hidden)
    parser.add_argument("--arrays", type=Path, **hidden)
    parser.add_argument("--paced", action="store_true", **hidden)
    options = parser.parse_args()
    if options.side is not None:
        return keras_side(options) if options.side == "keras" else linne_side(options)
    if options.quick:
        options.rounds, options.epochs = 1, 2
    options.keras_python = options.keras_python or make_keras(measure.CHECKOUT / "build" / "venv-keras")

    raw: dict[str, Any] = {"same network": {}, "own recipe": []}
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder) / "fashion.npz"
        save_arrays(options, arrays)
        for threads in () if options.only_own_recipe else (None, 1):
            rounds = [same_network(options, arrays, threads, seed) for seed in range(options.rounds)]
            raw["same network"]["default" if threads is None else "1"] = rounds
        if not options.skip_own_recipe:
            raw["own recipe"] = [own_recipe(options, arrays) for _ in range(options.rounds)]
    if raw["same network"]:
        print_same_network(raw["same network"], options)
    if raw["own recipe"]:
        print_own_recipe(raw["own recipe"], options)
    return None


def print_same_network(by_threads: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> None:
    """Print seconds an epoch of the same network."""
    rows = []
    for threads, rounds in by_threads.items():
        medians: dict[str, dict[str, float]] = {}
        for name in ("Keras", "linne"):
            epochs = [epoch for one in rounds for epoch in one[name]["epochs"]]
            wall, cpu = ([epoch[key] for epoch in epochs] for key in ("wall_seconds", "cpu_seconds"))
            medians[name] = {"wall": statistics.median(wall), "cpu": statistics.median(cpu)}
            sums = [sum(epoch["wall_seconds"] for epoch in one[name]["epochs"]) for one in rounds]
            accuracy = [one[name]["accuracy"] for one in rounds]
            ratio = "" if name == "Keras" else f"{medians['Keras']['wall'] / medians['linne']['wall']:.2f}x"
            ratio_cpu = "" if name == "Keras" else f"{medians['Keras']['cpu'] / medians['linne']['cpu']:.2f}x"
            shown = f"{measure.percent(statistics.mean(accuracy))} ({measure.percent(min(accuracy))})"
            cells = [measure.middle(wall), measure.middle(cpu), measure.middle(sums, 1), shown, ratio, ratio_cpu]
            rows.append([name, threads, *cells])
    found = ", ".join(f"{k} {v}" for k, v in rounds[0]["Keras"]["ready"]["versions"].items())
    threads = by_threads["default"][0]["linne"]["ready"]["threads"]
    heads = [
        "side",
        "threads",
        "wall s an epoch, median (spread)",
        "CPU-s an epoch",
        f"{options.epochs} epochs, wall s",
    ]
    measure.report(
        "Fashion-MNIST, Flatten-Dense128-Dense10, batch 32, Adam",
        [*heads, "test, mean (lowest)", "wall ratio", "CPU ratio"],
        rows,
        notes=[
            f"{options.rounds} trainings of {options.epochs} epochs a side and number of threads, epochs taking turns",
            f"Keras' side: {found}",
            f"threads `default`: what each side chooses by itself; linne chose {threads}",
        ],
        packages=["torch"],
        raw=by_threads,
        options=options,
    )


def print_own_recipe(rounds: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Print what linne's own choice takes and reaches, beside ten epochs of Keras."""
    rows = []
    for name in rounds[0]:
        runs = [one[name] for one in rounds]
        accuracy = [run["accuracy"] for run in runs]
        shown = f"{measure.percent(statistics.mean(accuracy))} ({measure.percent(min(accuracy))})"
        seconds = [measure.middle([run[part]["wall_seconds"] for run in runs], 1) for part in ("training", "whole")]
        cpu = measure.middle([run["whole"]["cpu_seconds"] for run in runs], 1)
        rows.append([name, str(runs[0].get("epochs", options.epochs)), *seconds, cpu, shown])
    options.output = None if options.output is None else options.output.with_name(f"own-recipe-{options.output.name}")
    measure.report(
        "Fashion-MNIST: `linne train fashion-mnist` against Keras' tutorial",
        ["side", "epochs", "training, wall s", "whole program, wall s", "whole program, CPU-s", "test, mean (lowest)"],
        rows,
        notes=[
            f"{len(rounds)} runs a side, taking turns; same seed: linne's differ only in time",
            "whole program: imports, reading, training, evaluation; linne's also plots, report and bundle",
        ],
        packages=["torch"],
        raw={"rounds": rounds},
        options=options,
    )


if __name__ == "__main__":
    main()
