"""What can be done to an image, for a whole batch at once: uint8 B x C x H x W in and out, one strength an image.

The colour operations are Pillow's (`ImageEnhance`, `ImageOps`), which RandAugment, TrivialAugment, timm and
torchvision all go by; tests hold each against Pillow or torchvision. Every image is treated by itself: what stands
beside it in the batch changes nothing. Strengths are tensors on the images' device.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

GREY_WEIGHTS = (19595, 38470, 7471)
"""ITU-R 601 luma in parts of 65,536, as in Pillow's conversion to `L`."""
PIECE_VALUES = 2**17
"""What an operation takes at a time on a CPU: its float32 copies stay in a core's cache."""


def in_pieces(op: Callable[..., torch.Tensor], images_BCHW: torch.Tensor, *each_B: torch.Tensor) -> torch.Tensor:
    """Return `op(images_BCHW, *each_B)`, on a CPU computed for as many images at a time as a cache holds."""
    batch = len(images_BCHW)
    step = batch
    if images_BCHW.device.type == "cpu":
        step = max(1, PIECE_VALUES // images_BCHW[0].numel())
    if step >= batch:
        return op(images_BCHW, *each_B)
    results = torch.empty_like(images_BCHW)
    for first in range(0, batch, step):
        part = slice(first, first + step)
        results[part] = op(images_BCHW[part], *(values[part] for values in each_B))
    return results


def brightness(images_BCHW: torch.Tensor, factors_B: torch.Tensor) -> torch.Tensor:
    """Return images between black (factor 0), themselves (1) and beyond."""
    return _blend(None, images_BCHW, factors_B)


def contrast(images_BCHW: torch.Tensor, factors_B: torch.Tensor) -> torch.Tensor:
    """Return images between their own mean grey (factor 0), themselves (1) and beyond."""
    grey_B1HW = _grey(images_BCHW)
    sums_B = grey_B1HW.long().sum((1, 2, 3))
    num_pixels = grey_B1HW[0].numel()
    means_B = (2 * sums_B + num_pixels).div(2 * num_pixels, rounding_mode="floor")
    return _blend(means_B.float().view(-1, 1, 1, 1), images_BCHW, factors_B)


def saturation(images_BCHW: torch.Tensor, factors_B: torch.Tensor) -> torch.Tensor:
    """Return images between grey (factor 0), themselves (1) and beyond; grey images as they are."""
    if images_BCHW.shape[1] == 1:
        return images_BCHW
    return _blend(_grey(images_BCHW), images_BCHW, factors_B)


def sharpness(images_BCHW: torch.Tensor, factors_B: torch.Tensor) -> torch.Tensor:
    """Return images between smoothed (factor 0), themselves (1) and sharpened; the border stays."""
    if min(images_BCHW.shape[2:]) < 3:
        return images_BCHW
    smooth = images_BCHW.float()
    inner = smooth[:, :, 1:-1, 1:-1]
    rows = smooth[:, :, :-2] + smooth[:, :, 1:-1] + smooth[:, :, 2:]
    sums = (rows[..., :-2] + rows[..., 2:]).add_(rows[..., 1:-1]).add_(inner, alpha=4)
    # The kernel 1 1 1 / 1 5 1 / 1 1 1 over 13, rounded: whole numbers below 2^24, of which fp32 loses none.
    inner.copy_(sums.mul_(2).add_(13).div_(26).floor_())
    return _blend(smooth, images_BCHW, factors_B)


def hue(images_BCHW: torch.Tensor, turns_B: torch.Tensor) -> torch.Tensor:
    """Return images whose hues are turned by `turns_B` of the colour circle; grey images as they are.

    Through HSV, as torchvision's `adjust_hue`.
    """
    if images_BCHW.shape[1] == 1:
        return images_BCHW
    red, green, blue = images_BCHW.float().unbind(1)
    value = torch.maximum(red, green).maximum(blue)
    chroma = value - torch.minimum(red, green).minimum(blue)
    # The hue in sixths of the circle, counted from the largest channel: red at 0, green at 2, blue at 4.
    differences = torch.where(value == red, green - blue, torch.where(value == green, blue - red, red - green))
    offsets = torch.where(value == red, 0.0, torch.where(value == green, 2.0, 4.0))
    turned = differences.div_(chroma.clamp(min=1)).add_(offsets).add_(6 * turns_B.view(-1, 1, 1))
    result = torch.empty_like(images_BCHW)
    for channel, place in enumerate((5, 3, 1)):
        # The value less the chroma times a trapezoid over the circle, a third of it from one channel to the next.
        rising = (turned + place).remainder_(6)
        result[:, channel] = torch.minimum(rising, -rising + 4).clamp_(0, 1).mul_(chroma).neg_().add_(value).add_(0.5)
    return result


def posterize(images_BCHW: torch.Tensor, bits_B: torch.Tensor) -> torch.Tensor:
    """Return images with only the upper `bits_B` (1 to 8) bits of each value."""
    masks_B = -torch.exp2(-bits_B.float().round() + 8) + 256  # `256 - x` runs everywhere but on DirectML
    return images_BCHW & masks_B.to(torch.uint8).view(-1, 1, 1, 1)


def solarize(images_BCHW: torch.Tensor, thresholds_B: torch.Tensor) -> torch.Tensor:
    """Return images with every value from its threshold (0 to 255) up inverted."""
    lowest_B = thresholds_B.ceil().to(torch.uint8)
    return images_BCHW ^ (images_BCHW >= lowest_B.view(-1, 1, 1, 1)).to(torch.uint8).mul_(255)


def autocontrast(images_BCHW: torch.Tensor) -> torch.Tensor:
    """Return images whose darkest value is 0 and whose lightest is 255, channel by channel."""
    low, high = images_BCHW.flatten(2).amin(2).float(), images_BCHW.flatten(2).amax(2).float()
    flat = high == low  # 255 / 255 leaves such a channel as it is
    span, low = torch.where(flat, 255.0, high - low), torch.where(flat, 0.0, low)
    return images_BCHW.float().sub_(low[..., None, None]).mul_(255).div_(span[..., None, None]).to(torch.uint8)


def equalize(images_BCHW: torch.Tensor) -> torch.Tensor:
    """Return images in which every part of the scale is used about equally often, channel by channel."""
    batch, channels, height, width = images_BCHW.shape
    device = images_BCHW.device
    levels_NP = images_BCHW.reshape(batch * channels, height * width).long()
    ones = torch.ones((), dtype=torch.int64, device=device).expand_as(levels_NP)
    counts_NV = torch.zeros(len(levels_NP), 256, dtype=torch.int64, device=device).scatter_add_(1, levels_NP, ones)
    scale_V = torch.arange(256, device=device)
    lightest_N1 = torch.where(counts_NV > 0, scale_V, 0).argmax(1, keepdim=True)
    steps_N1 = (-counts_NV.gather(1, lightest_N1) + height * width).div(255, rounding_mode="floor")
    darker_NV = counts_NV.cumsum(1) - counts_NV
    table_NV = (darker_NV + steps_N1 // 2).div(steps_N1.clamp(min=1), rounding_mode="floor").clamp(max=255)
    table_NV = torch.where(steps_N1 > 0, table_NV, scale_V)  # one level, or too few pixels to spread
    return table_NV.to(torch.uint8).gather(1, levels_NP).view(images_BCHW.shape)


def warp(images_BCHW: torch.Tensor, matrices_B23: torch.Tensor, fill_C: torch.Tensor) -> torch.Tensor:
    """Return images that look up each pixel where its matrix says, bilinearly; `fill_C` (0-255) lies outside.

    A matrix takes (x, y, 1) of the result to (x, y) in the image, in pixels whose centres lie at halves, as Pillow's.
    """
    _, _, height, width = images_BCHW.shape
    device = images_BCHW.device
    x_W1 = torch.arange(width, device=device, dtype=torch.float32)[:, None] + 0.5
    y_H11 = torch.arange(height, device=device, dtype=torch.float32)[:, None, None] + 0.5
    # In grid_sample's measure, -1 to 1 from edge to edge.
    scaled = matrices_B23 * torch.tensor([2 / width, 2 / height], device=device)[:, None]
    across, along, shift = scaled[:, None, None].unbind(4)
    places_BHW2 = (across * x_W1 + (shift - 1)) + along * y_H11
    fill_11C = fill_C.view(-1, 1, 1)
    # What lies outside reads as 0: with the fill taken off before and put back after, as the fill.
    shifted = images_BCHW.float().sub_(fill_11C)
    warped = torch.nn.functional.grid_sample(shifted, places_BHW2, align_corners=False)
    return warped.add_(fill_11C).add_(0.5).clamp_(0, 255).to(torch.uint8)


def _grey(images_BCHW: torch.Tensor) -> torch.Tensor:
    """Return B x 1 x H x W luma as float32, rounded as Pillow does; its sums stay below 2^24, so that none is lost."""
    pixels = images_BCHW.float()
    if images_BCHW.shape[1] == 1:
        return pixels
    red, green, blue = pixels.unbind(1)
    weight_R, weight_G, weight_B = GREY_WEIGHTS
    sums_BHW = red.mul_(weight_R).add_(green, alpha=weight_G).add_(blue, alpha=weight_B)
    return sums_BHW.add_(2**15).mul_(2**-16).floor_()[:, None]


def _blend(ground: torch.Tensor | None, images_BCHW: torch.Tensor, factors_B: torch.Tensor) -> torch.Tensor:
    """Return ground + factor * (image - ground), cut off to whole numbers as in Pillow; None is black."""
    values, factors = images_BCHW.float(), factors_B.view(-1, 1, 1, 1)
    if ground is None:
        values.mul_(factors)
    else:
        values.sub_(ground).mul_(factors).add_(ground)
    return values.clamp_(0, 255).to(torch.uint8)
