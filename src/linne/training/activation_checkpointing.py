"""Activations that are computed again in the backward pass instead of being kept for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from linne.errors import RecipeError


def checkpoint_activations(model: nn.Module) -> None:
    """Make `model` keep only what goes into each of its blocks, and compute the rest again (Chen et al. 2016).

    timm's networks know how. In others the blocks are the members of rows: plain `nn.Sequential`s that hold something
    larger than single layers. Names and values of weights stay the same.

    Raises:
        RecipeError: the network has no blocks.
    """
    if hasattr(model, "set_grad_checkpointing"):
        try:
            model.set_grad_checkpointing(True)  # type: ignore[operator]
        except AssertionError:
            raise _no_blocks("timm cannot do it for this network") from None
        return
    rows = list(_rows(model))
    if not rows:
        raise _no_blocks("this network has no row of blocks")
    for row in rows:
        row.is_block = tuple(_has_parts(member) and not _is_row(member) for member in row)  # type: ignore[assignment]
    for row in rows:
        row.__class__ = CheckpointedRow


class CheckpointedRow(nn.Sequential):
    """Keeps what goes into each of its blocks. An existing row becomes one by its class alone."""

    is_block: tuple[bool, ...]
    """One for each member."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return what comes out of the last member."""
        again = self.training and torch.is_grad_enabled()
        for member, is_block in zip(self, self.is_block, strict=True):
            features = checkpoint(member, features, use_reentrant=False) if again and is_block else member(features)
        return features


def _rows(module: nn.Module) -> Iterator[nn.Sequential]:
    """Yield the rows of `module`, but none from within a block."""
    is_row = _is_row(module)
    if is_row:
        yield cast(nn.Sequential, module)
    for child in module.children():
        if not is_row or _is_row(child):
            yield from _rows(child)


def _is_row(module: nn.Module) -> bool:
    return type(module) is nn.Sequential and any(map(_has_parts, module))


def _has_parts(module: nn.Module) -> bool:
    """Return whether `module` is made of other modules and has weights."""
    return any(True for _ in module.children()) and any(True for _ in module.parameters())


def _no_blocks(reason: str) -> RecipeError:
    return RecipeError(
        f"device.checkpoint_activations has nothing to work on: {reason}",
        hint="use --set device.checkpoint_activations=false; a smaller --batch-size needs less memory as well",
    )
