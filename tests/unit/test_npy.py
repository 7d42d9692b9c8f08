"""Pixels as NumPy files: what NumPy writes is read, and nothing that could be more than pixels."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linne.data.images.npy import MAGIC, from_npy, to_npy
from linne.errors import ImageError


def saved(array, version=None):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=version, allow_pickle=True)
    return stream.getvalue()


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]))
@settings(max_examples=30, deadline=None)
def test_pixels_come_back_and_the_file_is_numpys_to_the_byte(height, width, channels):
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, channels), np.uint8)
    data = to_npy(pixels)
    assert np.array_equal(from_npy(data), pixels)
    assert data == saved(pixels)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_numpys_versions_are_read_and_grey_may_lack_its_channel(version):
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert np.array_equal(from_npy(saved(pixels, version)), pixels[..., None])


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.int8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(16, np.uint8),
        np.asfortranarray(np.zeros((4, 5, 3), np.uint8)),
        np.array([[{"code": "runs"}]], object),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_anything_but_pixels_is_refused(array):
    with pytest.raises(ImageError) as caught:
        from_npy(saved(array))
    assert caught.value.message == "not a NumPy file of uint8 H x W x C pixels in C order, with 1 or 3 channels"


def test_a_shape_that_lies_is_refused_before_anything_is_made():
    data = to_npy(np.zeros((4, 4, 3), np.uint8))
    lie = data.replace(b"(4, 4, 3), }" + b" " * 10, b"(999999, 999999, 3), }")
    with pytest.raises(ImageError, match="999999 x 999999 x 3 pixels need 2,999,994,000,003 bytes, 48 are there"):
        from_npy(lie)
    with pytest.raises(ImageError, match="4 x 4 x 3 pixels need 48 bytes, 47 are there"):
        from_npy(data[:-1])


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=100, deadline=None)
def test_any_bytes_give_pixels_or_our_error(data, with_magic):
    try:
        from_npy(MAGIC + data if with_magic else data)
    except ImageError:
        return
    pytest.fail("random bytes were taken for pixels")
