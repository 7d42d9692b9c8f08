"""How large training images are: smaller than the model's input at first, so that steps take less, then growing.

Progressive resizing, by the formula and with the usual values of MosaicML's Composer. Images that stay smaller than
those of the evaluation make up for random crops, which show objects larger than they are (Touvron et al. 2019,
https://arxiv.org/abs/1906.06423).
"""

from __future__ import annotations

import torch
from torch.nn import functional

from linne.recipe import AugmentConfig, Recipe

Size = tuple[int, int]
"""Height and width."""

LARGEST_FINE_SIDE = 96
FINE, COARSE = 4, 32
"""Sides are multiples of the first, those of images beyond `LARGEST_FINE_SIDE` of the second: each size costs an
accelerator a choice of kernels."""
NUM_LOOKS = 1000
"""At the course of a training, to find all sizes in it."""


def size_at(recipe: Recipe, epoch: int, batch: int, num_batches: int) -> Size:
    """Return the size of the images of batch `batch`, of `num_batches`, in `epoch`, all counted from 0."""
    growing = recipe.optim.epochs - (recipe.augment.size_tune_epochs or 0)
    if epoch >= growing and recipe.augment.size_tune_epochs is not None:
        return recipe.data.height, recipe.data.width
    return _size(recipe, (epoch + batch / num_batches) / growing)


def sizes_in(recipe: Recipe) -> list[Size]:
    """Return the sizes that a training goes through beside that of the model's input, the largest first."""
    found = {_size(recipe, look / NUM_LOOKS) for look in range(NUM_LOOKS + 1)}
    return sorted(found - {(recipe.data.height, recipe.data.width)}, reverse=True)


def scale_at(elapsed: float, config: AugmentConfig) -> float:
    """Return the share of the side after the share `elapsed` of the epochs."""
    start = 1.0 if config.size_start is None else config.size_start
    if elapsed < config.size_hold:
        return start
    if elapsed >= config.size_until:
        return config.size_end
    return start + (config.size_end - start) * (elapsed - config.size_hold) / (config.size_until - config.size_hold)


def resized(images_NCHW: torch.Tensor, size: Size) -> torch.Tensor:
    """Return the images at `size`, bilinearly and with antialiasing; those that have it as they are."""
    if tuple(images_NCHW.shape[2:]) == size:
        return images_NCHW
    return functional.interpolate(images_NCHW, size, mode="bilinear", antialias=True)


def _size(recipe: Recipe, elapsed: float) -> Size:
    scale = scale_at(elapsed, recipe.augment)
    return _side(recipe.data.height, scale), _side(recipe.data.width, scale)


def _side(full: int, scale: float) -> int:
    multiple = FINE if full <= LARGEST_FINE_SIDE else COARSE
    return full if scale == 1 else min(max(round(full * scale / multiple), 1) * multiple, full)
