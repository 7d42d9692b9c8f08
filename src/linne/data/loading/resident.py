"""Pixels of whole splits as one uint8 array at the model's input size, lent without a copy where they are one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from linne.data.loading.pixel_cache import Kept, PixelCache, gigabytes
from linne.data.names import printable
from linne.data.source import ImageStore, Split
from linne.errors import ImageError, SourceError
from linne.preprocess import InputSpec, Resize, UInt8

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pixels:
    """The images of some splits, each once."""

    images_NHWC: UInt8
    rows: list[Ints]
    """One array a split: the row of each example in `images_NHWC`, -1 where it cannot be read."""
    bad_images: list[list[str]]
    """One list a split: what cannot be read, and why."""
    note: str | None = None
    """What was kept on disk for the next run, or had back from an earlier one."""


def load_pixels(
    splits: Sequence[Split],
    spec: InputSpec,
    max_bad_images: int,
    resize: Resize,
    *,
    cache: PixelCache | None = None,
    advance: Callable[[int], None] | None = None,
) -> Pixels:
    """Return the pixels of `splits` at `spec`'s size.

    A store that holds an array of that size lends it; a grey one is lent to a colour model as it is (one channel,
    to be repeated a batch at a time). Everything else is decoded and resized once, by threads. Files that took long
    are kept in `cache`, and had back from there.

    Raises:
        SourceError: more than `max_bad_images` images cannot be read.
    """
    lent = _lend(splits, spec)
    if lent is not None:
        return Pixels(lent, [split.indices_N for split in splits], [[] for _ in splits])
    parts = _by_store(splits)
    kept, note = _kept_or_decoded(parts, spec, resize, cache, advance)
    if len(kept.problems) > max_bad_images:
        raise too_many_bad_images(list(kept.problems.values()), max_bad_images)
    found = {id(part.store): (part.indices_N, first) for part, first in _with_first_rows(parts)}
    rows, bad_images = [], []
    for split in splits:
        indices_N, first = found[id(split.store)]
        rows_N = first + np.searchsorted(indices_N, split.indices_N)
        unreadable_N = np.isin(rows_N, list(kept.problems))
        bad_images.append([kept.problems[row] for row in rows_N[unreadable_N].tolist()])
        rows.append(np.where(unreadable_N, -1, rows_N))
    return Pixels(kept.images_NHWC, rows, bad_images, note)


def _kept_or_decoded(
    parts: Sequence[Split],
    spec: InputSpec,
    resize: Resize,
    cache: PixelCache | None,
    advance: Callable[[int], None] | None,
) -> tuple[Kept, str | None]:
    """Return the pixels of `parts`, and what to say about the cache."""
    place = None if cache is None else cache.place(parts, spec, resize)
    if cache is None or place is None:
        return _decode(parts, spec, resize, advance), None
    kept = cache.load(place)
    if kept is not None:
        if advance is not None:
            advance(len(kept.images_NHWC))
        return kept, f"pixels  {gigabytes(kept.images_NHWC.nbytes)} decoded by an earlier run, from {printable(place)}"
    start = time.perf_counter()
    kept = _decode(parts, spec, resize, advance)
    return kept, cache.save(place, kept) if time.perf_counter() - start > cache.worth_seconds else None


def _by_store(splits: Sequence[Split]) -> list[Split]:
    """Return what `splits` hold of each store, every image once and in the store's order.

    So all folds of a set find the same pixels kept.
    """
    stores = {id(split.store): split.store for split in splits}
    parts = []
    for store in stores.values():
        indices_N = np.unique(np.concatenate([split.indices_N for split in splits if split.store is store]))
        parts.append(Split("all", store, indices_N, np.zeros_like(indices_N)))
    return parts


def _with_first_rows(parts: Sequence[Split]) -> Iterator[tuple[Split, int]]:
    first = 0
    for part in parts:
        yield part, first
        first += len(part)


def _lend(splits: Sequence[Split], spec: InputSpec) -> UInt8 | None:
    """Return the splits' common array when it can serve; a copy in order of a view such as `images[..., ::-1]`."""
    store: ImageStore = splits[0].store
    array = store.array
    if array is None or any(split.store is not store for split in splits):
        return None
    if array.shape[1:3] != (spec.height, spec.width) or spec.crop_pct != 1.0 or array.shape[3] > spec.channels:
        return None
    return np.ascontiguousarray(array)


def _decode(parts: Sequence[Split], spec: InputSpec, resize: Resize, advance: Callable[[int], None] | None) -> Kept:
    images_NHWC = np.empty((sum(map(len, parts)), spec.height, spec.width, spec.channels), dtype=np.uint8)
    problems: dict[int, str] = {}

    def decode(part: Split, first: int, position: int) -> None:
        try:
            images_NHWC[first + position] = part.cropped(position, spec, resize)
        except ImageError as error:
            problems[first + position] = error.message
        if advance is not None:
            advance(1)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for part, first in _with_first_rows(parts):
            for _ in pool.map(partial(decode, part, first), range(len(part))):
                pass
    return Kept(images_NHWC, dict(sorted(problems.items())))


def too_many_bad_images(problems: Sequence[str], limit: int) -> SourceError:
    """Return the error for a set with more unreadable images than a run puts up with."""
    listed = "\n".join(f"  {problem}" for problem in problems[:10])
    return SourceError(
        f"{len(problems)} images cannot be read, more than the {limit} that data.max_bad_images allows:\n{listed}",
        hint=f"remove or replace them, or leave them out: --set data.max_bad_images={max(2 * limit, len(problems))}",
    )
