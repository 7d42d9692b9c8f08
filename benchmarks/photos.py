"""Photographs for the benchmarks: JPEGs of 500 x 375, cut from the two that scikit-learn carries, in ten folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write_photos(folder: Path, count: int, size: tuple[int, int] = (375, 500), quality: int = 90) -> Path:
    """Write `count` parts of photographs as JPEGs of `size` (height, width), and return `folder`."""
    from sklearn.datasets import load_sample_images

    wholes = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    rng = np.random.default_rng(0)
    for number in range(count):
        whole = wholes[number % len(wholes)]
        share = rng.uniform(0.6, 1.0)
        width, height = round(whole.width * share), round(whole.height * share)
        left, top = rng.integers(0, whole.width - width + 1), rng.integers(0, whole.height - height + 1)
        part = whole.crop((left, top, left + width, top + height)).resize(size[::-1], Image.Resampling.BICUBIC)
        place = folder / f"class-{number % 10}"
        place.mkdir(parents=True, exist_ok=True)
        part.save(place / f"{number:05d}.jpg", quality=quality)
    return folder


def mean_kilobytes(folder: Path) -> float:
    """Return the mean size of the files below `folder`."""
    sizes: Sequence[int] = [os.path.getsize(path) for path in folder.rglob("*.jpg")]
    return sum(sizes) / len(sizes) / 1e3
