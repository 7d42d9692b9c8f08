"""Each operation on a batch, against Pillow or torchvision on one image."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from linne.data.loading import augment_ops as ops
from linne.data.loading import augment_policy as policy

COUNT, HEIGHT, WIDTH = 24, 20, 25


def images(channels: int) -> torch.Tensor:
    """Noise of many contrasts, smooth ramps, flat images, and images of two values."""
    rng = np.random.default_rng(5)
    low, span = rng.integers(0, 200, (COUNT, 1, 1, channels)), rng.integers(1, 256, (COUNT, 1, 1, channels))
    made = (low + rng.random((COUNT, HEIGHT, WIDTH, channels)) * span).clip(0, 255).astype(np.uint8)
    made[0:4] = np.linspace(0, [255, 130, 90, 40], HEIGHT * WIDTH).T.reshape(4, HEIGHT, WIDTH, 1)
    made[4:6] = np.array([0, 77])[:, None, None, None]
    made[6] = np.where(made[7] > 128, 250, 3)
    return torch.from_numpy(made).permute(0, 3, 1, 2).contiguous()


def to_pillow(image_CHW: torch.Tensor) -> Image.Image:
    array = image_CHW.permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def from_pillow(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).view(image.height, image.width, -1).permute(2, 0, 1)


def apart(result_BCHW: torch.Tensor, wanted: list[torch.Tensor]) -> int:
    assert result_BCHW.dtype == torch.uint8
    return int((result_BCHW.int() - torch.stack(wanted).int()).abs().max())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("op", "reference"),
    [
        (ops.brightness, lambda image, factor: ImageEnhance.Brightness(image).enhance(factor)),
        (ops.contrast, lambda image, factor: ImageEnhance.Contrast(image).enhance(factor)),
        (ops.saturation, lambda image, factor: ImageEnhance.Color(image).enhance(factor)),
        (ops.sharpness, lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor)),
    ],
    ids=["brightness", "contrast", "saturation", "sharpness"],
)
def test_colour_changes_are_pillows_to_the_bit(op: Callable, reference: Callable, channels: int):
    batch = images(channels)
    factors = torch.linspace(0, 2, COUNT)
    wanted = [from_pillow(reference(to_pillow(i), f)) for i, f in zip(batch, factors.tolist(), strict=True)]
    assert apart(op(batch, factors), wanted) == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_autocontrast_is_pillows_within_one_level(channels: int):
    # Pillow multiplies by a rounded factor and cuts off, which makes 254.99999 of 255.
    batch = images(channels)
    assert apart(ops.autocontrast(batch), [from_pillow(ImageOps.autocontrast(to_pillow(i))) for i in batch]) <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_equalising_is_pillows_to_the_bit(channels: int):
    batch = images(channels)
    assert apart(ops.equalize(batch), [from_pillow(ImageOps.equalize(to_pillow(i))) for i in batch]) == 0


def test_posterising_and_solarising_are_pillows_to_the_bit():
    batch = images(3)
    bits, thresholds = torch.arange(COUNT) % 8 + 1, torch.linspace(255, 0, COUNT)
    posterized = [ImageOps.posterize(to_pillow(i), b) for i, b in zip(batch, bits.tolist(), strict=True)]
    solarized = [ImageOps.solarize(to_pillow(i), t) for i, t in zip(batch, thresholds.tolist(), strict=True)]
    assert apart(ops.posterize(batch, bits), [from_pillow(image) for image in posterized]) == 0
    assert apart(ops.solarize(batch, thresholds), [from_pillow(image) for image in solarized]) == 0


def test_turning_hues_is_what_the_standard_library_says():
    batch = images(3)[:, :, :4, :4]
    turns = torch.linspace(-0.5, 0.5, COUNT)
    wanted = []
    for image, turn in zip(batch, turns.tolist(), strict=True):
        pixels = [colorsys.rgb_to_hsv(*(pixel / 255)) for pixel in image.flatten(1).T.numpy().astype(float)]
        turned = [colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value) for hue, saturation, value in pixels]
        wanted.append(torch.tensor(turned).mul(255).round().byte().T.view(3, 4, 4))
    # One level: fp32 and double round the same half to different sides.
    assert apart(ops.hue(batch, turns), wanted) <= 1
    assert torch.equal(ops.hue(batch, torch.zeros(COUNT)), batch)


@pytest.mark.parametrize("op", [ops.hue, ops.saturation])
def test_a_grey_image_has_no_colours_to_change(op: Callable):
    batch = images(1)
    assert torch.equal(op(batch, torch.full((COUNT,), 0.3)), batch)
    assert torch.equal(op(batch.expand(-1, 3, -1, -1), torch.full((COUNT,), 0.3)), batch.expand(-1, 3, -1, -1))


@pytest.mark.parametrize("name", policy.GEOMETRY)
def test_warps_are_torchvisions_within_a_level(name: str):
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as tv

    strength = {"rotate": 40.0, "translate_x": 6.7, "translate_y": -5.2}.get(name, 0.3)
    degrees = float(np.degrees(np.arctan(strength)))
    same = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    # torchvision shifts to the right and down, linne's tables to the left and up: every sign is as likely.
    change = {
        "shear_x": {"shear": [degrees, 0.0], "center": [0, 0]},
        "shear_y": {"shear": [0.0, degrees], "center": [0, 0]},
        "translate_x": {"translate": [-6, 0]},
        "translate_y": {"translate": [0, 5]},
    }
    batch = images(3)
    how = {"interpolation": InterpolationMode.BILINEAR}  # with a fill, torchvision darkens the border twice
    wanted = tv.rotate(batch, strength, **how) if name == "rotate" else tv.affine(batch, **same | change[name], **how)
    matrices = policy.GEOMETRY[name](np.full(COUNT, strength, np.float32), HEIGHT, WIDTH)
    result = ops.warp(batch, torch.from_numpy(matrices), torch.zeros(3))
    # torchvision builds its grid in another order of operations: a tie of rounding can fall to either side.
    assert apart(result, list(wanted)) <= 1
    assert result.is_contiguous()


def test_a_warp_that_moves_nothing_changes_no_bit_and_what_lies_outside_is_the_fill():
    batch = images(3)
    still = np.tile(np.array([[1, 0, 0], [0, 1, 0]], np.float32), (COUNT, 1, 1))
    fill = torch.tensor([124.2, 3.0, 251.7])
    assert torch.equal(ops.warp(batch, torch.from_numpy(still), fill), batch)
    turned = torch.from_numpy(policy.rotate(np.full(COUNT, 30, np.float32), HEIGHT, WIDTH))
    flat = torch.tensor([124, 3, 252], dtype=torch.uint8).view(3, 1, 1).expand(batch.shape)
    assert torch.equal(ops.warp(flat, turned, torch.tensor([124.0, 3.0, 252.0])), flat)
    away = policy.translate_x(np.full(COUNT, WIDTH, np.float32), HEIGHT, WIDTH)
    assert torch.equal(
        ops.warp(batch, torch.from_numpy(away), fill), fill.round().byte().view(3, 1, 1).expand(batch.shape)
    )


@pytest.mark.parametrize("side", [1, 2])
def test_images_of_a_pixel_or_two_survive_everything(side: int):
    tiny = images(3)[..., :side, :side]
    for name, op in policy.PIXELS.items():
        assert op(tiny, torch.full((COUNT,), 1.0)).shape == tiny.shape, name


def test_a_batch_too_large_for_the_cache_is_done_in_pieces_with_the_same_result():
    batch, factors = images(3), torch.linspace(0, 2, COUNT)
    large = batch.repeat(1, 1, 8, 8)
    assert large.numel() > 3 * ops.PIECE_VALUES
    sizes = []

    def op(part: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        sizes.append(len(part))
        return ops.contrast(part, values)

    assert torch.equal(ops.in_pieces(op, large, factors), ops.contrast(large, factors))
    assert max(sizes) * large[0].numel() <= ops.PIECE_VALUES
    assert sum(sizes) == COUNT
