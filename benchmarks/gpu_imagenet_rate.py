"""Training images a second of ResNet-50 at 224 pixels on one accelerator: linne's step, and timm's in eager AMP.

linne: a real recipe, batches of linne's resident loader (uint8 on the device, picked, mirrored and normalised there for
every step), and `train_step`, which is what training calls. Columns of the recipe are switched on one after another:
bf16, channels_last, `torch.compile`.

timm: `create_model`, its own SGD, autocast to bf16 and its usual layout, NCHW, over one batch of floats that is on the
device from the start, so that it has nothing to load; with `--timm-channels-last` once more in that layout.

Both get torch's fastest kernels (`device.determinism=seeded`: cuDNN times them). All take turns in one process,
`--rounds` times `--seconds` each; a turn begins behind steps that are not counted, the first with the compiling.

The absolute is compared with the best published rate of an H200; photographs with synthetic pixels: JPEGs made by
`photos.py` (or those of `--folder`, one folder a class), decoded, cropped at random and mirrored by the streaming
loader, through the same step. With `--pack` they are packed before (`linne data pack`).

On a CPU it runs too: --model resnet18 --side 64 --batch 8 --seconds 3
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import measure
from accelerator import describe
from photos import write_photos

measure.use_checkout()

import numpy as np  # noqa: E402
import timm  # noqa: E402
import torch  # noqa: E402
from timm.optim import create_optimizer_v2  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from linne import from_arrays, models, open_source, pack_data  # noqa: E402
from linne.data.loading.loader import Batch, make_batches  # noqa: E402
from linne.data.source import Source  # noqa: E402
from linne.device import Device  # noqa: E402
from linne.device.repeating import repeating_kernels  # noqa: E402
from linne.planning import collect, make_plan  # noqa: E402
from linne.recipe import Recipe  # noqa: E402
from linne.training.losses import class_counts  # noqa: E402
from linne.training.state import TrainState  # noqa: E402
from linne.training.step import train_step  # noqa: E402

PUBLISHED = 7945.0
"""Images a second and H200: NVIDIA's ResNet-50 in MLPerf Training v4.0 on eight of them, divided by eight."""
REAL_SHARE = 0.90
"""What real photographs should reach of synthetic pixels' rate."""
CLASSES = 1000
STEPS_AT_ONCE = 5
"""Between two looks at the clock, which wait for the device."""
COLUMNS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"device.precision": "bf16"},
    "bf16, channels_last": {"device.precision": "bf16", "device.channels_last": True},
    "bf16, channels_last, compile": {
        "device.precision": "bf16",
        "device.channels_last": True,
        "device.compile": True,
    },
}


def recipe_of(options: argparse.Namespace, source: Source, device: Device, **more: Any) -> Recipe:
    """Return the recipe of one column; what is not said here is linne's choice."""
    fields = {
        "model.name": f"timm/{options.model}",
        "data.batch_size": options.batch,
        "data.height": options.side,
        "data.width": options.side,
        "data.val_fraction": None,
        "data.cache": False,
        "optim.optimizer": "sgd",
        "augment.flip": True,
        "augment.crop_padding": None,
        "device.name": device.address,
        "device.precision": "fp32",
        "device.channels_last": False,
        "device.determinism": "seeded",
        **more,
    }
    given, reasons = collect(source.name, None, {}, fields)
    return make_plan(given, reasons, source=source).recipe


def linne_steps(recipe: Recipe, source: Source, device: Device) -> Iterator[int]:
    """Train for ever as linne does; yield the number of images of each step."""
    torch.manual_seed(recipe.seed)
    batches, _ = make_batches(source, recipe, device)
    network = models.build(models.describe_recipe(recipe, source.num_classes))
    state = TrainState.create(network, recipe, device, class_counts(source))
    state.start_epoch()
    endless: Iterator[Batch] = itertools.chain.from_iterable(batches.epoch(epoch) for epoch in itertools.count())
    for batch in endless:
        train_step(state, batch, recipe, device, len(batches))
        state.step = 0  # the schedule has no end here
        yield len(batch.labels_N)


def timm_steps(options: argparse.Namespace, device: Device, *, channels_last: bool) -> Iterator[int]:
    """Train for ever as timm's train.py does with `--amp --amp-dtype bfloat16`; yield as `linne_steps`."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = timm.create_model(options.model, num_classes=CLASSES).to(device.torch_device, memory_format=layout)
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.05, weight_decay=1e-4, momentum=0.9)
    images = torch.randn(options.batch, 3, options.side, options.side, device=device.torch_device)
    images = images.contiguous(memory_format=layout)
    labels = torch.randint(CLASSES, (options.batch,), device=device.torch_device)
    model.train()
    while True:
        with torch.autocast(device.torch_type, dtype=torch.bfloat16):
            loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield len(labels)


def rate_of(steps: Iterator[int], device: Device, seconds: float) -> Callable[[], float]:
    """Return what measures images a second for a turn, after as many uncounted steps as a look at the clock takes."""

    def turn() -> float:
        for _ in itertools.islice(steps, STEPS_AT_ONCE):
            pass
        device.synchronise()
        images, start = 0, time.perf_counter()
        while (taken := time.perf_counter() - start) < seconds:
            images += sum(itertools.islice(steps, STEPS_AT_ONCE))
            device.synchronise()
        return images / taken

    return turn


def whole_batches(source: Source, batch: int) -> Source:
    """Return `source` with as many training images as fill whole batches.

    linne cuts an epoch into batches of nearly one size: with two sizes `torch.compile` builds kernels for any size.
    """
    train = source.splits["train"]
    count = max(len(train) // batch, 1) * batch
    cut = dataclasses.replace(train, indices_N=train.indices_N[:count], labels_N=train.labels_N[:count])
    return dataclasses.replace(source, splits={**source.splits, "train": cut})


def noise(options: argparse.Namespace) -> Source:
    """Return a set of random pixels, some batches of it, of a thousand classes; the loader's work is real."""
    rng = np.random.default_rng(0)
    count = CLASSES + 4 * options.batch
    images_NHWC = rng.integers(0, 256, (count, options.side, options.side, 3), dtype=np.uint8)
    labels_N = np.arange(count) % CLASSES
    made = from_arrays(images_NHWC, labels_N, test=(images_NHWC[:1], labels_N[:1]), val_fraction=None, name="noise")
    return whole_batches(made, options.batch)


def photographs(options: argparse.Namespace, scratch: Path) -> Source:
    """Return the photographs to read, packed where that was asked for."""
    folder = options.folder or write_photos(scratch / "photos", max(9 * options.batch, 80))
    if options.pack:
        pack_data(str(folder), scratch / "pack", quiet=True)
        folder = scratch / "pack"
    return whole_batches(open_source(str(folder), val_fraction=None, test_fraction=0.01), options.batch)


def measured(options: argparse.Namespace, device: Device, scratch: Path) -> dict[str, list[float]]:
    """Return the images a second of each side and turn."""
    pixels = noise(options)
    sides: dict[str, Iterator[int]] = {}
    for name in options.columns:
        if device.can.compile_backends or "compile" not in name:
            sides[f"linne, {name}"] = linne_steps(recipe_of(options, pixels, device, **COLUMNS[name]), pixels, device)
    sides["timm, eager bf16 AMP, NCHW"] = timm_steps(options, device, channels_last=False)
    if options.timm_channels_last:
        sides["timm, eager bf16 AMP, channels_last"] = timm_steps(options, device, channels_last=True)
    if not options.no_photographs:
        photos, last = photographs(options, scratch), options.columns[-1]
        streamed = {
            "data.loader": "streaming",
            "data.num_workers": options.workers,
            "augment.resized_crop_area": 0.25,
        }
        recipe = recipe_of(options, photos, device, **COLUMNS[last], **streamed)
        sides[f"linne, {last}, photographs"] = linne_steps(recipe, photos, device)
    turns = {name: rate_of(steps, device, options.seconds) for name, steps in sides.items()}
    with repeating_kernels("seeded"):
        return measure.interleave(options.rounds, turns)


def read_options() -> argparse.Namespace:
    """Return what was typed."""
    parser = measure.parser(__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", default="resnet50", help="a name of timm's; default resnet50")
    parser.add_argument("--side", type=int, default=224, help="pixels; default 224")
    parser.add_argument("--batch", type=int, default=256, help="images a step; default 256")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a turn; default 10")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side; default 3")
    parser.add_argument(
        "--columns", nargs="+", choices=list(COLUMNS), default=list(COLUMNS)[1:], help="of linne; default all but fp32"
    )
    parser.add_argument("--timm-channels-last", action="store_true", help="timm in that layout as well")
    parser.add_argument("--no-photographs", action="store_true", help="leave out the row of real photographs")
    parser.add_argument("--folder", type=Path, help="photographs to read, one folder a class; made when not given")
    parser.add_argument("--pack", action="store_true", help="pack the photographs before")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="threads that decode; default: the cores")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.rounds = min(options.seconds, 0.5), 1
    return options


def main() -> None:
    options = read_options()
    device = Device.pick(options.device)
    with tempfile.TemporaryDirectory() as scratch:
        rates = measured(options, device, Path(scratch))
    print_results(rates, device, options)


def print_results(rates: dict[str, list[float]], device: Device, options: argparse.Namespace) -> None:
    medians = {name: statistics.median(found) for name, found in rates.items()}
    base = "timm, eager bf16 AMP, NCHW"
    synthetic = f"linne, {options.columns[-1]}"
    as_published = options.model == "resnet50" and options.side == 224
    rows = []
    for name, found in rates.items():
        ratio = measure.middle([ours / theirs for ours, theirs in zip(found, rates[base], strict=True)])
        share = f"{medians[name] / PUBLISHED:.3f}" if as_published else ""
        pairs = zip(found, rates.get(synthetic, []), strict=True)
        real = measure.middle([a / b for a, b in pairs]) if name.endswith("photographs") and synthetic in rates else ""
        rows.append([name, measure.middle(found, 1), ratio, share, real])
    notes = [
        describe(device),
        f"{options.model} at {options.side} px, batches of {options.batch}; {options.rounds} turns of "
        f"{options.seconds:g} s each, taking turns; ratios are medians over turns",
        f"published: {PUBLISHED:,.0f} images/s a card, MLPerf Training v4.0, 8 x H200; to be compared on an H200 only",
    ]
    if not options.no_photographs:
        packed = "packed, " if options.pack else ""
        notes.append(
            f"photographs: {packed}{options.workers} threads, a random part of 0.25 to 1 of the area; "
            f"{REAL_SHARE:.2f} of synthetic pixels' rate required"
        )
    if not device.can.compile_backends:
        notes.append(f"torch.compile builds nothing that is known to work on `{device.address}`: not measured")
    heads = ["side", "images/s, median (spread)", "over timm, eager", "of the published H200", "of synthetic pixels"]
    measure.report(
        f"Training rate of {options.model} at {options.side} px on one accelerator",
        heads,
        rows,
        notes=notes,
        packages=["torch", "timm", "simplejpeg"],
        raw={"images_per_second": rates},
        options=options,
    )


if __name__ == "__main__":
    main()
