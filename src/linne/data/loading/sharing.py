"""Which part of every batch is one process's, where several train together: pure functions of positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Share:
    """One process's part of everything that is gone through in batches; alone, it has all."""

    rank: int = 0
    """Which of the processes, from 0."""
    size: int = 1
    """How many processes there are."""

    def of(self, positions_N: Ints) -> Ints:
        """Return this process's part: the parts follow one another, and differ in size by at most one."""
        return np.array_split(positions_N, self.size)[self.rank]

    def after_neighbour(self, batch_N: Ints) -> Ints:
        """Return this process's part after the example before it in the batch, cyclically, which it is mixed with."""
        first = sum(map(len, np.array_split(batch_N, self.size)[: self.rank]))
        return np.concatenate((batch_N[first - 1 : first] if first else batch_N[-1:], self.of(batch_N)))

    def weight(self, batch_N: Ints) -> float:
        """Return what the mean over this process's part counts, so that the mean over processes is the batch's mean."""
        return self.size * len(self.of(batch_N)) / len(batch_N)
