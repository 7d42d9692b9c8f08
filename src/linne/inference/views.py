"""Test-time augmentation: several views of an image, and what the answer to each of them counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from linne.preprocess import UInt8
from linne.recipe import Views

REACH = 1
"""Pixels that a crop looks beyond the image, whose border is reflected there."""


class View(NamedTuple):
    """One way to look at an image."""

    weight: float
    """Its part of the answer."""
    shift: int = 0
    """How far down and to the right of the image, in pixels, the view begins."""
    mirrored: bool = False


VIEWS: dict[Views, tuple[View, ...]] = {
    "flip": (View(1 / 2), View(1 / 2, mirrored=True)),
    "crops": (
        View(1 / 4),
        View(1 / 4, mirrored=True),
        View(1 / 8, -REACH),
        View(1 / 8, -REACH, mirrored=True),
        View(1 / 8, REACH),
        View(1 / 8, REACH, mirrored=True),
    ),
}
"""Half of `crops` is what the image and its mirror say, half what its shifted copies do (Jordan 2024,
https://arxiv.org/abs/2404.00498)."""


def views_of(images_NHWC: UInt8, views: Views) -> Iterator[tuple[float, UInt8]]:
    """Yield each view of the images, at their size, after its weight."""
    _, height, width, _ = images_NHWC.shape
    border = (REACH, REACH)
    padded = np.pad(images_NHWC, ((0, 0), border, border, (0, 0)), mode="reflect")
    for weight, shift, mirrored in VIEWS[views]:
        first = REACH + shift
        seen = padded[:, first : first + height, first : first + width]
        yield weight, np.ascontiguousarray(seen[:, :, ::-1] if mirrored else seen)
