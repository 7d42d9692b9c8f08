"""Sharpness-aware minimisation: gradients from the highest loss nearby rather than from where the weights are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from linne.training.running_statistics import batch_norms, held


class Sharpness:
    """Moves weights up the gradient and back (Foret et al. 2020)."""

    def __init__(self, model: nn.Module, parameters: Sequence[nn.Parameter], rho: float) -> None:
        """`rho` is the length of the move, over all `parameters` together."""
        self._rho = rho
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
                torch._foreach_copy_(weights, before)

    @torch.no_grad()
    def _climb(self, weights: list[torch.Tensor]) -> list[torch.Tensor]:
        """Move `weights`, drop all gradients, and return what they were."""
        before = [weight.clone() for weight in weights]
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        torch._foreach_mul_(gradients, self._rho / (norm + 1e-12))
        torch._foreach_add_(weights, gradients)
        for weight in self._parameters:
            weight.grad = None
        return before
