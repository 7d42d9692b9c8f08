"""Whether an export answers as its bundle does: on which images, in which batches, and how far off it may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from linne.bundle import Bundle
from linne.canary import canary_images
from linne.data.images.decode import decode_file
from linne.errors import CheckFailed
from linne.host import available_memory_bytes
from linne.preprocess import Floats, InputSpec, UInt8, normalise, resize_and_crop
from linne.weights.answers import FOLDER, SHOWN

BATCHES = (1, 3, 64)
NUM_ALONE = 8
"""Images that an export is given one at a time: every canary and every photograph. Three at a time it is given nine."""
NUM_NOISE = 8
BYTES_A_PIXEL = 1024
"""Of memory that a network takes for an image, for each pixel of its input. VGG, which keeps 64 numbers for each of its
full-size pixels in two layers at a time, takes 512; as much again is left for what a runtime unfolds."""
FP32_SHARE = 1e-4
"""Of the largest logit, and at least of 1: how far logits may be off in fp32. Other kernels, which add in another
order, are a few millionths apart on every network tried; a constant folded wrongly is off by hundredths."""
FP16_SHARE = 2e-2
"""The same in fp16, whose numbers have 11 bits: 5e-4 for one rounding, 1e-3 after all layers of ResNet-18, and 8e-3 of
MobileNetV2 for pictures of which it is not sure. On a CPU, ONNX Runtime rounds weights and computes in fp32: overflow
does not show there, which is why `exporting.half` looks for it."""

BF16_SHARE = 8 * FP16_SHARE
"""The same in bf16, whose numbers have 8 bits: three fewer than those of fp16."""
SHARES: Mapping[str, float] = {"fp32": FP32_SHARE, "fp16": FP16_SHARE, "bf16": BF16_SHARE}


@dataclass(frozen=True, slots=True)
class Trial:
    """Images that a bundle and its export both answer."""

    images_NHWC: UInt8
    """At the bundle's input size."""
    spec: InputSpec
    what: str
    """For people: `4 canaries, 4 photographs, 48 cuts of them, 8 of noise`."""
    batches: tuple[int, ...]
    note: str | None
    """Why the batches are not `BATCHES`."""

    @property
    def images_NCHW(self) -> Floats:
        """As a network sees them."""
        return normalise(self.images_NHWC, self.spec)

    def num_tried(self, batch: int) -> int:
        """Return how many of the images are answered in batches of `batch`: the last sees all, the others a few."""
        return len(self.images_NHWC) if batch == self.batches[-1] else -(-NUM_ALONE // batch) * batch


def trial_of(bundle: Bundle, free_bytes: int | None = None) -> Trial:
    """Return what an export of `bundle` is tried with: the same images on every call.

    Args:
        free_bytes: of memory, half of which may be used; None for what there is now.
    """
    spec = bundle.input
    draw = np.random.default_rng(64)  # any number
    shown = [decode_file(FOLDER / name, spec.channels) for name in SHOWN]
    canaries = canary_images(spec)
    images = [resize_and_crop(image, spec) for image in (*canaries, *shown)]
    num_cuts = max(BATCHES) - len(images) - NUM_NOISE
    images += [resize_and_crop(_cut(shown[k % len(shown)], draw), spec) for k in range(num_cuts)]
    images += list(draw.integers(0, 256, (NUM_NOISE, spec.height, spec.width, spec.channels), dtype=np.uint8))
    what = f"{len(canaries)} canaries, {len(shown)} photographs, {num_cuts} cuts of them, {NUM_NOISE} of noise"
    free_bytes = free_bytes or available_memory_bytes()
    most = max(free_bytes // 2 // (BYTES_A_PIXEL * spec.height * spec.width), 1)
    batches = tuple(dict.fromkeys(min(size, most) for size in BATCHES))
    note = None
    if most < max(BATCHES):
        free = f"{free_bytes / 1e9:.1f} GB of memory are free"
        note = f"tried with batches of {most} at most instead of {max(BATCHES)}: {free}"
    return Trial(np.stack(images), spec, what, batches, note)


def _cut(image_HWC: UInt8, draw: np.random.Generator) -> UInt8:
    """Return a part of an image, of 0.4 to 0.9 of its sides, mirrored or not."""
    height, width, _ = image_HWC.shape
    share = draw.uniform(0.4, 0.9)
    rows, columns = round(height * share), round(width * share)
    top, left = draw.integers(0, height - rows + 1), draw.integers(0, width - columns + 1)
    part = image_HWC[top : top + rows, left : left + columns]
    return np.ascontiguousarray(part[:, ::-1] if draw.random() < 0.5 else part)


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How an export's answers compare with the bundle's."""

    worst_by_batch: Mapping[int, float]
    """Largest |difference| of a logit, for each batch size; NaN where an answer is not a number."""
    largest_logit: float
    """Of the bundle, by its size."""
    bound: float
    """How large a difference may be."""
    num_images: int
    num_same: int
    """Images with the same first label."""
    num_swapped: int
    """Images with another first label though the bundle was sure: its two logits are further apart than `bound`."""
    images: str
    note: str | None

    @property
    def worst(self) -> float:
        """The largest of all differences."""
        return float(np.max(list(self.worst_by_batch.values())))

    @property
    def problem(self) -> str | None:
        """Why this is not the same network, or None."""
        for batch, worst in self.worst_by_batch.items():
            if not np.isfinite(worst):
                return f"in batches of {batch} its answers are not finite numbers"
            if worst > self.bound:
                return f"in batches of {batch} logits differ by up to {worst:.2g}, allowed {self.bound:.2g}"
        if self.num_swapped:
            return f"{self.num_swapped} of {self.num_images} images get another first label"
        return None

    def line(self) -> str:
        """Return what was found, in one line."""
        batches = ", ".join(map(str, self.worst_by_batch))
        return (
            f"verified with {self.num_images} images in batches of {batches}: logits of up to {self.largest_logit:.3g} "
            f"differ by {self.worst:.1e} at most (allowed {self.bound:.1e}), "
            f"{self.num_same} of {self.num_images} first labels are the same"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {**asdict(self), "worst_by_batch": {str(k): v for k, v in self.worst_by_batch.items()}}


def compare(
    trial: Trial, expected_NK: Floats, run: Callable[[Floats | UInt8], Floats], *, share: float, pixels: bool = False
) -> Agreement:
    """Return how the answers of `run` compare with `expected_NK`, those of the bundle to each image alone.

    Args:
        share: how far logits may be off, as a share of the largest, or of 1 where that is less.
        pixels: whether `run` takes the images before they are normalised.
    """
    images = trial.images_NHWC if pixels else trial.images_NCHW
    largest = float(np.abs(expected_NK).max())
    bound = share * max(1.0, largest)
    worst: dict[int, float] = {}
    found_NK = expected_NK
    for batch in trial.batches:
        count = trial.num_tried(batch)
        rows = [run(images[start : min(start + batch, count)]) for start in range(0, count, batch)]
        found_NK = np.concatenate(rows)
        if found_NK.shape != expected_NK[:count].shape:
            raise CheckFailed(_other_shape(min(batch, count), rows[0].shape, expected_NK.shape[1]))
        worst[batch] = float(np.abs(found_NK - expected_NK[:count]).max())
    expected_N, found_N = expected_NK.argmax(axis=1), found_NK.argmax(axis=1)
    # In fp16 two logits that are as good as equal may change places; further apart than the bound, none may.
    margin_N = expected_NK.max(axis=1) - np.take_along_axis(expected_NK, found_N[:, None], axis=1)[:, 0]
    swapped_N = (expected_N != found_N) & ((margin_N > bound) | (share <= FP32_SHARE))
    return Agreement(
        worst_by_batch=worst,
        largest_logit=largest,
        bound=bound,
        num_images=len(images),
        num_same=int((expected_N == found_N).sum()),
        num_swapped=int(swapped_N.sum()),
        images=trial.what,
        note=trial.note,
    )


def _other_shape(batch: int, found: tuple[int, ...], num_classes: int) -> str:
    numbers = " x ".join(map(str, found))
    return f"for a batch of {batch} it gives numbers of shape {numbers}, expected {batch} x {num_classes}"


def require_agreement(agreement: Agreement, what: str) -> None:
    """Raise CheckFailed where `what`, an export, does not answer as its bundle does."""
    if agreement.problem is not None:
        raise CheckFailed(f"{what} does not answer as the bundle does: {agreement.problem}; nothing is written")
