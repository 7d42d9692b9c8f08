"""Seconds to 85 % on CIFAR-10's test images on this CPU: linne, and timm's own train.py with ResNet-18 at 32 pixels.

linne: `linne train cifar10` with `--recipe` and `--set`, run to its end. Its time is that of the whole training, and
that of the whole program beside it; its accuracy is that of the test images, looked at once, when training is over.

timm: train.py is not in timm's package. Get the one of your timm's version and name it with `--timm-train`:

    https://github.com/huggingface/pytorch-image-models, file train.py, the tag of the version installed

It reads the same images from PNG files without compression, which this script writes, with the settings that timm's
documentation (hfdocs/source/training_script.mdx, "SE-ResNeXt-26-D and SE-ResNeXt-26-T") calls good for a wide range of
ResNets, and does so in several `WAYS`, of which the fastest counts. A whole run would take hours: the rate is measured
for `--seconds` in all, half before linne and half after, and multiplied by a number of epochs, which `EPOCHS_TO_TARGET`
states with its source; `--timm-summary` reads it from the summary.csv of a whole run of yours. Its validation passes
and its start are left out of its time.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
from cifar10_baselines import NUM_TRAIN, linne_run

TARGET = 0.85
BATCH = 112
DOCUMENTED = [
    *("--lr", "0.1", "--warmup-epochs", "5", "--epochs", "160", "--weight-decay", "1e-4", "--sched", "cosine"),
    *("--reprob", "0.4", "--remode", "pixel", "-b", str(BATCH)),
]
WAYS: dict[str, list[str]] = {
    "fp32": [],
    "fp32, channels_last": ["--channels-last"],
    "bf16 AMP, channels_last": ["--channels-last", "--amp", "--amp-dtype", "bfloat16"],
}
LINE = re.compile(r"Train: (\d+) \[\s*(\d+)/(\d+)")


@dataclass(frozen=True)
class Epochs:
    """How many epochs a run of the other side needs to the target."""

    number: int
    reached: bool
    """False where a whole schedule of so many ended below the target: a bound."""
    source: str


EPOCHS_TO_TARGET = [
    Epochs(
        18,
        reached=False,
        source="a bound: 82.34 % at most in a whole run of train.py here (timm 1.0.29.dev0 at aa4b5850) with "
        "milder settings than the documented ones, which suit so short a run: 18 epochs, cosine to 0, one of warm-up, "
        "batches of 128, weight decay 5e-4, crops of half the area or more, no colour jitter, no erasing "
        "(docs/benchmarks/README.md)",
    ),
    Epochs(
        80,
        reached=True,
        source="published for this network: torchvision's ResNet-18 at 32 pixels, unchanged, batches of 100, Adam, "
        "shifts and flips reaches 85.85 % after 80 epochs (84.50 to 85.46 % on several cards); earlier epochs are not "
        "stated: "
        "github.com/hpcaitech/ColossalAI, examples/images/resnet/README.md",
    ),
]


def write_pngs(folder: Path, data: str | None) -> None:
    """Write CIFAR-10 as `train` and `validation` folders of PNGs without compression, which decode fastest."""
    measure.use_checkout()
    from PIL import Image

    from linne.data import open_source

    source = open_source(measure.source_name("cifar10", data), val_fraction=None)
    for split, name in (("train", "train"), ("test", "validation")):
        found = source.splits[split]
        assert found.store.array is not None
        for number, (row, label) in enumerate(zip(found.indices_N, found.labels_N, strict=True)):
            place = folder / name / source.labels[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(found.store.array[row]).save(place / f"{number:05d}.png", compress_level=0)


def timm_rate(options: argparse.Namespace, way: str, seconds: float, images: Path) -> dict[str, Any]:
    """Return how many images timm's train.py trained, and in what time, between the lines of its own log.

    Raises:
        SystemExit: it ended, or said nothing of its steps for `seconds` and five minutes more.
    """
    command = [sys.executable, str(options.timm_train), "--data-dir", str(images), "--model", "resnet18"]
    command += ["--num-classes", "10", "--input-size", "3", "32", "32", "--device", "cpu", "-j", str(options.workers)]
    command += [*options.timm_options, *WAYS[way], "--log-interval", str(1 if options.quick else 10)]
    command += ["--output", str(images.parent / "timm"), "--experiment", f"rate-{time.monotonic_ns()}"]
    env = measure.environment({**measure.threads_env(options.threads), "PYTHONUNBUFFERED": "1"})
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, start_new_session=True
    )
    assert child.stdout is not None
    said: list[str] = []
    trained, taken, start = 0, 0.0, time.perf_counter()
    before: tuple[int, int, float] | None = None
    try:
        for line in child.stdout:
            said.append(line)
            now, found = time.perf_counter(), LINE.search(line)
            if found is not None:
                epoch, step = int(found[1]), int(found[2])
                if before is not None and before[0] == epoch:  # between epochs it validates
                    trained += (step - before[1]) * options.timm_batch
                    taken += now - before[2]
                before = epoch, step, now
            if taken >= seconds or now - start > seconds + 300:
                break
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # its loader's processes are of its group
        child.wait()
    if not trained:
        sys.stderr.write("".join(said[-30:]))
        raise SystemExit(f"error: `{options.timm_train}` printed no two steps of an epoch")
    return {"images": trained, "wall_seconds": taken}


def first_epoch_at(summary: Path, target: float) -> Epochs:
    """Return the epochs that a run of timm's train.py needed, by the summary.csv it leaves."""
    with summary.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    best = max(float(row["eval_top1"]) for row in rows)
    for row in rows:
        if float(row["eval_top1"]) >= 100 * target:
            return Epochs(int(row["epoch"]) + 1, True, f"{summary}: {float(row['eval_top1']):.2f} % after it")
    return Epochs(len(rows), False, f"{summary}: {best:.2f} % at most")


def linne_arguments(options: argparse.Namespace) -> tuple[list[str], str]:
    """Return what `linne train cifar10` gets, and a note about it; without the default recipe, linne's own choice."""
    measure.use_checkout()
    from linne.recipes import RECIPES

    sets = [word for value in options.set for word in ("--set", value)]
    if options.recipe is None or (options.recipe == "speedrun" and "speedrun" not in RECIPES):
        return sets, "linne without a named recipe" + (": it has none called `speedrun`" if options.recipe else "")
    return ["--recipe", options.recipe, *sets], f"linne's recipe `{options.recipe}`"


def read_options() -> argparse.Namespace:
    """Return what was typed, complete."""
    parser = measure.parser(__doc__, data=True)
    parser.add_argument("--timm-train", type=Path, required=True, metavar="FILE", help="your copy of timm's train.py")
    parser.add_argument("--recipe", default="speedrun", help="of linne; `none` leaves all to it; default speedrun")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="of linne, as `linne train`")
    parser.add_argument("--linne-runs", type=int, default=3, metavar="N")
    parser.add_argument("--seconds", type=float, default=180.0, help="of timm, in all; default 180")
    parser.add_argument("--threads", type=int, help="for both; without it each side's own choice")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="of timm's loader; default: the cores")
    parser.add_argument("--timm-batch", type=int, default=BATCH, help=argparse.SUPPRESS)
    parser.add_argument("--timm-summary", type=Path, metavar="FILE", help="summary.csv of a whole run of train.py")
    more = "replaces the documented settings"
    parser.add_argument("--timm-options", nargs=argparse.REMAINDER, default=DOCUMENTED, help=more)
    options = parser.parse_args()
    options.recipe = None if options.recipe == "none" else options.recipe
    if not options.timm_train.is_file():
        parser.error(f"no file `{options.timm_train}`: get train.py of your timm's version, see --help")
    return options


def main() -> None:
    options = read_options()
    options.linne_options, about_linne = linne_arguments(options)
    half = (2.0 if options.quick else options.seconds) / 2
    with tempfile.TemporaryDirectory() as scratch:
        images = Path(scratch) / "images"
        write_pngs(images, options.data)
        rates = {way: [timm_rate(options, way, half / len(WAYS), images)] for way in WAYS}
        fastest = max(rates, key=lambda way: per_second(rates[way]))
        ours = [linne_run(options) for _ in range(1 if options.quick else options.linne_runs)]
        rates[fastest].append(timm_rate(options, fastest, half, images))
    print_results(rates, fastest, ours, about_linne, options)


def per_second(turns: list[dict[str, Any]]) -> float:
    """Return images a second over all turns."""
    return float(sum(turn["images"] for turn in turns) / sum(turn["wall_seconds"] for turn in turns))


def print_results(
    rates: dict[str, list[dict[str, Any]]],
    fastest: str,
    ours: list[dict[str, Any]],
    about_linne: str,
    options: argparse.Namespace,
) -> None:
    needed = EPOCHS_TO_TARGET if options.timm_summary is None else [first_epoch_at(options.timm_summary, TARGET)]
    seconds = [run["training_seconds"] for run in ours]
    whole = [run["whole"]["wall_seconds"] for run in ours]
    accuracies = [run["accuracy"] for run in ours]
    reached = sum(accuracy >= TARGET for accuracy in accuracies)
    recipe = ours[0]["recipe"]
    visits = f"{recipe['optim']['epochs']} epochs of {recipe['model']['name']}"
    ours_say = measure.middle([100 * accuracy for accuracy in accuracies])
    rows = [["linne", visits, "", measure.middle(seconds, 1), measure.middle(whole, 1), f"{ours_say} %", ""]]
    for way, turns in rates.items():
        spread = measure.middle([turn["images"] / turn["wall_seconds"] for turn in turns], 1)
        for epochs in needed if way == fastest else []:
            projected, bound = epochs.number * NUM_TRAIN / per_second(turns), "" if epochs.reached else "> "
            ratio = (
                f"{bound}{projected / statistics.median(seconds):.1f}x" if reached == len(ours) else "not comparable"
            )
            cells = [f"{bound}{epochs.number} epochs, projected", spread, f"{bound}{projected:,.0f}", "", "85 %", ratio]
            rows.append([f"timm, {way} (fastest)", *cells])
        if way != fastest:
            rows.append([f"timm, {way}", "", spread, "", "", "", ""])
    notes = [
        f"{about_linne}; {reached} of {len(ours)} runs reached 85 %; seconds of training, all of it",
        *(
            f"timm's epochs, {'' if epochs.reached else 'more than '}{epochs.number}: {epochs.source}"
            for epochs in needed
        ),
        f"timm's train.py with {' '.join(options.timm_options)}; {options.workers} loader processes",
    ]
    heads = ["side", "what", "images/s", "s of training", "s of the program", "test accuracy", "timm / linne"]
    measure.report(
        "CIFAR-10 to 85 % test on a CPU: linne and timm's train.py",
        heads,
        rows,
        notes=notes,
        packages=["torch", "timm", "torchvision"],
        raw={"timm": rates, "fastest": fastest, "linne": ours, "epochs": [epochs.__dict__ for epochs in needed]},
        options=options,
    )


if __name__ == "__main__":
    main()
