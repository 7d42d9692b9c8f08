"""What can be done to an image, for a whole batch at once: uint8 B x H x W x C in and out, one strength an image.

The colour operations are Pillow's (`ImageEnhance`, `ImageOps`), which RandAugment, TrivialAugment, timm and
torchvision all go by, in integers where Pillow computes in them; tests hold each against Pillow or torchvision. Every
image is treated by itself: what stands beside it in the batch changes nothing.
"""

from __future__ import annotations

import torch

GREY_WEIGHTS = (19595, 38470, 7471)
"""ITU-R 601 luma in parts of 65,536, as in Pillow's conversion to `L`."""


def brightness(images_BHWC: torch.Tensor, factors_B: torch.Tensor) -> torch.Tensor:
    """Return images between black (factor 0), themselves (1) and beyond."""
    return _blend(torch.zeros((), device=images_BHWC.device), images_BHWC, factors_B)


def contrast(images_BHWC: torch.Tensor, factors_B: torch.Tensor) -> torch.Tensor:
    """Return images between their own mean grey (factor 0), themselves (1) and beyond."""
    sums_B = _grey(images_BHWC).flatten(1).sum(1, dtype=torch.int64)
    num_pixels = images_BHWC.shape[1] * images_BHWC.shape[2]
    means_B = (2 * sums_B + num_pixels).div(2 * num_pixels, rounding_mode="floor")
    return _blend(means_B[:, None, None, None], images_BHWC, factors_B)


def saturation(images_BHWC: torch.Tensor, factors_B: torch.Tensor) -> torch.Tensor:
    """Return images between grey (factor 0), themselves (1) and beyond; grey images as they are."""
    if images_BHWC.shape[3] == 1:
        return images_BHWC
    return _blend(_grey(images_BHWC), images_BHWC, factors_B)


def sharpness(images_BHWC: torch.Tensor, factors_B: torch.Tensor) -> torch.Tensor:
    """Return images between smoothed (factor 0), themselves (1) and sharpened; the border stays."""
    _, height, width, _ = images_BHWC.shape
    if min(height, width) < 3:
        return images_BHWC
    wide = images_BHWC.int()
    rows = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    sums = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * wide[:, 1:-1, 1:-1]
    smooth = wide  # the kernel 1 1 1 / 1 5 1 / 1 1 1 over 13, rounded to the nearest
    smooth[:, 1:-1, 1:-1] = (2 * sums + 13).div(26, rounding_mode="floor")
    return _blend(smooth, images_BHWC, factors_B)


def hue(images_BHWC: torch.Tensor, turns_B: torch.Tensor) -> torch.Tensor:
    """Return images whose hues are turned by `turns_B` of the colour circle; grey images as they are.

    Through HSV, as torchvision's `adjust_hue`.
    """
    if images_BHWC.shape[3] == 1:
        return images_BHWC
    pixels = images_BHWC.float()
    value, least = pixels.amax(3), pixels.amin(3)
    chroma = value - least
    red, green, blue = pixels.unbind(3)
    sixths = torch.where(
        value == red, green - blue, torch.where(value == green, blue - red + 2 * chroma, red - green + 4 * chroma)
    ) / chroma.clamp(min=1)
    turned = sixths + 6 * turns_B.view(-1, 1, 1)
    # Each channel is the value less the chroma times a trapezoid over the circle, 120 degrees from the next one.
    places = (turned[..., None] + torch.tensor([5.0, 3.0, 1.0], device=pixels.device)) % 6
    return _to_uint8(value[..., None] - chroma[..., None] * torch.minimum(places, 4 - places).clamp(0, 1), 0.5)


def posterize(images_BHWC: torch.Tensor, bits_B: torch.Tensor) -> torch.Tensor:
    """Return images with only the upper `bits_B` (0 to 8) bits of each value."""
    steps_B = torch.exp2(8 - bits_B.float().round()).int().view(-1, 1, 1, 1)
    wide = images_BHWC.int()
    return (wide - wide % steps_B).to(torch.uint8)


def solarize(images_BHWC: torch.Tensor, thresholds_B: torch.Tensor) -> torch.Tensor:
    """Return images with every value from its threshold up inverted."""
    return torch.where(images_BHWC < thresholds_B.view(-1, 1, 1, 1), images_BHWC, 255 - images_BHWC)


def autocontrast(images_BHWC: torch.Tensor) -> torch.Tensor:
    """Return images whose darkest value is 0 and whose lightest is 255, channel by channel."""
    low, high = images_BHWC.amin((1, 2), keepdim=True).int(), images_BHWC.amax((1, 2), keepdim=True).int()
    stretched = ((images_BHWC.int() - low) * 255).div((high - low).clamp(min=1), rounding_mode="floor")
    return torch.where(high > low, stretched.to(torch.uint8), images_BHWC)


def equalize(images_BHWC: torch.Tensor) -> torch.Tensor:
    """Return images in which every part of the scale is used about equally often, channel by channel."""
    batch, height, width, channels = images_BHWC.shape
    first_BC = 256 * torch.arange(batch * channels, device=images_BHWC.device).view(batch, 1, 1, channels)
    places = images_BHWC.long() + first_BC
    counts = torch.zeros(batch * channels * 256, dtype=torch.int32, device=images_BHWC.device)
    counts.scatter_add_(0, places.flatten(), torch.ones_like(counts[:1]).expand(places.numel()))
    counts_NV = counts.view(-1, 256)
    up_to_NV = counts_NV.cumsum(1)
    lightest_N1 = (counts_NV > 0).long().mul(torch.arange(256, device=counts.device)).argmax(1, keepdim=True)
    steps_N1 = (height * width - counts_NV.gather(1, lightest_N1)).div(255, rounding_mode="floor")
    table_NV = (up_to_NV - counts_NV + steps_N1 // 2).div(steps_N1.clamp(min=1), rounding_mode="floor").clamp(max=255)
    unchanged_1V = torch.arange(256, device=counts.device)[None]
    table_NV = torch.where(steps_N1 > 0, table_NV, unchanged_1V)
    return table_NV.to(torch.uint8).flatten()[places]


def warp(images_BHWC: torch.Tensor, matrices_B23: torch.Tensor, fill_C: torch.Tensor) -> torch.Tensor:
    """Return images that look up each pixel where its matrix says, bilinearly; `fill_C` (0-255) lies outside.

    A matrix takes (x, y, 1) of the result to (x, y) in the image, in pixels whose centres lie at halves, as Pillow's.
    """
    _, height, width, _ = images_BHWC.shape
    device = images_BHWC.device
    y_H1 = torch.arange(height, device=device, dtype=torch.float32)[:, None] + 0.5
    x_1W = torch.arange(width, device=device, dtype=torch.float32)[None] + 0.5
    across, along, shift = matrices_B23[:, :, 0], matrices_B23[:, :, 1], matrices_B23[:, :, 2]
    places_BHW2 = (
        across[:, None, None] * x_1W[None, ..., None]
        + along[:, None, None] * y_H1[None, ..., None]
        + shift[:, None, None]
    )
    places_BHW2 = 2 * places_BHW2 / torch.tensor([width, height], device=device) - 1
    fill_11C = fill_C.float().view(-1, 1, 1)
    # What lies outside reads as 0: with the fill taken off before and put back after, as the fill.
    shifted_BCHW = images_BHWC.permute(0, 3, 1, 2).float() - fill_11C
    warped_BCHW = torch.nn.functional.grid_sample(shifted_BCHW, places_BHW2, align_corners=False) + fill_11C
    return _to_uint8(warped_BCHW.permute(0, 2, 3, 1), 0.5).contiguous()


def _grey(images_BHWC: torch.Tensor) -> torch.Tensor:
    """Return B x H x W x 1 luma as int32, rounded as Pillow does."""
    if images_BHWC.shape[3] == 1:
        return images_BHWC.int()
    weights = torch.tensor(GREY_WEIGHTS, dtype=torch.int32, device=images_BHWC.device)
    sums: torch.Tensor = (images_BHWC.int() * weights).sum(3, keepdim=True, dtype=torch.int32)
    return (sums + 0x8000) >> 16


def _blend(ground: torch.Tensor, images_BHWC: torch.Tensor, factors_B: torch.Tensor) -> torch.Tensor:
    """Return ground + factor * (image - ground), cut off to whole numbers as in Pillow."""
    ground = ground.float()
    return _to_uint8(ground + factors_B.float().view(-1, 1, 1, 1) * (images_BHWC.float() - ground), 0.0)


def _to_uint8(values: torch.Tensor, rounding: float) -> torch.Tensor:
    return (values + rounding).clamp(0, 255).to(torch.uint8)
