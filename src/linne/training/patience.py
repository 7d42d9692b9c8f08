"""Early stopping: when so many epochs brought nothing that training ends."""

from __future__ import annotations

from typing import Any


class Patience:
    """Counts the epochs since the validation accuracy was higher than ever before."""

    def __init__(self, most: int) -> None:
        self.most = most
        """Epochs without a higher accuracy that end training."""
        self.num_worse = 0
        self._best = -1.0

    @property
    def is_over(self) -> bool:
        """Whether training ends now."""
        return self.num_worse >= self.most

    def update(self, accuracy: float) -> None:
        """Take note of an epoch's validation accuracy."""
        if accuracy > self._best:
            self._best, self.num_worse = accuracy, 0
        else:
            self.num_worse += 1

    def state(self) -> dict[str, Any]:
        """Return what a restart needs."""
        return {"best": self._best, "num_worse": self.num_worse}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._best, self.num_worse = state["best"], state["num_worse"]
