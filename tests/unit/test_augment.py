"""Training-time augmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from linne.data.augment import NOTHING, blank, gather, make_plan, resized_crop_box, uniforms
from linne.recipe import AugmentConfig


def numbered(count: int, height: int, width: int, channels: int = 1) -> torch.Tensor:
    """Images whose every pixel has another value, modulo 251."""
    values = torch.arange(count * height * width * channels) % 251
    return values.to(torch.uint8).view(count, height, width, channels)


def test_random_numbers_belong_to_the_example_and_not_to_the_batch():
    together = uniforms(3, 1, np.arange(100))
    alone = uniforms(3, 1, np.array([42]))
    assert np.array_equal(together[42], alone[0])


@pytest.mark.parametrize("change", [{"seed": 4}, {"epoch": 2}])
def test_another_seed_or_epoch_draws_other_numbers(change):
    base = {"seed": 3, "epoch": 1}
    ids = np.arange(1000)
    first = uniforms(base["seed"], base["epoch"], ids)
    base |= change
    second = uniforms(base["seed"], base["epoch"], ids)
    assert not np.any(np.all(first == second, axis=1))


def test_random_numbers_are_uniform_and_independent_between_places():
    draws = uniforms(0, 0, np.arange(50_000)).astype(np.float64)
    assert draws.min() >= 0
    assert draws.max() < 1
    # Deviation of a mean of 50,000 uniforms is 0.0013; of a correlation 0.0045. Five of each.
    assert np.abs(draws.mean(0) - 0.5).max() < 0.0065
    correlations = np.corrcoef(draws.T) - np.eye(draws.shape[1])
    assert np.abs(correlations).max() < 0.0225


def test_without_augmentation_the_images_come_as_they_are():
    images = numbered(5, 4, 6)
    picked = gather(images, torch.tensor([3, 0]), NOTHING)
    assert torch.equal(picked, images[[3, 0]])
    assert make_plan(uniforms(0, 0, np.arange(2)), AugmentConfig(), 4, 6) == NOTHING


@pytest.mark.parametrize("channels", [1, 3])
def test_a_flip_mirrors_about_half_of_the_images_left_to_right(channels):
    images = numbered(400, 5, 7, channels)
    plan = make_plan(uniforms(0, 0, np.arange(400)), AugmentConfig(flip=True), 5, 7)
    out = gather(images, torch.arange(400), plan)
    mirrored = torch.tensor([torch.equal(o, i.flip(1)) for o, i in zip(out, images, strict=True)])
    same = torch.tensor([torch.equal(o, i) for o, i in zip(out, images, strict=True)])
    assert torch.all(mirrored ^ same)
    assert 150 < mirrored.sum() < 250


def test_a_shift_moves_by_up_to_the_padding_and_reflects_the_border():
    images = numbered(300, 9, 8)
    plan = make_plan(uniforms(0, 0, np.arange(300)), AugmentConfig(crop_padding=2), 9, 8)
    out = gather(images, torch.arange(300), plan)
    padded = torch.nn.functional.pad(images.permute(0, 3, 1, 2).float(), (2, 2, 2, 2), mode="reflect")
    shifts = set()
    for index in range(300):
        found = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if torch.equal(padded[index, :, y : y + 9, x : x + 8].permute(1, 2, 0).byte(), out[index])
        ]
        assert found, f"image {index} is no shift of the original"
        shifts.update(found)
    assert shifts == {(y, x) for y in range(5) for x in range(5)}


def test_a_shift_larger_than_the_image_still_reads_only_its_pixels():
    images = numbered(50, 2, 1)
    plan = make_plan(uniforms(0, 0, np.arange(50)), AugmentConfig(crop_padding=7), 2, 1)
    assert gather(images, torch.arange(50), plan).shape == (50, 2, 1, 1)


def test_cutout_blanks_one_square_whose_centre_lies_in_the_image():
    images = torch.ones(200, 3, 12, 10)
    plan = make_plan(uniforms(0, 0, np.arange(200)), AugmentConfig(cutout=4), 12, 10)
    blanked = blank(images, plan) == 0
    counts = blanked[:, 0].sum((1, 2))
    assert torch.equal(blanked[:, 0], blanked[:, 2])
    assert counts.min() >= 4, "a corner of the square is inside even when its centre is on the border"
    assert counts.max() == 16
    for index in range(200):
        rows, cols = blanked[index, 0].any(1), blanked[index, 0].any(0)
        assert torch.equal(blanked[index, 0], rows[:, None] & cols[None]), "the blank part is a rectangle"


def test_a_random_crop_keeps_the_area_and_the_aspect_asked_for():
    for draws in uniforms(0, 0, np.arange(500)):
        top, left, height, width = resized_crop_box(draws, 0.25, 200, 100)
        assert 0 <= top <= 200 - height
        assert 0 <= left <= 100 - width
        assert 0.24 <= height * width / 20_000 <= 1
        assert abs(height / width - 2) < 0.05
