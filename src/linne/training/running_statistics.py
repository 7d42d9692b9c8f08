"""Batch norms whose running statistics stay as they are for a while."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms of `model` that keep running statistics."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


@contextmanager
def held(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Inside, `norms` compute as in training and their running statistics do not move.

    For passes that only repeat what the statistics have seen. With a momentum of 0, and not without tracking: what is
    kept for the backward pass stays the same.
    """
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
