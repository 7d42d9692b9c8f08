"""Tensors for another number of channels or another image size than they were trained at."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from linne.weights.roles import Roles

POSITIONS = re.compile(r"(.*\.)?(pos_embed|pos_embedding|position_embeddings|position_embedding)\d*")
TABLE = "relative_position_bias_table"
FIRST_TOKENS = (1, 0, 2, 5)
"""Rows before the grid's: of a class token, none, of a distillation token too, of four registers too."""
LAST_TOKENS = (0, 3)
"""Rows after a table's grid: none, or BEiT's three for the class token."""


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
    if name not in roles.stems or not found.ndim == own.ndim == 4 or _but_channels(found) != _but_channels(own):
        return None
    if (found.shape[1], own.shape[1]) == (3, 1):
        return Change(found.float().sum(dim=1, keepdim=True), "3 channels summed to 1")
    if (found.shape[1], own.shape[1]) == (1, 3):
        return Change(found.float().repeat(1, 3, 1, 1) / 3, "1 channel spread over 3")
    return None


def adapt_position(name: str, found: torch.Tensor, own: torch.Tensor) -> Change | None:
    """Return position embeddings, or a window's table N x heads, for another grid.

    Embeddings are 1 x N x D of a square grid, 1 x H x W x D or 1 x D x H x W. Each of D or heads is an image of one
    number a place and is resized as one: bicubic, and blurred before it shrinks, as timm does it. None where they are
    none, or no square grid explains both sizes.
    """
    if POSITIONS.fullmatch(name) and found.ndim == own.ndim == 4:
        return _adapt_map(found, own)
    squares = _squares(name, found.shape, own.shape)
    if squares is None:
        return None
    first, before, after = squares
    rows = found.reshape(-1, found.shape[-1]).float()
    grid = rows[first : first + before**2].T.reshape(1, -1, before, before)
    resized = functional.interpolate(grid, size=(after, after), mode="bicubic", antialias=True)
    parts = [rows[:first], resized.reshape(rows.shape[1], -1).T, rows[first + before**2 :]]
    return Change(torch.cat(parts).reshape(own.shape), describe_resize(name, found.shape, own.shape))


def _adapt_map(found: torch.Tensor, own: torch.Tensor) -> Change | None:
    """Return embeddings 1 x H x W x D or 1 x D x H x W at the size of `own`, or None where D cannot be told."""
    same = [before == after for before, after in zip(found.shape, own.shape, strict=True)]
    if same[0] and same[1] and not same[3]:
        to_channels, back = (0, 1, 2, 3), (0, 1, 2, 3)
    elif same[0] and same[3] and not same[1]:
        to_channels, back = (0, 3, 1, 2), (0, 2, 3, 1)
    else:
        return None
    before, after = found.float().permute(to_channels), own.permute(to_channels).shape[2:]
    resized = functional.interpolate(before, size=tuple(after), mode="bicubic", antialias=True)
    sizes = (f"{height} x {width}" for height, width in (before.shape[2:], after))
    return Change(resized.permute(back), f"{' to '.join(sizes)} patches")


def describe_resize(name: str, before: Sequence[int], after: Sequence[int]) -> str:
    """Return how the tensor `name` changed its size, in patches where it is of position embeddings."""
    squares = _squares(name, before, after)
    if squares is None:
        return f"{' x '.join(map(str, before))} to {' x '.join(map(str, after))}"
    unit = "distances" if name.endswith(TABLE) else "patches"
    return f"{squares[1]} x {squares[1]} to {squares[2]} x {squares[2]} {unit}"


def _squares(name: str, before: Sequence[int], after: Sequence[int]) -> tuple[int, int, int] | None:
    """Return (rows before the grid, its side before, its side after), or None."""
    dims = (len(before), len(after))
    if before[-1:] != after[-1:]:
        return None
    if POSITIONS.fullmatch(name) and dims == (3, 3) and before[0] == after[0] == 1:
        others = [(first, 0) for first in FIRST_TOKENS]
    elif name.endswith(TABLE) and dims == (2, 2):
        others = [(0, end) for end in LAST_TOKENS]
    else:
        return None
    for first, end in others:
        old, new = _side(before[-2] - first - end), _side(after[-2] - first - end)
        if old and new:
            return first, old, new
    return None


def _but_channels(tensor: torch.Tensor) -> tuple[int, ...]:
    return (tensor.shape[0], *tensor.shape[2:])


def _side(count: int) -> int | None:
    """Return the side of a square of `count`, or None."""
    side = math.isqrt(count) if count > 0 else 0
    return side if side and side * side == count else None
