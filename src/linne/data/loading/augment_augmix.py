"""AugMix: an image mixed with chains of operations on it (Hendrycks et al. 2020, https://arxiv.org/abs/1912.02781).

Of the operations, brightness, contrast, colour and sharpness are left out, as in the paper: they are among the
corruptions that robustness is tested on. Strengths are the authors' and torchvision's `AugMix`: a level, drawn evenly
from 0.1 to the severity, of 10. What `augment_policy` does in its own way holds here too, and the mixture is rounded to
whole values.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from linne.data.loading.augment_policy import LEVEL, NUM_LEVELS, Scale, apply_at, geometry
from linne.device import Device
from linne.recipe import AugmentConfig

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Draw = Callable[[int], Floats]
"""From the number of a stream to its `uniforms` for the images of a batch."""

NUM_SEVERITIES = 10
LEAST_LEVEL = 0.1
MOST_DEPTH, MOST_WIDTH = 8, 8
"""Each operation of each chain has a stream of random numbers of its own."""
NUM_STREAMS = MOST_DEPTH * MOST_WIDTH
DRAWN_DEPTHS = 3
"""Chains have 1 to so many operations where the recipe leaves it open."""
SHARE, DEPTH, OWN = range(3, 6)
"""Places of random numbers beside those of an operation: a chain's, in the stream of its first operation, and the
image's own, in the stream of the first chain's."""


def table(height: int, width: int) -> dict[str, Scale]:
    """Return the nine operations of AugMix, at their strongest at severity 10."""
    pixels = {"posterize": Scale(4, 0), "solarize": Scale(255, 0), "autocontrast": Scale(), "equalize": Scale()}
    return {**geometry(0.3, height / 3, width / 3, 30.0), **pixels}


def augmix(
    images_BCHW: torch.Tensor,
    draw: Draw,
    config: AugmentConfig,
    ops: dict[str, Scale],
    fill_C: torch.Tensor,
    device: Device,
) -> torch.Tensor:
    """Return uint8 images, each mixed with `config.augmix_width` chains of a few of the operations `ops` on it."""
    shares_WB = mixing_shares(draw, config)
    mixed_BCHW = images_BCHW.float() * _each(1 - shares_WB.sum(0), device)
    for chain, shares_B in enumerate(shares_WB):
        depths_B = chain_depths(draw, chain, config)
        changed_BCHW = images_BCHW.clone()
        for step in range(int(depths_B.max())):
            draws_BD = draw(chain * MOST_DEPTH + step)
            levels_B = LEAST_LEVEL + (config.augmix_severity - LEAST_LEVEL) * draws_BD[:, LEVEL]
            levels_B = levels_B * np.float32((NUM_LEVELS - 1) / NUM_SEVERITIES)
            here = np.flatnonzero(depths_B > step)
            rows = device.put(torch.from_numpy(here))
            part = changed_BCHW.index_select(0, rows)
            part = apply_at(part, draws_BD[here], levels_B[here], ops, fill_C, device)
            changed_BCHW.index_copy_(0, rows, part)
        mixed_BCHW += changed_BCHW.float() * _each(shares_B, device)
    return mixed_BCHW.add_(0.5).clamp_(0, 255).to(torch.uint8)


def mixing_shares(draw: Draw, config: AugmentConfig) -> Doubles:
    """Return what part each chain has of an image, W x B: Dirichlet(alpha) of what Beta(alpha, alpha) gives them all.

    A Dirichlet variable is a few Gamma variables over their sum; both laws are taken from one number each, by their
    inverse distribution functions.
    """
    from scipy.special import betaincinv, gammaincinv

    alpha = config.augmix_alpha
    draws_WBD = np.stack([draw(chain * MOST_DEPTH) for chain in range(config.augmix_width)]).astype(np.float64)
    draws_WBD += 2.0**-25  # the middle of its step, which is never 0
    parts_WB = gammaincinv(alpha, draws_WBD[..., SHARE])
    shares_WB: Doubles = parts_WB / parts_WB.sum(0) * betaincinv(alpha, alpha, draws_WBD[0, :, OWN])
    return shares_WB


def chain_depths(draw: Draw, chain: int, config: AugmentConfig) -> NDArray[np.int64]:
    """Return how many operations a chain has for each image."""
    drawn_B = draw(chain * MOST_DEPTH)[:, DEPTH]
    if config.augmix_depth is not None:
        return np.full(len(drawn_B), config.augmix_depth)
    return 1 + (drawn_B * DRAWN_DEPTHS).astype(np.int64)


def _each(shares_B: Doubles, device: Device) -> torch.Tensor:
    return device.put(torch.from_numpy(shares_B.astype(np.float32))).view(-1, 1, 1, 1)
