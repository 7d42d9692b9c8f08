"""Tensors for another number of channels or another image size than they were trained at."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from linne.weights.roles import Roles

POSITIONS = ("pos_embed", "pos_embedding", "position_embeddings", "position_embedding")
TABLES = ("relative_position_bias_table",)
PREFIX_TOKENS = (1, 0, 2, 5)
"""Embeddings before the grid's: a class token, none, with a distillation token, with four registers."""


@dataclass(frozen=True, slots=True)
class Change:
    """A tensor made to fit, and what was done to it."""

    tensor: torch.Tensor
    how: str


def adapt_stem(name: str, found: torch.Tensor, own: torch.Tensor, roles: Roles) -> Change | None:
    """Return the first convolution's weights O x C x H x W for one channel in place of three or the reverse.

    From 3 to 1 they are summed: a grey image in all three colours gives sum_c(w_c * x) = sum_c(w_c) * x, so the
    answer to it does not change. From 1 to 3 each colour gets a third, so that a colour image is seen as the average
    of its colours, and a grey one as before. None where the shapes differ in another way.
    """
    if name not in roles.stems or found.ndim != 4 or own.ndim != 4:
        return None
    if (found.shape[0], *found.shape[2:]) != (own.shape[0], *own.shape[2:]):
        return None
    if (found.shape[1], own.shape[1]) == (3, 1):
        return Change(found.float().sum(dim=1, keepdim=True), "3 channels summed to 1")
    if (found.shape[1], own.shape[1]) == (1, 3):
        return Change(found.float().repeat(1, 3, 1, 1) / 3, "1 channel spread over 3")
    return None


def adapt_position(name: str, found: torch.Tensor, own: torch.Tensor) -> Change | None:
    """Return position embeddings 1 x N x D or a window's table N x heads, interpolated to another square grid.

    Bicubic, blurred before it shrinks, which is what timm does. None where they are none, or no square grid explains
    both sizes.
    """
    last = name.rpartition(".")[2]
    if last in POSITIONS and found.ndim == own.ndim == 3 and found.shape[0] == own.shape[0] == 1:
        rows, unit = (found[0], own.shape[1]), "patches"
    elif last in TABLES and found.ndim == own.ndim == 2:
        rows, unit = (found, own.shape[0]), "distances"
    else:
        return None
    old, length = rows
    if old.shape[-1] != own.shape[-1]:
        return None
    for extra in PREFIX_TOKENS if unit == "patches" else (0,):
        before, after = _side(old.shape[0] - extra), _side(length - extra)
        if before and after:
            grid = old[extra:].float().T.reshape(1, -1, before, before)
            resized = functional.interpolate(grid, size=(after, after), mode="bicubic", antialias=True)
            tensor = torch.cat([old[:extra].float(), resized.reshape(old.shape[1], -1).T])
            return Change(tensor.reshape(own.shape), f"{before} x {before} to {after} x {after} {unit}")
    return None


def _side(count: int) -> int | None:
    """Return the side of a square of `count`, or None."""
    side = math.isqrt(count) if count > 0 else 0
    return side if side and side * side == count else None
