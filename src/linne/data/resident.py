"""Pixels of whole splits as one uint8 array at the model's input size, lent without a copy where they are one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from linne.data.source import ImageStore, Split
from linne.errors import ImageError, SourceError
from linne.preprocess import InputSpec, Resize, UInt8

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pixels:
    """The images of some splits that share a store."""

    images_NHWC: UInt8
    rows: list[Ints]
    """One array a split: the row of each example in `images_NHWC`, -1 where it cannot be read."""
    bad_images: list[list[str]]
    """One list a split: what cannot be read, and why."""


def load_pixels(
    splits: Sequence[Split],
    spec: InputSpec,
    max_bad_images: int,
    resize: Resize,
    advance: Callable[[int], None] | None = None,
) -> Pixels:
    """Return the pixels of `splits` at `spec`'s size.

    A store that holds an array of that size lends it; a grey one is lent to a colour model as it is (one channel,
    to be repeated a batch at a time). Everything else is decoded and resized once, by threads.

    Raises:
        SourceError: more than `max_bad_images` images cannot be read.
    """
    lent = _lend(splits, spec)
    if lent is not None:
        return Pixels(lent, [split.indices_N for split in splits], [[] for _ in splits])
    total = sum(map(len, splits))
    images_NHWC = np.empty((total, spec.height, spec.width, spec.channels), dtype=np.uint8)
    rows, bad_images, first = [], [], 0
    for split in splits:
        problems = _decode_into(images_NHWC[first : first + len(split)], split, spec, resize, advance)
        split_rows = np.arange(first, first + len(split))
        split_rows[list(problems)] = -1
        rows.append(split_rows)
        bad_images.append(list(problems.values()))
        first += len(split)
    named = [name for names in bad_images for name in names]
    if len(named) > max_bad_images:
        raise too_many_bad_images(named, max_bad_images)
    return Pixels(images_NHWC, rows, bad_images)


def _lend(splits: Sequence[Split], spec: InputSpec) -> UInt8 | None:
    """Return the splits' common array when it can serve as it is."""
    store: ImageStore = splits[0].store
    array = store.array
    if array is None or any(split.store is not store for split in splits):
        return None
    if array.shape[1:3] != (spec.height, spec.width) or spec.crop_pct != 1.0 or array.shape[3] > spec.channels:
        return None
    return array


def _decode_into(
    images_NHWC: UInt8, split: Split, spec: InputSpec, resize: Resize, advance: Callable[[int], None] | None
) -> dict[int, str]:
    """Fill `images_NHWC`; return the reason for each position that cannot be read."""
    problems: dict[int, str] = {}

    def decode(position: int) -> None:
        try:
            images_NHWC[position] = split.cropped(position, spec, resize)
        except ImageError as error:
            problems[position] = error.message
        if advance is not None:
            advance(1)

    # Pillow decodes and resizes without the interpreter lock, so threads do it at the speed of the cores.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(decode, range(len(split))):
            pass
    return dict(sorted(problems.items()))


def too_many_bad_images(problems: Sequence[str], limit: int) -> SourceError:
    """Return the error for a set with more unreadable images than a run puts up with."""
    listed = "\n".join(f"  {problem}" for problem in problems[:10])
    return SourceError(
        f"{len(problems)} images cannot be read, more than the {limit} that data.max_bad_images allows:\n{listed}",
        hint=f"remove or replace them, or leave them out: --set data.max_bad_images={max(2 * limit, len(problems))}",
    )
