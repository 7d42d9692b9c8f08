"""An epoch over a folder of photographs without the model: images a second through linne, torchvision and timm.

All sides read the same JPEGs from a warm cache with two workers, resize them to 256, cut out 224 x 224, and give
normalised float batches of 64. Each has one epoch to start its workers and warm up; then they take turns.

- linne: the streaming loader, `data.num_workers=2` threads, uint8 until normalised.
- torchvision: `ImageFolder` with Resize, CenterCrop, ToTensor and Normalize, in torch's DataLoader.
- timm: `create_dataset` and `create_loader` with its prefetcher, which also normalises whole batches.
"""

from __future__ import annotations

import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import measure
from photos import mean_kilobytes, write_photos

measure.use_checkout()

import torch  # noqa: E402

from linne.data.loading.loader import make_batches  # noqa: E402
from linne.device import Device  # noqa: E402
from linne.planning import collect, make_plan  # noqa: E402

BATCH, WORKERS = 64, 2
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def with_linne(folder: Path) -> Callable[[], Iterable[torch.Tensor]]:
    overrides = {"data.loader": "streaming", "data.num_workers": WORKERS, "data.batch_size": BATCH}
    overrides |= {"data.height": 224, "data.width": 224, "data.crop_pct": 0.875, "data.interpolation": "bilinear"}
    overrides |= {"data.mean": MEAN, "data.std": STD, "data.val_fraction": "none", "data.test_fraction": 0.01}
    overrides |= {"augment.flip": False, "augment.crop_padding": "none", "device.channels_last": True}
    given, reasons = collect(str(folder), None, {"device.name": "cpu"}, overrides)
    plan = make_plan(given, reasons)
    batches, _ = make_batches(plan.source, plan.recipe, Device.pick("cpu"))
    return lambda: (batch.images_NCHW for batch in batches.epoch(0))


def with_torchvision(folder: Path) -> Callable[[], Iterable[torch.Tensor]]:
    from torchvision import datasets, transforms

    steps = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    photos = datasets.ImageFolder(str(folder), transforms.Compose(steps))
    loader = torch.utils.data.DataLoader(photos, BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True)
    return lambda: (images for images, _ in loader)


def with_timm(folder: Path) -> Callable[[], Iterable[torch.Tensor]]:
    from timm.data import create_dataset, create_loader

    loader = create_loader(
        create_dataset("", str(folder)),
        (3, 224, 224),
        BATCH,
        num_workers=WORKERS,
        crop_pct=0.875,
        interpolation="bilinear",
        device=torch.device("cpu"),
        persistent_workers=True,
    )
    return lambda: (images for images, _ in loader)


def rate(epoch: Callable[[], Iterable[torch.Tensor]]) -> dict[str, float]:
    """Return images a second of one epoch."""
    count = 0
    with measure.timed() as timing:
        for images in epoch():
            count += len(images)
    return {"images": count, "per_second": count / timing.wall}


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--folder", type=Path, help="photographs to read, one folder a class; made when not given")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning)
    with tempfile.TemporaryDirectory() as made:
        folder = options.folder or write_photos(Path(made), 100 if options.quick else 1500)
        ways = {"linne": with_linne, "torchvision ImageFolder": with_torchvision, "timm": with_timm}
        epochs = {name: way(folder) for name, way in ways.items()}
        sides = {name: (lambda epoch=epoch: rate(epoch)) for name, epoch in epochs.items()}
        measure.interleave(1, sides)  # workers start, the page cache fills
        found: dict[str, list[dict[str, Any]]] = measure.interleave(1 if options.quick else options.rounds, sides)
        kilobytes = mean_kilobytes(folder)
    rates = {name: [each["per_second"] for each in results] for name, results in found.items()}
    rows = []
    for name, values in rates.items():
        ratios = [ours / theirs for ours, theirs in zip(rates["linne"], values, strict=True)]
        rows.append([name, measure.middle(values, 0), "" if name == "linne" else measure.middle(ratios)])
    linne, torchvision = (statistics.median(rates[name]) for name in ("linne", "torchvision ImageFolder"))
    measure.report(
        "An epoch over a folder of photographs, no model",
        ["side", "images/s, median (spread)", "linne is faster by"],
        rows,
        notes=[
            f"{options.rounds} epochs each, taking turns; {WORKERS} workers, batches of {BATCH}, warm cache",
            f"JPEGs of {kilobytes:.0f} kB on average; required: 2.2 x torchvision, 1.5 x timm",
            f"median over median, linne over torchvision: {linne / torchvision:.2f}",
        ],
        packages=["torch", "torchvision", "timm", "simplejpeg", "pillow"],
        raw=found,
        options=options,
    )


if __name__ == "__main__":
    main()
