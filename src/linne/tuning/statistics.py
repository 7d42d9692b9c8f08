"""What times say: percentiles of one way to run, and whether one is faster than another or it is noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

LEAST_GAIN = 0.02
"""A change by less is called none, however sure it is: it is not worth another way to run."""
LEAST_PAIRS = 6
"""Fewer pairs cannot show anything at 95 %: the chance that all of five fall on one side is 6 %."""

Verdict = Literal["faster", "slower", "no difference"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """Milliseconds a batch, after warming up, and what they make."""

    num_batches: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    images_per_second: float
    """Batch size over the median time."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)


def times_of(samples_ms: Sequence[float], batch: int) -> Times:
    """Return what `samples_ms`, the times of batches of `batch` images, say."""
    p50, p95, p99 = (float(value) for value in np.percentile(np.asarray(samples_ms), (50, 95, 99)))
    return Times(num_batches=len(samples_ms), p50_ms=p50, p95_ms=p95, p99_ms=p99, images_per_second=1000 * batch / p50)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """How many times as fast the second of two ways to run is; both took turns, and each turn gave one pair."""

    ratio: float
    """The median of the pairs' ratios; above 1 the second is faster."""
    low: float
    """Of the interval that holds it with 95 % or more."""
    high: float
    num_pairs: int

    @property
    def verdict(self) -> Verdict:
        """Return whether the second is faster, as far as the interval can tell."""
        if self.low > 1 and self.ratio >= 1 + LEAST_GAIN:
            return "faster"
        if self.high < 1 and self.ratio <= 1 / (1 + LEAST_GAIN):
            return "slower"
        return "no difference"

    def in_words(self) -> str:
        """Return `1.83x (1.79 to 1.88)`, or that there is no difference."""
        interval = f"({self.low:.2f} to {self.high:.2f})"
        return f"no difference {interval}" if self.verdict == "no difference" else f"{self.ratio:.2f}x {interval}"


def compare(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """Return how many times as fast `second` is, from the seconds an image of each turn of two that took turns.

    The interval is that of the median by order statistics: it takes nothing for granted but that turns are
    independent. Program load that comes and goes falls on both of a pair.

    Raises:
        ValueError: there are fewer than `LEAST_PAIRS` pairs.
    """
    ratios = np.sort(np.asarray(first, np.float64) / np.asarray(second, np.float64))
    place = _rank(len(ratios))
    return Comparison(
        ratio=float(np.median(ratios)),
        low=float(ratios[place]),
        high=float(ratios[-1 - place]),
        num_pairs=len(ratios),
    )


def _rank(count: int) -> int:
    """Return how many of `count` sorted values may be left out on each side so that 95 % for the median stay."""
    if count < LEAST_PAIRS:
        raise ValueError(f"{count} pairs, expected {LEAST_PAIRS} or more")
    outside, place = 0.0, 0
    while True:
        outside += 2 * math.comb(count, place) / 2**count
        if outside > 0.05:
            return place - 1
        place += 1
