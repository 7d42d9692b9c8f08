"""RandAugment and TrivialAugment: which operation each image of a batch gets, and how strong.

Both tables are the published ones, as torchvision carries them (`RandAugment`, `TrivialAugmentWide`), with three
differences, which docs/concepts/augmentation.md names: images are warped bilinearly, the mean of the data lies
outside, and no image is shifted by more than its side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from linne.data.loading import augment_ops as ops
from linne.device import Device

Floats = NDArray[np.float32]
Geometry = Callable[[Floats, int, int], Floats]
"""Strengths, height and width to matrices as `ops.warp` takes them."""

NUM_LEVELS = 31
OP, LEVEL, SIGN = range(3)
"""Places of a layer's random numbers."""


def shear_x(strengths_B: Floats, height: int, width: int) -> Floats:
    """Return matrices that move each row by `strength` pixels for every row above it."""
    return _matrices(1, strengths_B, 0, 0, 1, 0)


def shear_y(strengths_B: Floats, height: int, width: int) -> Floats:
    """Return matrices that move each column by `strength` pixels for every column left of it."""
    return _matrices(1, 0, 0, strengths_B, 1, 0)


def translate_x(strengths_B: Floats, height: int, width: int) -> Floats:
    """Return matrices that move images to the left by `strength` pixels, cut off to whole ones."""
    return _matrices(1, 0, np.trunc(strengths_B), 0, 1, 0)


def translate_y(strengths_B: Floats, height: int, width: int) -> Floats:
    """Return matrices that move images up by `strength` pixels, cut off to whole ones."""
    return _matrices(1, 0, 0, 0, 1, np.trunc(strengths_B))


def rotate(degrees_B: Floats, height: int, width: int) -> Floats:
    """Return matrices that turn images about their middle, against the clock."""
    angles_B = np.radians(degrees_B)
    cos, sin, x, y = np.cos(angles_B), np.sin(angles_B), width / 2, height / 2
    return _matrices(cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


def warp(images_BCHW: torch.Tensor, matrices_B23: torch.Tensor, fill_C: torch.Tensor) -> torch.Tensor:
    """Return what `ops.warp` does, on a CPU a few images at a time."""
    return ops.in_pieces(lambda images, matrices: ops.warp(images, matrices, fill_C), images_BCHW, matrices_B23)


def _matrices(*entries: NDArray[np.floating] | float) -> Floats:
    """Return B x 2 x 3 from its six entries, row by row."""
    matrices: Floats = np.stack(np.broadcast_arrays(*entries), axis=-1).astype(np.float32).reshape(-1, 2, 3)
    return matrices


def _factor(op: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return `op` with strengths around 0 for factors around 1."""
    return lambda images_BCHW, strengths_B: op(images_BCHW, 1 + strengths_B)


GEOMETRY: dict[str, Geometry] = {
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
    "rotate": rotate,
}
PIXELS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "identity": lambda images_BCHW, _: images_BCHW,
    "brightness": _factor(ops.brightness),
    "color": _factor(ops.saturation),
    "contrast": _factor(ops.contrast),
    "sharpness": _factor(ops.sharpness),
    "posterize": ops.posterize,
    "solarize": ops.solarize,
    "autocontrast": lambda images_BCHW, _: ops.autocontrast(images_BCHW),
    "equalize": lambda images_BCHW, _: ops.equalize(images_BCHW),
}


@dataclass(frozen=True, slots=True)
class Scale:
    """How strong an operation is, from the lowest level to the highest."""

    weakest: float = 0.0
    strongest: float = 0.0
    signed: bool = False
    """Whether half of the images get the opposite."""

    def at(self, levels_B: Floats, negative_B: NDArray[np.bool_]) -> Floats:
        """Return the strengths at `levels_B`, 0 to `NUM_LEVELS` - 1."""
        strengths_B = self.weakest + (self.strongest - self.weakest) * levels_B / (NUM_LEVELS - 1)
        return np.where(negative_B & self.signed, -strengths_B, strengths_B).astype(np.float32)


def trivial_wide(height: int, width: int) -> dict[str, Scale]:
    """Return TrivialAugment's wide table (Mueller and Hutter 2021)."""
    return _table(0.99, min(32.0, height), min(32.0, width), 135.0, 0.99, 2)


def rand(height: int, width: int) -> dict[str, Scale]:
    """Return RandAugment's table (Cubuk et al. 2019); its shifts were 150 of 331 pixels."""
    return _table(0.3, 150 / 331 * height, 150 / 331 * width, 30.0, 0.9, 4)


def geometry(shear: float, down: float, across: float, degrees: float) -> dict[str, Scale]:
    """Return how far images are sheared, shifted (in pixels) and turned at most."""
    return {
        "shear_x": Scale(0, shear, True),
        "shear_y": Scale(0, shear, True),
        "translate_x": Scale(0, across, True),
        "translate_y": Scale(0, down, True),
        "rotate": Scale(0, degrees, True),
    }


def _table(shear: float, down: float, across: float, degrees: float, factor: float, bits: int) -> dict[str, Scale]:
    colour = {name: Scale(0, factor, True) for name in ("brightness", "color", "contrast", "sharpness")}
    tables = {"posterize": Scale(8, bits), "solarize": Scale(255, 0)}
    return {
        **geometry(shear, down, across, degrees),
        **colour,
        **tables,
        **{name: Scale() for name in ("autocontrast", "equalize", "identity")},
    }


def apply(
    images_BCHW: torch.Tensor,
    draws_BD: Floats,
    table: Mapping[str, Scale],
    level: int | None,
    fill_C: torch.Tensor,
    device: Device,
) -> torch.Tensor:
    """Return each image after one operation of `table`, all equally likely, at `level` or, with None, any level.

    `draws_BD` are `uniforms` at the places `OP`, `LEVEL` and `SIGN`.
    """
    levels_B = np.floor(draws_BD[:, LEVEL] * NUM_LEVELS) if level is None else np.full(len(draws_BD), level, np.float32)
    return apply_at(images_BCHW, draws_BD, levels_B, table, fill_C, device)


def apply_at(
    images_BCHW: torch.Tensor,
    draws_BD: Floats,
    levels_B: Floats,
    table: Mapping[str, Scale],
    fill_C: torch.Tensor,
    device: Device,
) -> torch.Tensor:
    """Return each image after one operation of `table`, all equally likely, at the level of its own."""
    _, _, height, width = images_BCHW.shape
    ops_B = (draws_BD[:, OP] * len(table)).astype(np.int64)
    negative_B = draws_BD[:, SIGN] < 0.5
    # Sorted by operation, images that share one lie side by side, and every warp is part of one.
    order_B = np.argsort(ops_B, kind="stable")
    ends = np.searchsorted(ops_B[order_B], np.arange(len(table)), side="right").tolist()
    matrices, strengths, start = [], [], 0
    for (name, scale), stop in zip(table.items(), ends, strict=True):
        here = order_B[start:stop]
        strengths.append(scale.at(levels_B[here], negative_B[here]))
        if name in GEOMETRY:
            matrices.append(GEOMETRY[name](strengths[-1], height, width))
        start = stop
    order = device.put(torch.from_numpy(order_B))
    strengths_B = device.put(torch.from_numpy(np.concatenate(strengths)))
    sorted_BCHW = images_BCHW.index_select(0, order)
    start = sum(len(part) for part in matrices)
    parts = []
    if start:
        matrices_B23 = device.put(torch.from_numpy(np.concatenate(matrices)))
        parts.append(warp(sorted_BCHW[:start], matrices_B23, fill_C))
    for name, stop in zip(table, ends, strict=True):
        if stop > start:
            parts.append(ops.in_pieces(PIXELS[name], sorted_BCHW[start:stop], strengths_B[start:stop]))
            start = stop
    return torch.empty_like(sorted_BCHW).index_copy_(0, order, torch.cat(parts))
