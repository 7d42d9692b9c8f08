"""RandAugment and TrivialAugment over a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from linne.data.loading import augment_policy as policy
from linne.data.loading.augment_policy import LEVEL, OP, PIXELS, SIGN
from linne.device import Device

CPU = Device.pick("cpu")
FILL = torch.tensor([120.0, 110.0, 100.0])
TORCHVISION = {
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateX",
    "translate_y": "TranslateY",
    "color": "Color",
    "autocontrast": "AutoContrast",
}


def noise(count: int, height: int = 12, width: int = 10, channels: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (count, channels, height, width), np.uint8))


@pytest.mark.parametrize("kind", ["trivial", "rand"])
def test_the_tables_are_torchvisions(kind: str):
    from torchvision.transforms import RandAugment, TrivialAugmentWide

    if kind == "trivial":
        ours, theirs = policy.trivial_wide(224, 300), TrivialAugmentWide()._augmentation_space(31)
    else:
        ours, theirs = policy.rand(224, 300), RandAugment()._augmentation_space(31, (224, 300))
    assert {TORCHVISION.get(name, name.capitalize()) for name in ours} == set(theirs)
    levels, positive = np.arange(31, dtype=np.float32), np.zeros(31, np.bool_)
    for name, scale in ours.items():
        strengths, signed = theirs[TORCHVISION.get(name, name.capitalize())]
        wanted = np.broadcast_to(strengths.numpy(), 31)
        found = np.round(scale.at(levels, positive)) if name == "posterize" else scale.at(levels, positive)
        assert np.allclose(found, wanted, rtol=1e-5, atol=1e-6), name
        assert scale.signed == signed, name
        assert np.allclose(scale.at(levels, ~positive), -scale.at(levels, positive) if signed else found, atol=0.5)


def test_no_image_is_shifted_by_more_than_its_side():
    assert policy.trivial_wide(8, 28)["translate_y"].strongest == 8
    assert policy.trivial_wide(8, 28)["translate_x"].strongest == 28


def test_each_image_gets_its_own_operation_at_its_own_strength_whatever_stands_beside_it():
    table = policy.trivial_wide(12, 10)
    names = list(table)
    draws = np.random.default_rng(2).random((200, 8), np.float32)
    images = noise(200)
    together = policy.apply(images, draws, table, None, FILL, CPU)
    for index in range(200):
        name, level = names[int(draws[index, OP] * len(names))], int(draws[index, LEVEL] * 31)
        strength = table[name].at(np.array([level], np.float32), draws[[index], SIGN] < 0.5)
        if name in policy.GEOMETRY:
            matrices = torch.from_numpy(policy.GEOMETRY[name](strength, 12, 10))
            wanted = policy.ops.warp(images[[index]], matrices, FILL)
        else:
            wanted = PIXELS[name](images[[index]], torch.from_numpy(strength))
        assert torch.equal(together[index], wanted[0]), name


def test_all_operations_are_equally_likely_and_half_of_the_signed_ones_negative():
    table = policy.trivial_wide(12, 10)
    draws = np.random.default_rng(3).random((14_000, 8), np.float32)
    counts = np.bincount((draws[:, OP] * len(table)).astype(int), minlength=len(table))
    assert len(table) == 14
    assert np.abs(counts - 1000).max() < 5 * 31  # five deviations of a binomial count
    strengths = table["rotate"].at(np.full(14_000, 30, np.float32), draws[:, SIGN] < 0.5)
    assert abs(int((strengths < 0).sum()) - 7000) < 5 * 59
    assert set(np.abs(strengths).tolist()) == {135.0}


def test_a_fixed_level_takes_no_notice_of_the_drawn_one():
    table, images = policy.rand(12, 10), noise(50)
    draws = np.random.default_rng(4).random((50, 8), np.float32)
    other = draws.copy()
    other[:, LEVEL] = 1 - draws[:, LEVEL]
    first, second = (policy.apply(images, d, table, 9, FILL, CPU) for d in (draws, other))
    assert torch.equal(first, second)
    assert not torch.equal(first, policy.apply(images, draws, table, 20, FILL, CPU))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 2, 64])
def test_a_batch_of_any_size_keeps_its_shape_and_layout(count: int, channels: int):
    draws = np.random.default_rng(5).random((count, 8), np.float32)
    images = noise(count, channels=channels)
    result = policy.apply(images, draws, policy.rand(12, 10), 9, FILL[:channels], CPU)
    assert result.shape == images.shape
    assert result.dtype == torch.uint8
    assert result.is_contiguous()
