"""How far work is that takes seconds an image: said while it goes on, a line at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from linne.log import clock
from linne.preprocess import Floats

EVERY_S = 10.0
"""Nothing is said of work that is done sooner."""


class Pace:
    """Says how many images are done, whenever ten seconds have passed since it last did."""

    def __init__(
        self, say: Callable[[str], None] | None, what: str, total: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Count up to `total` images of `what`, with a clock in seconds; nothing is said where `say` is None."""
        self._say, self._what, self._total, self._now = say, what, total, now
        self._done = 0
        self._began = self._said = now()

    def advance(self, count: int) -> None:
        """Count `count` more images as done."""
        self._done += count
        at = self._now()
        if self._say is None or at - self._said < EVERY_S or self._done >= self._total:
            return
        self._said = at
        taken = at - self._began
        left = taken / max(self._done, 1) * (self._total - self._done)
        self._say(f"{self._what}: {self._done:,} of {self._total:,} images, {clock(taken)}, about {clock(left)} left")

    def through(self, run: Callable[[Any], Floats], images: Any, size: int | None) -> Floats:
        """Return what `run` answers to `images`, of which there is at least one, counted.

        Args:
            size: how many images `run` computes at once whatever it is given: it is then given so many. None where
                it computes all of them at once.
        """
        rows = []
        for start in range(0, len(images), size or len(images)):
            piece = images[start : start + (size or len(images))]
            rows.append(run(piece))
            self.advance(len(piece))
        return np.concatenate(rows)
