"""`synthetic`: seeded striped images that any model learns quickly, for tests and for trying things without data."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from linne.data.source import Ints, UInt8
from linne.data.sources.arrays import array_identities, array_split
from linne.data.split import Examples
from linne.errors import SourceError, suggest

_MAX_VALUES = 2**30


@dataclass(frozen=True, slots=True)
class _Spec:
    classes: int = 4
    height: int = 16
    width: int = 16
    channels: int = 3
    count: int = 400
    seed: int = 0


_RANGES = {
    "classes": (2, 1000),
    "height": (4, 1024),
    "width": (4, 1024),
    "channels": (1, 3),
    "count": (2, 10_000_000),
    "seed": (0, 2**32 - 1),
}


def open_synthetic(location: str | None, root: Path | None) -> Examples:
    """Return striped images; a class has its own tint and direction of stripes, an image its own phase and noise.

    `location` overrides the defaults, as in `classes=4,size=16,count=400,channels=3,seed=0`; `size` sets `height`
    and `width`. The classes take turns, so they are equally frequent.

    Raises:
        SourceError: an option is unknown, not a number or out of range.
    """
    spec = _parse(location or "")
    images_NHWC, labels_N = _stripes(spec)
    digits = len(str(spec.classes - 1))
    return Examples(
        labels=tuple(f"stripes-{k:0{digits}d}" for k in range(spec.classes)),
        given={"train": array_split("train", images_NHWC, labels_N, "synthetic")},
        channels=spec.channels,
        image_size=(spec.height, spec.width),
        same_size=True,
        identities=array_identities,
    )


def _parse(text: str) -> _Spec:
    spec, names = _Spec(), [field.name for field in fields(_Spec)]
    for option in filter(None, text.split(",")):
        name, _, value = option.partition("=")
        targets = ("height", "width") if name == "size" else (name,)
        if targets[0] not in names:
            known = f"known: {', '.join(names)}, size"
            raise SourceError(f"`synthetic` has no option `{name}`", hint=suggest(name, (*names, "size")) or known)
        low, high = _RANGES[targets[0]]
        if not value.isdecimal() or not low <= int(value) <= high or (name == "channels" and int(value) == 2):
            expected = "1 or 3" if name == "channels" else f"a whole number from {low} to {high}"
            raise SourceError(f"`synthetic` has {name}=`{value}`, expected {expected}")
        spec = replace(spec, **dict.fromkeys(targets, int(value)))
    if spec.count < spec.classes:
        raise SourceError(
            f"`synthetic` has count={spec.count}, expected at least one for each of {spec.classes} classes"
        )
    if spec.count * spec.height * spec.width * spec.channels > _MAX_VALUES:
        raise SourceError(f"`synthetic` would take more than {_MAX_VALUES // 2**20} MiB", hint="lower count or size")
    return spec


def _stripes(spec: _Spec) -> tuple[UInt8, Ints]:
    rng = np.random.Generator(np.random.PCG64(spec.seed))
    images_NHWC = np.empty((spec.count, spec.height, spec.width, spec.channels), np.uint8)
    labels_N = np.arange(spec.count, dtype=np.int64) % spec.classes
    y_HW, x_HW = np.mgrid[: spec.height, : spec.width].astype(np.float32)
    for index, label in enumerate(labels_N.tolist()):
        angle = np.pi * label / spec.classes
        # Five pixels from stripe to stripe show their direction in an 8 x 8 image and are still sampled well.
        phase_HW = (x_HW * np.cos(angle) + y_HW * np.sin(angle)) * (2 * np.pi / 5) + rng.uniform(0, 2 * np.pi)
        image_HWC = _tint(label, spec) + 40 * np.sin(phase_HW)[..., None]
        images_NHWC[index] = np.clip(image_HWC + rng.normal(0, 12, image_HWC.shape), 0, 255)
    return images_NHWC, labels_N


def _tint(label: int, spec: _Spec) -> NDArray[np.float64]:
    """Return the mean colour of a class: a place on the colour circle, or a grey level. Mirroring keeps it."""
    if spec.channels == 1:
        return np.array([64 + 128 * label / (spec.classes - 1)])
    return 128 + 50 * np.cos(2 * np.pi * (label / spec.classes + np.arange(3) / 3))
