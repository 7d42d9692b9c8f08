"""The views of an image that test-time augmentation averages over."""

from __future__ import annotations

import typing

import numpy as np
import pytest
import torch

from linne.inference.views import VIEWS, views_of
from linne.recipe import Views
from linne.report import ALSO_SEEN

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 7, 5, 3), dtype=np.uint8)


def test_every_kind_of_views_has_weights_that_sum_to_one_and_words_for_the_headline():
    assert set(VIEWS) == set(ALSO_SEEN) == set(typing.get_args(Views))
    for views in VIEWS.values():
        assert sum(view.weight for view in views) == 1
        assert len({view[1:] for view in views}) == len(views)


def test_an_image_and_its_mirror_image_count_the_same():
    seen = list(views_of(IMAGES, "flip"))
    assert [weight for weight, _ in seen] == [0.5, 0.5]
    assert np.array_equal(seen[0][1], IMAGES)
    assert np.array_equal(seen[1][1], IMAGES[:, :, ::-1])


def test_crops_are_those_of_the_paper():
    # Half of the answer is the image's and its mirror's; half comes from two crops of the image with a border of one
    # reflected pixel, at its upper left and lower right, and their mirror images (Jordan 2024).
    images_NCHW = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float()
    padded = torch.nn.functional.pad(images_NCHW, (1, 1, 1, 1), "reflect")
    bases = [(0.25, images_NCHW), (0.125, padded[:, :, :7, :5]), (0.125, padded[:, :, 2:, 2:])]
    wanted = [(weight, view) for weight, base in bases for view in (base, base.flip(3))]
    found = list(views_of(IMAGES, "crops"))
    assert [weight for weight, _ in found] == [weight for weight, _ in wanted]
    for (_, view), (_, expected) in zip(found, wanted, strict=True):
        assert np.array_equal(view, expected.permute(0, 2, 3, 1).byte().numpy())
        assert view.flags.c_contiguous


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (8, 8)])
def test_crops_of_the_smallest_images_keep_their_size(size):
    image = np.arange(np.prod(size), dtype=np.uint8).reshape(1, *size, 1)
    assert {view.shape for _, view in views_of(image, "crops")} == {image.shape}
