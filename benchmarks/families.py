"""Every family of timm's and torchvision's classifiers: builds, trains, writes a bundle, opens it, answers as before.

    python benchmarks/families.py --results families.jsonl
    python benchmarks/families.py --only 'timm/swin*' --jobs 2

A family is a module of timm.models or torchvision.models. Its member with the fewest parameters stands for it: the
numbers of `linne models`; the next smallest where it cannot be built. Each is a process of its own, which

1. trains one step on 6 generated images of 3 classes, with what `linne train` chooses for the network,
2. opens the bundle, which has to answer its canaries as the training did, and says by how much it differs,
3. evaluates it on 3 images, and predicts the same ones from PNG files: the answers must be the same.

Networks are tried at 128 x 128 pixels where they take that, which is fastest, and else at the size they were designed
for. Weights are random; nothing is fetched. `--results` keeps each row as it comes: the same call goes on behind them,
and tries again what was not ok.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import traceback
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import measure
from accelerator import Kept

CLASSES = ("stripes", "rings", "noise")
TRAINED, TESTED = 6, 3
SIDE = 128
CONTEXT = multiprocessing.get_context("forkserver")
"""Processes of their own that share one import of torch."""


def families() -> dict[str, list[str]]:
    """Return each family's members by rising number of parameters, families of the least work first."""
    import timm
    from torchvision import models

    from linne.models.costs import measured

    costs = measured()
    found: dict[str, list[str]] = {}
    for module in timm.list_modules():
        found[f"timm/{module}"] = [f"timm/{name}" for name in timm.list_models(module=module)]
    for name in models.list_models(module=models):
        module = models.get_model_builder(name).__module__.rpartition(".")[2]
        found.setdefault(f"torchvision/{module}", []).append(f"torchvision/{name}")
    known = {family: [name for name in names if name in costs] for family, names in found.items()}
    smallest = {
        family: sorted(names, key=lambda name: costs[name].parameters) for family, names in known.items() if names
    }
    return dict(sorted(smallest.items(), key=lambda item: costs[item[1][0]].macs))


def images_of(count: int, side: int) -> tuple[Any, Any]:
    """Return `count` images, N x side x side x 3, and their classes in turn: the same on every call."""
    import numpy as np

    draw = np.random.default_rng(0)
    y, x = np.mgrid[0:side, 0:side] / side
    pictures = []
    for number in range(count):
        shift = draw.random()
        stripes, rings = np.sin(20 * (x + y + shift)), np.sin(40 * np.hypot(x - shift, y - 0.5))
        wave = (stripes, rings, draw.uniform(-1, 1, (side, side)))[number % len(CLASSES)]
        pictures.append(np.stack([wave, np.roll(wave, side // 5, 0), wave.T], axis=-1))
    return (127.5 * (1 + np.stack(pictures))).astype(np.uint8), np.arange(count) % len(CLASSES)


def smallest_that_builds(names: list[str]) -> tuple[str, int]:
    """Return the first of `names` that takes images here, with the side of its images.

    Raises:
        LinneError: none does; the error is the first one's.
    """
    from linne import LinneError, models

    reasons = []
    for name in names:
        designed = models.input_defaults(name)
        assert designed is not None
        for side in (min(SIDE, designed.height), designed.height):
            try:
                models.describe(name, num_classes=len(CLASSES), channels=3, height=side, width=side)
            except LinneError as error:
                reasons.append(error)
            else:
                return name, side
    raise reasons[0]


def try_family(names: list[str], threads: int | None) -> dict[str, Any]:
    """Return what the smallest of `names` did, in this process.

    Raises:
        LinneError: linne refused something.
    """
    import numpy as np
    from PIL import Image

    import linne
    from linne.models.from_bundle import network_of

    name, side = smallest_that_builds(names)
    images, classes = images_of(TRAINED + TESTED, side)
    test = images[TRAINED:], classes[TRAINED:]
    source = linne.from_arrays(
        images[:TRAINED], classes[:TRAINED], test=test, label_names=CLASSES, val_fraction=None, name="generated"
    )
    overrides = {"data.height": side, "data.width": side, "data.batch_size": TRAINED, "data.val_fraction": None}
    overrides |= {} if threads is None else {"device.num_threads": threads}
    with tempfile.TemporaryDirectory() as folder, measure.timed() as timing:
        output = Path(folder) / "run"
        trained = linne.train(
            source, model=name, epochs=1, device="cpu", output=output, overrides=overrides, seed=0, quiet=True
        )
        assert trained.report is not None
        assert trained.bundle is not None
        bundle = linne.open_bundle(trained.bundle)
        gap = linne.Predictor.open(bundle, how=linne.RunOptions(device="cpu")).worst_canary().gap
        report = linne.evaluate(trained.bundle, source, device="cpu")
        files = [Path(folder) / f"{number}.png" for number in range(TESTED)]
        for file, image in zip(files, test[0], strict=True):
            Image.fromarray(image).save(file)
        answers = list(linne.predict(trained.bundle, files, device="cpu"))
        parameters = sum(tensor.numel() for tensor in network_of(bundle).parameters())
    right = sum(answer.labels[0] == CLASSES[label] for answer, label in zip(answers, test[1], strict=True))
    if right != round(report.accuracy * TESTED) or not np.isfinite([a.probabilities for a in answers]).all():
        raise ValueError(f"evaluate finds {report.accuracy * TESTED:g} images right, predict {right}")
    return {
        "name": name,
        "side": side,
        "parameters": parameters,
        "canary_gap": gap,
        **timing.to_dict(),
    }


def answer(sender: Any, names: list[str], threads: int | None) -> None:
    """Send what the smallest of `names` did, or why it did not."""
    measure.use_checkout()
    from linne import LinneError

    try:
        sender.send(try_family(names, threads))
    except LinneError as error:
        sender.send({"problem": error.message})
    except Exception as error:  # a finding about the family, not the end of the others
        traceback.print_exc()
        sender.send({"problem": f"{type(error).__name__}: {error}"})


def child(family: str, names: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Return the row of `family`, tried in a process of its own."""
    receiver, sender = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=answer, args=(sender, names, options.threads))
    process.start()
    sender.close()
    row: dict[str, Any] = {"problem": f"not done after {options.timeout:g} s"}
    try:
        if receiver.poll(options.timeout):
            row = receiver.recv()
        else:
            process.kill()
    except EOFError:  # it was killed, by the system that had no more memory perhaps
        process.join()
        row = {"problem": f"its process ended with exit code {process.exitcode}"}
    process.join()
    return {"family": family, **row}


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--only", default="*", metavar="PATTERN", help="families to try: `timm/swin*`")
    parser.add_argument("--jobs", type=int, default=1, help="families at a time; default 1")
    parser.add_argument("--threads", type=int, help="of each; without it linne's choice")
    parser.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS", help="for a family; default 600")
    parser.add_argument("--results", type=Path, metavar="FILE", help="keep each row here, and go on behind them")
    options = parser.parse_args()
    measure.use_checkout()
    os.environ |= measure.environment(measure.threads_env(options.threads))
    CONTEXT.set_forkserver_preload(
        ["linne.verbs", "matplotlib.pyplot", "sklearn.metrics", "timm", "torch", "torchvision"]
    )
    known = families()
    asked = [family for family in known if fnmatchcase(family, options.only)]
    asked = asked[:1] if options.quick else asked
    kept = Kept(options.results, {"versions": measure.versions("torch", "timm", "torchvision")})
    done = {row["family"] for row in kept.rows if "problem" not in row}
    missing = [family for family in asked if family not in done]
    with ThreadPoolExecutor(options.jobs) as pool:
        for row in pool.map(lambda family: child(family, known[family], options), missing):
            kept.add(**row)
            print(f"{row['family']}: {row.get('problem', 'ok')}", file=sys.stderr, flush=True)
    print_results({row["family"]: row for row in kept.rows if row["family"] in asked}, len(known), options)


def print_results(rows: dict[str, dict[str, Any]], known: int, options: argparse.Namespace) -> None:
    lines = []
    for family, row in sorted(rows.items()):
        if "problem" in row:
            lines.append([family, "", "", "", "", row["problem"]])
        else:
            size = f"{row['parameters'] / 1e6:.2f} M"
            cells = [size, str(row["side"]), f"{row['cpu_seconds']:.1f}", f"{row['canary_gap']:.0e}"]
            lines.append([f"{family}: {row['name'].partition('/')[2]}", *cells, "ok"])
    fine = sum("problem" not in row for row in rows.values())
    measure.report(
        f"{fine} of {len(rows)} families ok",
        ["family: member", "parameters", "pixels", "CPU-s", "canaries", ""],
        lines,
        notes=[
            f"{known} families there are; parameters with a classifier of {len(CLASSES)} classes",
            "CPU-s: training, reports, evaluating, predicting, without starting Python",
            "canaries: largest difference of a logit from the training's, as a share of the largest logit",
        ],
        packages=("torch", "timm", "torchvision"),
        raw={"families": list(rows.values())},
        options=options,
    )


if __name__ == "__main__":
    main()
