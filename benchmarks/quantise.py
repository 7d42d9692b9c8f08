"""What int8 costs in accuracy and gains in time, on networks that were trained on real images.

    python benchmarks/quantise.py --data DIR --weights mobilenet_v2-b0353104.pth --photos DIR

digits   `linne train digits`
fashion  `linne train fashion-mnist --epochs 5`
cifar10  `linne train cifar10 --recipe speedrun`
photos   MobileNetV2 with torchvision's weights of ImageNet, from --weights; ranges are measured on ten cuts of each
         photograph in --photos (a `labels.csv` of file and class), and answers compared on the photographs as they are.
         So few say that int8 does not collapse, not what it costs.

Each is exported in fp32 and int8. Accuracies are those of the test split, which neither training nor calibration saw;
times are of one image at a time by ONNX Runtime, the two in turns. `--calibration-images 128 500 1000` shows what more
images change.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
import numpy as np

NETWORKS = ("digits", "fashion", "cifar10", "photos")
SETS = {"fashion": ("fashion-mnist", "fashion-mnist"), "cifar10": ("cifar10", "cifar-10-batches-bin")}
SETTINGS: dict[str, list[str]] = {"digits": [], "fashion": ["--epochs", "5"], "cifar10": ["--recipe", "speedrun"]}
QUICK = ["--epochs", "1"]
CUTS = 10


def trained(name: str, options: argparse.Namespace, folder: Path) -> tuple[Path, Any]:
    """Return the bundle of a network trained in a process of its own, and the source to verify it on."""
    folder_of_set = None if options.data is None or name == "digits" else str(Path(options.data) / SETS[name][1])
    source = measure.source_name("digits" if name == "digits" else SETS[name][0], folder_of_set)
    settings = [*SETTINGS[name], *(QUICK if options.quick else [])]
    run = folder / name
    command = [sys.executable, "-m", "linne", "train", source, *settings, "--output", str(run), "--quiet"]
    measure.run_child(command, measure.checkout_env())
    return run / "bundle", source


def photographs(options: argparse.Namespace, folder: Path) -> tuple[Path, Any]:
    """Return a bundle of MobileNetV2, and a source of photographs: cuts of them to train on, themselves to verify."""
    import linne
    from linne.bundle import open_bundle
    from linne.data.images.decode import decode_file
    from linne.preprocess import resize_and_crop

    path = folder / "mobilenet"
    linne.import_weights(options.weights, output=path, model="torchvision/mobilenet_v2")
    bundle = open_bundle(path)
    draw = np.random.default_rng(0)
    with (options.photos / "labels.csv").open(encoding="utf-8") as file:
        listed = [(row["file"], int(row["index"])) for row in csv.DictReader(file)]
    whole, cuts, labels = [], [], []
    for file_name, label in listed:
        image = decode_file(options.photos / file_name, 3)
        whole.append(resize_and_crop(image, bundle.input))
        labels.append(bundle.labels[label])
        for _ in range(CUTS):
            height, width = (round(side * draw.uniform(0.6, 1.0)) for side in image.shape[:2])
            top, left = (draw.integers(0, a - b + 1) for a, b in zip(image.shape[:2], (height, width), strict=True))
            cuts.append(
                resize_and_crop(np.ascontiguousarray(image[top : top + height, left : left + width]), bundle.input)
            )
    held = (np.stack(whole), labels)
    source = linne.from_arrays(np.stack(cuts), np.repeat(labels, CUTS), val=held, test=held, name="photographs")
    return path, source


def rates(bundle: Path, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Return images a second, one at a time, in fp32 and int8 by turns."""
    from linne.bundle import canary_batch, open_bundle
    from linne.exports import graph_of
    from linne.graphs.session import GraphSession

    opened = open_bundle(bundle)
    image = canary_batch(opened.input)[:1]
    sessions = {precision: GraphSession(graph_of(opened, precision).path, precision) for precision in ("fp32", "int8")}

    def rate(session: Any) -> float:
        session.run(image)
        count, started = 0, time.perf_counter()
        while (spent := time.perf_counter() - started) < seconds:
            session.run(image)
            count += 1
        return count / spent

    return measure.interleave(rounds, {name: lambda s=session: rate(s) for name, session in sessions.items()})


def quantised(name: str, bundle: Path, source: Any, options: argparse.Namespace, num_images: int) -> dict[str, Any]:
    """Return what came out of one network, exported in int8 with ranges from `num_images` images."""
    import linne

    max_drop = options.max_drop / 100
    started = time.perf_counter()
    made = linne.export(
        bundle,
        "onnx",
        precision="int8",
        calibrate=source,
        calibration_images=num_images,
        max_drop=max_drop,
        replace=True,
        quiet=True,
    )
    seconds = time.perf_counter() - started
    (report,) = linne.verify(
        bundle,
        source,
        backend="onnxruntime",
        precision="int8",
        max_drop=max_drop,
        max_images=None,
        keep=False,
        quiet=True,
    )
    facts = made.export.facts["quantisation"]
    measured = rates(bundle, 2 if options.quick else options.rounds, 0.2 if options.quick else 2.0)
    fp32 = bundle / "exports" / "onnx-fp32" / "model.onnx"
    return {
        "network": name,
        "calibration_images": num_images,
        "report": report.to_dict(),
        "facts": facts,
        "seconds": seconds,
        "rates": measured,
        "fp32_bytes": fp32.stat().st_size,
        "int8_bytes": made.size_bytes,
    }


def row(found: dict[str, Any]) -> list[str]:
    report, facts = found["report"], found["facts"]
    low, high = (100 * value for value in report["drop_interval"])
    before, after = (statistics.median(found["rates"][name]) for name in ("fp32", "int8"))
    return [
        found["network"],
        f"{found['calibration_images']}",
        f"{100 * report['reference_accuracy']:.2f} %",
        f"{100 * report['accuracy']:.2f} %",
        f"{100 * report['drop']:+.2f} ({low:+.2f} to {high:+.2f})",
        f"{report['num_agree']:,} of {report['num_images']:,}",
        facts["method"],
        f"{len(facts['in_float'])} of {facts['num_layers']}",
        f"{before:,.0f}",
        f"{after:,.0f} ({after / before:.2f}x)",
        f"{found['fp32_bytes'] / 1e6:.2f} -> {found['int8_bytes'] / 1e6:.2f}",
        f"{found['seconds']:.0f}",
    ]


def main() -> None:
    parser = measure.parser(__doc__, data=True)
    parser.add_argument("--weights", type=Path, metavar="FILE", help="torchvision's of MobileNetV2")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="photographs with labels.csv")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--calibration-images", nargs="+", type=int, default=[500], metavar="N")
    parser.add_argument("--max-drop", type=float, default=0.5, metavar="POINTS")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    measure.use_checkout()
    import linne

    if "photos" in options.networks and (options.weights is None or options.photos is None):
        parser.error("the network `photos` needs --weights and --photos")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.networks:
            make = photographs(options, Path(folder)) if name == "photos" else trained(name, options, Path(folder))
            bundle, source = make
            linne.export(bundle, "onnx", quiet=True)
            for num_images in options.calibration_images:
                try:
                    results.append(quantised(name, bundle, source, options, num_images))
                except linne.CheckFailed as error:
                    print(f"{name}, {num_images} images: {error.message}", file=sys.stderr)
    measure.report(
        "int8 beside fp32, by ONNX Runtime",
        [
            *("network", "calibration images", "fp32", "int8", "points lost (95 % interval)", "same label", "ranges"),
            *("layers in float", "fp32, images/s", "int8, images/s", "MB", "export, s"),
        ],
        [row(found) for found in results],
        notes=[f"at most {options.max_drop:g} points may be lost on the validation split; medians of the rounds"],
        packages=("onnxruntime", "onnx", "torch"),
        raw={"results": results},
        options=options,
    )


if __name__ == "__main__":
    main()
