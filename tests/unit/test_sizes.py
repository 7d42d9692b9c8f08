"""Images that are smaller at first and grow as training goes on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from linne.data.loading.sizes import resized, scale_at, size_at, sizes_in
from linne.recipe import AugmentConfig, DataConfig, OptimConfig, Recipe


def recipe(height: int = 32, width: int = 32, epochs: int = 10, **fields) -> Recipe:
    augment = AugmentConfig(**{f"size_{name}": value for name, value in fields.items()})
    data = DataConfig(source="x", height=height, width=width)
    return Recipe(data=data, optim=OptimConfig(epochs=epochs), augment=augment)


def test_the_scale_is_composers():
    # composer.algorithms.ProgressiveResizing: initial_scale=0.5, finetune_fraction=0.2, delay_fraction=0.5.
    for elapsed in np.linspace(0, 1, 101):
        grown = min((elapsed - 0.5) / (1 - 0.2 - 0.5), 1) if elapsed >= 0.5 else 0.0
        assert scale_at(elapsed, AugmentConfig(size_start=0.5)) == pytest.approx(0.5 + 0.5 * grown, abs=1e-12)


@pytest.mark.parametrize(
    ("fields", "elapsed", "scale"),
    [
        ({"start": 0.6, "end": 0.8}, 0.65, 0.7),
        ({"start": 0.6, "end": 0.8}, 1.3, 0.8),
        ({"start": 0.6, "end": 0.6}, 0.0, 0.6),
        ({"start": 0.5, "hold": 0.0, "until": 1.0}, 0.5, 0.75),
        ({"start": 0.5, "hold": 0.4, "until": 0.4}, 0.399, 0.5),
        ({"start": 0.5, "hold": 0.4, "until": 0.4}, 0.4, 1.0),
    ],
)
def test_the_scale_goes_from_its_start_to_its_end_between_the_shares_asked_for(fields, elapsed, scale):
    assert scale_at(elapsed, recipe(**fields).augment) == pytest.approx(scale)


@pytest.mark.parametrize(("side", "multiple"), [(32, 4), (30, 4), (64, 4), (96, 4), (100, 32), (128, 32), (224, 32)])
@pytest.mark.parametrize("start", [0.3, 0.5, 0.75])
def test_sides_are_multiples_that_only_grow_and_end_at_the_full_side(side, multiple, start):
    made = recipe(side, 2 * side, start=start)
    sizes = [size_at(made, epoch, batch, 7) for epoch in range(10) for batch in range(7)]
    heights = [height for height, _ in sizes]
    assert heights == sorted(heights)
    assert sizes[0] != sizes[-1] == (side, 2 * side)
    assert abs(heights[0] - start * side) <= multiple / 2
    assert all(height % multiple == 0 for height in heights if height != side)
    assert sizes_in(made) == sorted(sizes_in(made), reverse=True)
    assert set(sizes) <= {*sizes_in(made), (side, 2 * side)}


def test_no_side_is_less_than_one_multiple_or_more_than_the_image():
    assert size_at(recipe(8, 3, start=0.1), 0, 0, 5) == (4, 3)


def test_the_size_changes_in_the_middle_of_an_epoch_and_is_decided_by_the_step_alone():
    made = recipe(epochs=1, start=0.5)
    assert [size_at(made, 0, batch, 10)[0] for batch in range(10)] == [16] * 6 + [20, 28, 32, 32]
    # 0.6 of the epochs: 0.5 + 0.5 / 3, of which 32 is 21.3.
    assert size_at(recipe(epochs=10, start=0.5), 6, 0, 999) == (20, 20)


def test_the_last_epochs_are_tuned_at_full_size_and_the_others_share_the_course():
    made, course = recipe(start=0.5, end=0.75, tune_epochs=2), recipe(epochs=8, start=0.5, end=0.75)
    for epoch in range(8):
        assert size_at(made, epoch, 3, 7) == size_at(course, epoch, 3, 7)
    assert {size_at(made, epoch, batch, 7) for epoch in (8, 9, 10) for batch in (0, 6)} == {(32, 32)}
    assert size_at(course, 9, 0, 7) == (24, 24), "a pass over the images after the last epoch"


def test_images_are_resized_bilinearly_with_antialiasing_each_by_itself():
    images = torch.randn(5, 3, 12, 16)
    small = resized(images, (6, 8))
    assert small.shape == (5, 3, 6, 8)
    for image, found in zip(images, small, strict=True):
        assert torch.equal(resized(image[None], (6, 8))[0], found)
    # At half the side a pixel is the mean of 4 x 4 by the triangle's weights, 1 3 3 1.
    triangle = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    inner = (images[:, :, 3:7, 5:9] * triangle[:, None] * triangle).sum((2, 3))
    assert torch.allclose(small[:, :, 2, 3], inner, atol=1e-5)  # fp32 sums of 16 numbers


def test_images_of_that_size_stay_the_same_tensor_and_channels_stay_last():
    images = torch.randn(5, 3, 12, 16).to(memory_format=torch.channels_last)
    assert resized(images, (12, 16)) is images
    assert resized(images, (8, 8)).is_contiguous(memory_format=torch.channels_last)
