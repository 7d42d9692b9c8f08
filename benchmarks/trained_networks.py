"""ResNet-50 and SqueezeNet of 224 x 224 pixels, trained on Fashion-MNIST here, in fp32 and int8: for the two below.

    python benchmarks/trained_networks.py --data DIR --folder DIR
    python benchmarks/deploy_networks.py --networks DIR/grey-resnet50,DIR/torchvision-squeezenet1_1 --precisions int8
    python benchmarks/photos_to_labels.py --folder DIR

Weights of ImageNet need a download. These know ten kinds of clothes, from few images in minutes on a CPU: enough for
int8 to have something to lose. Images grow from 64 pixels to 224. int8 is searched as `linne export` does by default;
the table is of the test images, which neither training nor calibration saw.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any

import first_answer
import measure

NETWORKS = {"SqueezeNet 1.1": ("torchvision-squeezenet1_1", 3e-4, 15), "ResNet-50": ("grey-resnet50", 1e-3, 6)}
"""Each with its bundle's name, peak learning rate (SqueezeNet has no batch norms) and epochs."""
KINDS = ("onnx", "openvino")


def clothes(options: Any) -> Any:
    """Return a part of Fashion-MNIST: `--images` to train on, 500 that decide on int8, 2,000 to test."""
    import numpy as np

    import linne

    folder = None if options.data is None else str(Path(options.data) / "fashion-mnist")
    whole = linne.open_source(measure.source_name("fashion-mnist", folder))

    def part(name: str, count: int) -> tuple[Any, list[str]]:
        split = whole.splits[name]
        count = min(count, len(split))
        return (
            np.stack([split.pixels(row, 1) for row in range(count)]),
            [whole.labels[label] for label in split.labels_N[:count]],
        )

    images, labels = part("train", options.images)
    return linne.from_arrays(images, labels, val=part("val", 500), test=part("test", 2000), name="clothes")


def trained(title: str, source: Any, options: Any) -> Path:
    """Return the bundle of a network, trained where it is not there yet, under the name that others look for."""
    import linne

    name, rate, epochs = NETWORKS[title]
    bundle = options.folder / name
    if bundle.exists():
        return bundle
    growing = {"augment.size_start": 64 / 224, "augment.size_hold": 0.6, "augment.size_until": 0.95}
    size = {"data.height": 224, "data.width": 224}
    hub = first_answer.hub_folder(options.folder) if title == "ResNet-50" else None
    result = linne.train(
        source,
        model=name.replace("-", "/", 1) if hub is None else f"hf:{hub}",
        epochs=1 if options.quick else epochs,
        batch_size=32,
        lr=rate,
        output=options.folder / f"run-{name}",
        overrides={**size, **growing},
        quiet=options.quick,
    )
    if hub is not None:
        colour = options.folder / "linne-resnet50"
        in_colour(result.run / "bundle", hub)
        linne.import_weights(hub, colour, unproved=True, quiet=options.quick)
        linne.export(colour, "onnx", quiet=options.quick)
    shutil.copytree(result.run / "bundle", bundle)
    return bundle


def in_colour(bundle: Path, hub: Path) -> None:
    """Put the bundle's network in the place of the drawn one in `hub`, for photographs by transformers' pipeline.

    It was trained on grey images; its first layer is repeated, so that it sees the mean of the colours.
    """
    import transformers
    from safetensors.torch import load_file

    import linne

    opened = linne.open_bundle(bundle)
    spec, names = opened.input, dict(enumerate(opened.labels))
    weights = load_file(bundle / "model.safetensors")
    if spec.channels == 1:
        first = "resnet.embedder.embedder.convolution.weight"
        weights[first] = weights[first].repeat(1, 3, 1, 1) / 3
    config = transformers.ResNetConfig(id2label=names, label2id={name: number for number, name in names.items()})
    network = transformers.ResNetForImageClassification(config)
    network.load_state_dict(weights)
    network.save_pretrained(hub)
    mean, std = (list(values) * (3 // len(values)) for values in (spec.mean, spec.std))
    processor = transformers.ConvNextImageProcessor(
        size={"shortest_edge": spec.height}, crop_pct=spec.crop_pct, image_mean=mean, image_std=std, resample=2
    )
    processor.save_pretrained(hub)


def quantised(title: str, kind: str, bundle: Path, source: Any, options: Any) -> list[str]:
    """Return the row of one network in int8 by one runtime."""
    import linne
    from linne.exports import has_export, open_export

    opened = linne.open_bundle(bundle)
    if has_export(opened, kind, "int8"):
        made, seconds = open_export(opened, kind, "int8"), None
    else:
        started = time.perf_counter()
        made = linne.export(bundle, kind, precision="int8", calibrate=source, quiet=options.quick).export
        seconds = time.perf_counter() - started
    backend = {"onnx": "onnxruntime", "openvino": "openvino"}[kind]
    (report,) = linne.verify(bundle, source, backend=backend, precision="int8", max_images=None, quiet=options.quick)
    facts, low, high = made.facts["quantisation"], *(100 * value for value in report.drop_interval)
    return [
        title,
        backend,
        f"{100 * report.reference_accuracy:.2f} %",
        f"{100 * report.accuracy:.2f} %",
        f"{100 * report.drop:+.2f} ({low:+.2f} to {high:+.2f})",
        f"{len(facts['in_float'])} of {facts['num_layers']}" if "num_layers" in facts else f"{len(facts['in_float'])}",
        "-" if seconds is None else f"{seconds:.0f}",
        "yes" if report.passed else "no",
    ]


def main() -> None:
    parser = measure.parser(__doc__, data=True)
    parser.add_argument("--folder", type=Path, required=True, metavar="DIR", help="where the bundles go")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--networks", default=",".join(NETWORKS), help="names, with commas")
    options = parser.parse_args()
    if options.quick:
        options.images, options.networks = 200, "SqueezeNet 1.1"
    measure.use_checkout()
    import linne
    from linne.exports import has_export

    source, rows = clothes(options), []
    for title in options.networks.split(","):
        bundle = trained(title, source, options)
        if not has_export(linne.open_bundle(bundle), "onnx", "fp32"):
            linne.export(bundle, "onnx", quiet=options.quick)
        for kind in KINDS:
            try:
                rows.append(quantised(title, kind, bundle, source, options))
            except linne.CheckFailed as error:
                print(f"{title}, {kind}: {error.message}", file=sys.stderr)
    measure.report(
        "Networks of 224 x 224 pixels in int8, trained on Fashion-MNIST",
        ["network", "runtime", "fp32", "int8", "points lost (95 % interval)", "layers in float", "export, s", "passed"],
        rows,
        notes=[f"{options.images:,} images; 500 other images decide, 2,000 test images here"],
        packages=["torch", "onnxruntime", "openvino"],
        raw={"rows": rows},
        options=options,
    )


if __name__ == "__main__":
    main()
