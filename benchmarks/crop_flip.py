"""32 px crop + flip + normalise: linne's batched uint8 path against Pillow and torchvision, image by image.

All sides start from the same uint8 images in memory and end with normalised float32 batches: a shift by up to 4
pixels with reflected borders, half of the images mirrored, mean and deviation taken off. linne's side is what the
resident loader does in training, random numbers and shuffled gathering included; the others compose transforms as
their tutorials do, and stack the batch. One thread, one process, taking turns.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import measure

measure.use_checkout()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torchvision import transforms  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

from linne.data.loading.augment import Augmentation, blank  # noqa: E402
from linne.data.loading.finish import Finish  # noqa: E402
from linne.data.loading.loader import input_spec  # noqa: E402
from linne.device import Device  # noqa: E402
from linne.recipe import AugmentConfig, DataConfig, Recipe  # noqa: E402

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
SIDE, PADDING, BATCH = 32, 4, 128


def linne_side(images: np.ndarray, batches: list[np.ndarray]) -> Callable[[], torch.Tensor]:
    """Return what makes one epoch and returns its last batch."""
    data = DataConfig(source="images", mean=MEAN, std=STD, height=SIDE, width=SIDE)
    recipe = Recipe(data=data, augment=AugmentConfig(flip=True, crop_padding=PADDING))
    device = Device.pick("cpu")
    augmentation = Augmentation(recipe, device)
    finish = Finish(input_spec(recipe), device, channels_last=False)
    on_device = torch.from_numpy(images)

    def epoch() -> torch.Tensor:
        for rows in batches:
            taken, plan = augmentation.take(on_device, torch.from_numpy(rows), rows, 0)
            batch = blank(finish(taken), plan)
        return batch

    return epoch


def sample_side(
    examples: list[Any], transform: Callable[[Any], torch.Tensor], batches: list[np.ndarray]
) -> Callable[[], torch.Tensor]:
    """Return what makes one epoch image by image and returns its last batch."""

    def epoch() -> torch.Tensor:
        for rows in batches:
            batch = torch.stack([transform(examples[row]) for row in rows.tolist()])
        return batch

    return epoch


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    runs, count = (2, 512) if options.quick else (options.runs, 10_240)
    torch.set_num_threads(1)
    images = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
    order = np.random.default_rng(1).permutation(count)
    batches = [order[first : first + BATCH] for first in range(0, count, BATCH)]
    pillow = transforms.Compose(
        [
            transforms.RandomCrop(SIDE, PADDING, padding_mode="reflect"),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    tensors = v2.Compose(
        [
            v2.RandomCrop(SIDE, PADDING, padding_mode="reflect"),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    to_pillow = transforms.ToPILImage()
    sides = {
        "linne, whole batches": linne_side(images, batches),
        "Pillow + torchvision v1, per sample": sample_side([to_pillow(i) for i in images], pillow, batches),
        "torchvision v2 on uint8 tensors, per sample": sample_side(
            list(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()), tensors, batches
        ),
    }

    def rate(run: Callable[[], torch.Tensor]) -> float:
        with measure.timed() as timing:
            run()
        return count / timing.cpu

    for run in sides.values():
        run()
    results = measure.interleave(runs, {name: lambda r=run: rate(r) for name, run in sides.items()})
    ours = results["linne, whole batches"]
    rows = []
    for name, rates in results.items():
        ratio = statistics.median(a / b for a, b in zip(ours, rates, strict=True))
        rows.append([name, measure.middle(rates, 0), f"{ratio:.1f}x"])
    measure.report(
        "Crop + flip + normalise at 32 px",
        ["side", "images per CPU-second, median (spread)", "linne is faster by"],
        rows,
        notes=[f"{count:,} images, batches of {BATCH}, {runs} epochs of each, taking turns, one thread"],
        packages=["numpy", "pillow", "torch", "torchvision"],
        raw=results,
        options=options,
    )


if __name__ == "__main__":
    main()
