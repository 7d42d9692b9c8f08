"""Sharpness-aware minimisation: gradients from the highest loss nearby rather than from where the weights are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from linne.training.joined import add_scaled, copy_into, total_norm
from linne.training.running_statistics import batch_norms, held


class Sharpness:
    """Moves weights up the gradient and back (Foret et al. 2020)."""

    def __init__(
        self, model: nn.Module, parameters: Sequence[nn.Parameter], rho: float, *, joined: bool = True
    ) -> None:
        """`rho` is the length of the move, over all `parameters` together.

        `joined`: whether the device takes many tensors in one call.
        """
        self._rho, self._joined = rho, joined
        self._parameters = parameters
        self._norms = batch_norms(model)

    @contextmanager
    def uphill(self) -> Iterator[None]:
        """Inside, the weights are w + rho g / |g| and have no gradient; after it they are w again, to the bit.

        Running statistics do not move inside: they belong to w, whose pass has updated them.
        """
        weights = [p.detach() for p in self._parameters if p.grad is not None]
        before = self._climb(weights)
        try:
            with held(self._norms):
                yield
        finally:  # memory may run short inside, and the step is then tried again
            with torch.no_grad():
                copy_into(weights, before, joined=self._joined)

    @torch.no_grad()
    def _climb(self, weights: list[torch.Tensor]) -> list[torch.Tensor]:
        """Move `weights`, drop all gradients, and return what they were."""
        before = [weight.clone() for weight in weights]
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        length = total_norm(gradients, joined=self._joined)
        add_scaled(weights, gradients, self._rho / (length + 1e-12), joined=self._joined)
        for weight in self._parameters:
            weight.grad = None
        return before
