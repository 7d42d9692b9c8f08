"""The vectorised resize beside the reference."""

import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from linne.fast_resize import torch_resize
from linne.preprocess import pillow_resize

PHOTOS = load_sample_images().images
RNG = np.random.default_rng(0)


def both(pixels_HWC, height, width, interpolation):
    extent = pixels_HWC.shape[:2]
    return [
        resize(pixels_HWC, height, width, interpolation, extent).astype(int) for resize in (pillow_resize, torch_resize)
    ]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
@pytest.mark.parametrize("size", [(256, 383), (31, 47), (600, 900), (224, 224)])
@pytest.mark.parametrize("channels", [1, 3])
def test_photographs_differ_by_one_level_in_few_pixels_and_by_two_when_they_grow(size, channels, interpolation):
    for photo in PHOTOS:
        reference, quick = both(np.ascontiguousarray(photo[..., :channels]), *size, interpolation)
        assert quick.shape == reference.shape == (*size, channels)
        assert np.abs(reference - quick).max() <= (2 if size[0] > photo.shape[0] else 1)
        assert (reference != quick).mean() <= 0.01


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_hard_edges_of_any_size_and_shape_differ_by_two_levels_at_most(interpolation):
    for _ in range(150):
        from_H, from_W, to_H, to_W = (int(side) for side in RNG.integers(1, 300, 4))
        pixels = RNG.integers(0, 2, (from_H, from_W, 3), dtype=np.uint8) * np.uint8(255)
        reference, quick = both(pixels, to_H, to_W, interpolation)
        assert np.abs(reference - quick).max() <= 2, (from_H, from_W, to_H, to_W)


def test_a_row_that_is_only_partly_image_moves_no_other():
    ramp = np.repeat(np.arange(200, dtype=np.uint8)[:, None, None], 101, axis=1)
    for resize in (pillow_resize, torch_resize):
        resized = resize(ramp, 50, 50, "bilinear", (199.25, 100.5))[..., 0]
        expected = (np.arange(50) + 0.5) * 199.25 / 50 - 0.5
        assert np.abs(resized[2:-2] - expected[2:-2, None]).max() <= 0.6, "rounding to whole levels"
