"""94 % on CIFAR-10's test images on one accelerator: linne's recipe `speedrun` and the published record script.

Both sides train with other seeds, one run after another, in a process that is warm: a first run of each, in which
kernels are chosen and networks compiled, is shown apart. The sides run in one session, the record first.

linne: `linne.train("cifar10", recipe="speedrun")`, in the `WAYS` that `--ways` names: as it is typed, and with what a
user in a hurry would add, whose kernels are compiled and need not repeat. Its seconds are those of training, from the
first step to the last, with all that the loop does; "of the call" are those of the whole call: reading the set,
training, the test images, the report with its plots. `--tta flip` asks the test images once more, as means over an
image and its mirror image.

The record: airbench94_muon.py of github.com/KellerJordan/cifar10-airbench, named with `--record-script`; nothing of it
is here. Its seconds are those it prints: preparing its first layer, training, and the test images in six views; not its
validation after each epoch, nor reading the set. It has 200 runs and is ended after `--runs` of them. It needs CUDA,
torchvision, and the set in its own form, which this script writes.

With `--keep FILE` every result is kept as it comes, and one that is there is not measured again: call it once more, and
a session that was cut off goes on.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measure
from accelerator import Kept, describe

TARGET = 0.94
WAYS: dict[str, dict[str, Any]] = {
    "as typed": {},
    "compiled": {"device.compile": True, "device.determinism": "seeded", "log_every": 1000, "checkpoint.keep": None},
}


def linne_runs(options: argparse.Namespace, kept: Kept, recipe: str | None, source: Any, way: str) -> None:
    """Train until there are `--runs` results of linne in one of its ways, after one to warm up."""
    import linne

    overrides = WAYS[way] | dict(value.split("=", 1) for value in options.set)
    start = len(kept.of(side=way, warm=True))
    for seed in [-1, *range(start, options.runs)] if start < options.runs else []:
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            result = linne.train(
                source,
                recipe=recipe,
                epochs=options.epochs,
                device=options.device,
                seed=options.runs if seed < 0 else seed,
                output=f"{folder}/run",
                overrides=overrides,
                quiet=True,
            )
            whole = time.perf_counter() - begun
            assert result.report is not None
            assert result.bundle is not None
            accuracy = result.report.accuracy
            if options.tta is not None:
                views = {"tta": options.tta, "device": options.device, "quiet": True}
                accuracy = linne.evaluate(result.bundle, source, **views).accuracy
        kept.add(side=way, warm=seed >= 0, seconds=result.seconds, whole=whole, accuracy=accuracy)


def opened(options: argparse.Namespace) -> Any:
    """Return CIFAR-10, or the first `--images` of its training images and as many of its test images at most."""
    from linne import from_arrays, open_source

    source = open_source(measure.source_name("cifar10", options.data), val_fraction=None)
    if options.images is None:
        return source
    parts = [pixels_and_labels(source, name, options.images) for name in ("train", "test")]
    return from_arrays(*parts[0], test=parts[1], label_names=source.labels, val_fraction=None, name="cifar10")


def pixels_and_labels(source: Any, name: str, most: int | None = None) -> tuple[Any, Any]:
    """Return the first images of a split, uint8 NHWC, and their labels."""
    split = source.splits[name]
    return split.store.array[split.indices_N[:most]], split.labels_N[:most]


def record_runs(options: argparse.Namespace, kept: Kept, source: Any) -> None:
    """Let the record script train until there are `--runs` results of it, after one to warm up."""
    missing = options.runs - len(kept.of(side="record", warm=True))
    if missing <= 0:
        return
    with tempfile.TemporaryDirectory() as folder:
        write_for_record(source, Path(folder) / "cifar10")
        command = [sys.executable, str(options.record_script.resolve())]
        env = measure.environment({"PYTHONUNBUFFERED": "1"})
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=folder, env=env, start_new_session=True
        )
        assert child.stdout is not None
        try:
            # The first is its own, to warm up.
            for number, (accuracy, seconds) in enumerate(ends_of_runs(child.stdout)):
                kept.add(side="record", warm=number > 0, seconds=seconds, accuracy=accuracy)
                if number == missing:
                    break
            else:
                raise SystemExit(f"error: `{options.record_script}` ended with code {child.wait()} before its runs did")
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)  # compiling has processes of its own
            child.wait()


def ends_of_runs(lines: Any) -> Iterator[tuple[float, float]]:
    """Yield the test accuracy and the seconds of each run that the record script says is over."""
    for line in lines:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 6 and cells[1] == "eval":
            yield float(cells[4]), float(cells[5])


def write_for_record(source: Any, folder: Path) -> None:
    """Write the set as the record script keeps it."""
    import torch

    folder.mkdir(parents=True)
    for name in ("train", "test"):
        images_NHWC, labels_N = pixels_and_labels(source, name)
        held = {"images": torch.tensor(images_NHWC), "labels": torch.tensor(labels_N), "classes": list(source.labels)}
        torch.save(held, folder / f"{name}.pt")


def read_options() -> argparse.Namespace:
    """Return what was typed."""
    parser = measure.parser(__doc__, data=True)
    parser.add_argument("--record-script", type=Path, metavar="FILE", help="your copy of airbench94_muon.py")
    parser.add_argument("--recipe", default="speedrun", help="of linne; `none` leaves all to it; default speedrun")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="of linne, as `linne train`")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="of linne; default both")
    parser.add_argument("--device", default="auto", help="of linne; default auto")
    parser.add_argument("--tta", choices=["flip"], help="of linne's test images; default none")
    parser.add_argument("--runs", type=int, default=20, help="of each side, beside the first; default 20")
    parser.add_argument("--epochs", type=int, help="of linne; default the recipe's")
    parser.add_argument("--images", type=int, metavar="N", help="train on the first N only, to see that it runs")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="keep each result here, and go on from those there")
    options = parser.parse_args()
    if options.record_script is not None and not options.record_script.is_file():
        parser.error(f"no file `{options.record_script}`")
    if options.quick:
        options.runs, options.epochs, options.images = 1, 1, options.images or 2000
        options.ways = options.ways[:1]
    return options


def main() -> None:
    options = read_options()
    measure.use_checkout()
    from linne.device import Device
    from linne.recipes import RECIPES

    device = Device.pick(options.device)
    notes = [describe(device)]
    if options.recipe == "speedrun" and "speedrun" not in RECIPES:
        options.recipe = "none"
        notes.append("linne has no recipe called `speedrun`: its own choice was measured instead")
    recipe = None if options.recipe == "none" else options.recipe
    names = ("recipe", "set", "tta", "epochs", "images")
    settings = {name: getattr(options, name) for name in names} | {"device": device.name, "linne": measure.commit()}
    kept, source = Kept(options.keep, settings), opened(options)
    if options.record_script is not None:
        record_runs(options, kept, source)
    for way in options.ways:
        linne_runs(options, kept, recipe, source, way)
    print_results(kept, notes, options)


def print_results(kept: Kept, notes: list[str], options: argparse.Namespace) -> None:
    ours = "without a recipe" if options.recipe == "none" else f"recipe {options.recipe}"
    names = {way: f"linne, {ours}, {way}" for way in options.ways} | {"record": "the record script"}
    sides = {side: kept.of(side=side, warm=True) for side in names}
    medians = {side: statistics.median(run["seconds"] for run in runs) for side, runs in sides.items() if runs}
    rows = []
    for side, runs in sides.items():
        if not runs:
            rows.append([names[side], "0", *["not measured"] * 2, *[""] * 4])
            continue
        seconds, accuracies = ([run[key] for run in runs] for key in ("seconds", "accuracy"))
        cold = kept.of(side=side, warm=False)[0]["seconds"]
        whole = measure.middle([run["whole"] for run in runs]) if side in WAYS else ""
        ratio = f"{medians['record'] / medians[side]:.2f}" if "record" in medians else ""
        spread = f"{100 * statistics.mean(accuracies):.2f} %"
        if len(runs) > 1:
            spread += f" (standard deviation {100 * statistics.stdev(accuracies):.2f})"
        reached = "yes" if statistics.mean(accuracies) >= TARGET else "no"
        cells = [spread, reached, measure.middle(seconds, 3), f"{cold - medians[side]:.1f}", whole, ratio]
        rows.append([names[side], str(len(runs)), *cells])
    heads = ["side", "n", "mean test accuracy", "94 % or more", "s of training, warm"]
    if options.images is not None or options.epochs is not None:
        notes = [*notes, "on a part of the set or for other epochs: its numbers mean nothing"]
    measure.report(
        "CIFAR-10 to 94 % on one accelerator",
        [*heads, "s more in the first run", "s of the call", "record / this"],
        rows,
        notes=[*notes, "seconds: median (lowest-highest); required: at most those of the record at 94 % or more"],
        packages=["torch", "torchvision"],
        raw={"runs": kept.rows},
        options=options,
    )


if __name__ == "__main__":
    main()
