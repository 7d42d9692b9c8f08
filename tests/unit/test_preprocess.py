"""The reference preprocessing (its equality with timm: tests/pipeline/test_other_libraries.py)."""

from __future__ import annotations

import numpy as np
import pytest

from linne.errors import BundleError, ImageError
from linne.preprocess import InputSpec, normalise, resize_and_crop


def spec(**changes) -> InputSpec:
    values = {"channels": 3, "height": 32, "width": 32, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    values |= changes
    return InputSpec(**values)


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def test_an_image_of_the_right_size_comes_back_as_it_is():
    image = picture(32, 32)
    assert resize_and_crop(image, spec()) is image


@pytest.mark.parametrize("size", [(1, 1), (7, 200), (200, 7), (33, 31), (500, 375), (32, 64)])
@pytest.mark.parametrize("changes", [{}, {"crop_pct": 0.875}, {"crop_mode": "squash"}, {"height": 20, "width": 48}])
def test_any_image_becomes_the_size_of_the_spec(size, changes):
    wanted = spec(**changes)
    assert resize_and_crop(picture(*size), wanted).shape == (wanted.height, wanted.width, 3)


def test_the_centre_is_kept():
    image = np.zeros((30, 90, 3), dtype=np.uint8)
    image[:, 30:60] = 200
    assert np.all(resize_and_crop(image, spec(height=30, width=30)) == 200)


def test_normalising_follows_its_formula():
    image = picture(4, 5)
    expected = (image / 255 - np.array((0.5, 0.4, 0.3))) / np.array((0.2, 0.3, 0.4))
    found = normalise(image[None], spec())
    assert found.dtype == np.float32
    # 1e-6 of values up to 2.5: one float32 multiplication and addition.
    assert np.abs(found[0].transpose(1, 2, 0) - expected).max() < 1e-6


def test_a_thin_strip_that_would_fill_the_memory_is_refused():
    with pytest.raises(ImageError, match=r"an image of 1 x 20000 pixels would become 224 x 4480000 before its centre"):
        resize_and_crop(picture(1, 20_000), spec(height=224, width=224))


def test_a_spec_survives_json():
    import json

    wanted = spec(crop_pct=0.9, interpolation="bilinear")
    assert InputSpec.from_dict(json.loads(json.dumps(wanted.to_dict()))) == wanted


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 4}, "4 channels, expected 1 or 3"),
        ({"mean": (0.5,)}, "1 means and 3 deviations for 3 channels"),
        ({"std": (0.2, 0.0, 0.4)}, "finite values and std > 0 expected"),
        ({"height": 0}, "0 x 32 pixels, expected 1 to 8192"),
        ({"crop_pct": 1.5}, "crop_pct 1.5, expected 0.1 to 1"),
        ({"interpolation": "best"}, "no interpolation `best`"),
        ({"crop_mode": "border"}, "no crop mode `border`"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(BundleError) as caught:
        spec(**changes)
    assert message in caught.value.message


def test_a_spec_with_an_unknown_field_is_refused():
    with pytest.raises(BundleError, match="input spec cannot be read"):
        InputSpec.from_dict({**spec().to_dict(), "colour": "bgr"})
