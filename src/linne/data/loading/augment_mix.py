"""mixup and CutMix: images of a batch blended with their neighbours, labels in the same proportion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from linne.device import Device

Floats = NDArray[np.float32]

KIND, SHARE, BOX_Y, BOX_X = range(4)
"""Places of an image's random numbers."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """What was mixed into each image of a batch."""

    labels_N: torch.Tensor
    """Of the image that was mixed in."""
    shares_N: torch.Tensor
    """How much of the image is its own, 0 to 1."""


def mix(
    images_BCHW: torch.Tensor,
    labels_B: torch.Tensor,
    draws_BD: Floats,
    mixup_alpha: float | None,
    cutmix_alpha: float | None,
    device: Device,
) -> tuple[torch.Tensor, Mixture]:
    """Return the batch with the image before each mixed into it, the last into the first.

    mixup (Zhang et al. 2017) blends whole images, CutMix (Yun et al. 2019) pastes a box; with both, each image has
    one or the other, evenly. An image's own share is Beta(alpha, alpha), from its own random number.
    """
    _, _, height, width = images_BCHW.shape
    rows_BH, cols_BW, own_B, shares_B = plan_mix(draws_BD, mixup_alpha, cutmix_alpha, height, width)
    rows, cols, own, shares = (device.put(torch.from_numpy(part)) for part in (rows_BH, cols_BW, own_B, shares_B))
    inside_BHW = rows[:, :, None] & cols[:, None, :]
    own_B1HW = torch.where(inside_BHW, own[:, None, None], 1.0)[:, None]
    # Unlike `roll` it keeps the memory format, and runs on DirectML; so does `-x + 1`, unlike `1 - x`.
    neighbours_BCHW = torch.cat((images_BCHW[-1:], images_BCHW[:-1]))
    mixed_BCHW = images_BCHW * own_B1HW + neighbours_BCHW * (-own_B1HW + 1)
    return mixed_BCHW, Mixture(torch.cat((labels_B[-1:], labels_B[:-1])), shares)


def plan_mix(
    draws_BD: Floats, mixup_alpha: float | None, cutmix_alpha: float | None, height: int, width: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Floats, Floats]:
    """Return where each image is mixed (rows, columns), its own part there, and its own part of the whole.

    mixup is everywhere and in part, CutMix in a box and wholly.
    """
    from scipy.special import betaincinv

    is_box_B = np.full(len(draws_BD), cutmix_alpha is not None)
    if mixup_alpha is not None and cutmix_alpha is not None:
        is_box_B = draws_BD[:, KIND] < 0.5
    alphas_B = np.where(is_box_B, cutmix_alpha or 1.0, mixup_alpha or 1.0)
    shares_B = betaincinv(alphas_B, alphas_B, draws_BD[:, SHARE].astype(np.float64))
    half_B = np.where(is_box_B, 0.5 * np.sqrt(1 - shares_B), np.inf)
    rows_BH = _in_box(draws_BD[:, BOX_Y], half_B, height)
    cols_BW = _in_box(draws_BD[:, BOX_X], half_B, width)
    own_B = np.where(is_box_B, 0, shares_B).astype(np.float32)
    area_B = rows_BH.mean(1) * cols_BW.mean(1)
    return rows_BH, cols_BW, own_B, (1 - (1 - own_B) * area_B).astype(np.float32)


def _in_box(centres_B: Floats, half_B: NDArray[np.float64], size: int) -> NDArray[np.bool_]:
    """Return B x size: True within `half_B` of the size around the pixel at `centres_B` of it."""
    middle_B1 = np.floor(centres_B * size)[:, None]
    reach_B1 = np.floor(half_B * size)[:, None]
    positions = np.arange(size)
    return (positions >= middle_B1 - reach_B1) & (positions < middle_B1 + reach_B1)
