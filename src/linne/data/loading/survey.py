"""A first look at a split's images: how bright they are, and how fast threads read and decode them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from linne.data.images.decode import reduced, to_channels
from linne.data.source import Split
from linne.errors import ImageError, SourceError

Floats = NDArray[np.float64]

NUM_SURVEYED = 512
"""Images that are looked at."""
SIDE = 256
"""A JPEG is decoded at a half, a quarter or an eighth while it keeps so many rows and columns."""
GRID = 128
"""Rows and columns of pixels that are measured, evenly spread over an image; smaller images whole."""
LEAST_EACH = 4
"""Images that each thread is timed on."""
LEAST_GAIN = 1.05
"""What more threads must be faster by: else the disk, the processors granted or the interpreter are the limit."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found."""

    mean: tuple[float, ...]
    """One value a channel, of pixels scaled to 0-1."""
    std: tuple[float, ...]
    rates: Mapping[int, float]
    """Images a second by number of threads, while more were faster; empty for images that need no decoding."""

    @property
    def threads(self) -> int:
        """The fewest threads that no other number outruns by much."""
        return _fewest(self.rates) if self.rates else 1


@dataclass(frozen=True, eq=False, slots=True)
class _Sums:
    """Of one image's pixels."""

    count: int
    total_C: Floats
    squares_C: Floats


def survey(split: Split, channels: int, num_cores: int) -> Survey:
    """Return mean and deviation of up to 512 images spread over `split`, and the rates of 1 to `num_cores` threads.

    Raises:
        SourceError: none of the images can be read.
    """
    positions = np.unique(np.linspace(0, len(split) - 1, NUM_SURVEYED).astype(np.int64)).tolist()
    if split.store.array is None:
        found, rates = _timed(split, channels, positions, num_cores)
    else:
        found, rates = {position: _look(split, channels, position) for position in positions}, {}
    sums = [found[position] for position in positions]  # one order, whichever threads were first
    count, total_C, squares_C = 0, np.zeros(channels), np.zeros(channels)
    for one in sums:
        if isinstance(one, _Sums):
            count, total_C, squares_C = count + one.count, total_C + one.total_C, squares_C + one.squares_C
    if count == 0:
        raise SourceError(f"no image could be read: {sums[-1]}")
    mean_C = total_C / count
    # Images of one even colour have no deviation; 1/255 keeps the division defined.
    std_C = np.sqrt(np.maximum(squares_C / count - mean_C**2, (1 / 255) ** 2))
    return Survey(_rounded(mean_C), _rounded(std_C), rates)


def _timed(
    split: Split, channels: int, positions: Sequence[int], num_cores: int
) -> tuple[dict[int, _Sums | str], dict[int, float]]:
    """Return what is found at each position, and images a second by the number of threads at work.

    The number doubles while that is faster, up to the cores. Each gets images from all over the split.
    """
    levels = [1]
    while levels[-1] < num_cores and len(positions) >= LEAST_EACH * (sum(levels) + 2 * levels[-1]):
        levels.append(min(2 * levels[-1], num_cores))
    found: dict[int, _Sums | str] = {
        positions[0]: _look(split, channels, positions[0])
    }  # the first call of all is slow
    rest: list[int] = np.random.default_rng(0).permutation(positions[1:]).tolist()
    rates: dict[int, float] = {}
    for threads in levels:
        now = rest[: max(len(positions) // sum(levels), 1) * threads]
        rest = rest[len(now) :]
        rates[threads] = len(now) / max(_look_at(split, channels, now, threads, found), 1e-9)
        if rates[threads] < LEAST_GAIN * rates.get(threads // 2, 0):
            break
    _look_at(split, channels, rest, _fewest(rates), found)
    return found, rates


def _look_at(
    split: Split, channels: int, positions: Sequence[int], threads: int, found: dict[int, _Sums | str]
) -> float:
    """Add what is at `positions` to `found` and return the seconds that `threads` threads took."""
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        looks = pool.map(lambda position: _look(split, channels, position), positions)
        found.update(zip(positions, looks, strict=True))
    return time.perf_counter() - start


def _look(split: Split, channels: int, position: int) -> _Sums | str:
    """Return the sums of an image, or why it cannot be read; that is named and counted when all images are loaded."""
    try:
        image = split.load(position)
        if isinstance(image, bytes):
            image, _ = reduced(image, channels, lambda height, width: (SIDE, SIDE), name=split.example_name(position))
    except ImageError as error:
        return error.message
    height, width, _ = image.shape
    part_HWC = to_channels(image, channels)[:: -(-height // GRID), :: -(-width // GRID)]
    pixels_NC = part_HWC.reshape(-1, channels).astype(np.float64) / 255.0
    return _Sums(len(pixels_NC), pixels_NC.sum(0), (pixels_NC**2).sum(0))


def _fewest(rates: Mapping[int, float]) -> int:
    return min(number for number, rate in rates.items() if rate * LEAST_GAIN >= max(rates.values()))


def _rounded(values_C: Floats) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values_C)
