"""JPEGs decoded by libjpeg-turbo itself: the same pixels as before, and what a reduced size costs."""

import functools
import io

import numpy as np
import pytest
from museum import exhibits
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images

from linne.data.images.decode import decode, reduced, to_input
from linne.errors import ImageError
from linne.fast_resize import torch_resize
from linne.preprocess import InputSpec, pillow_resize, resize_and_crop

PHOTOS = load_sample_images().images


def jpeg(pixels_HWC, **options):
    stream = io.BytesIO()
    Image.fromarray(pixels_HWC).save(stream, "JPEG", **options)
    return stream.getvalue()


def by_pillow(data):
    image = Image.open(io.BytesIO(data))
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


@pytest.mark.parametrize("photo", PHOTOS, ids=["china", "flower"])
@pytest.mark.parametrize(
    "options",
    [{"quality": 90}, {"quality": 30, "subsampling": 2}, {"subsampling": 0}, {"subsampling": 1, "progressive": True}],
)
def test_at_full_size_not_one_pixel_differs_from_pillows(photo, options):
    data = jpeg(photo[:401, :333], **options)
    assert np.array_equal(decode(data, 3), by_pillow(data))
    assert np.array_equal(decode(data, 1)[..., 0], np.asarray(Image.fromarray(by_pillow(data)).convert("L")))


def test_a_grey_jpeg_is_grey():
    grey = np.asarray(Image.fromarray(PHOTOS[0]).convert("L"))
    data = jpeg(grey)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    assert np.array_equal(decode(data, 1)[..., 0], expected)
    assert np.array_equal(decode(data, 3), np.repeat(expected[..., None], 3, axis=2))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_stands_upright_whatever_its_exif_says_and_whatever_its_size(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(PHOTOS[0], exif=exif)
    expected = by_pillow(data)
    assert np.array_equal(decode(data, 3), expected)
    half, full_size = reduced(data, 3, lambda height, width: (height // 2, width // 2))
    assert full_size == expected.shape[:2]
    shrunk = np.asarray(Image.fromarray(expected).resize((half.shape[1], half.shape[0]), Image.Resampling.BOX))
    assert np.abs(half.astype(int) - shrunk).mean() < 10, "another way up differs by 50 and more"


@pytest.mark.parametrize(("least", "factor"), [(1, 8), (53, 8), (54, 4), (107, 2), (213, 2), (214, 1), (427, 1)])
def test_the_reduced_size_is_the_smallest_power_of_two_that_is_enough(least, factor):
    pixels, full_size = reduced(jpeg(PHOTOS[0]), 3, lambda height, width: (least, least))
    assert full_size == (427, 640)
    assert pixels.shape == (-(-427 // factor), 640 // factor, 3)


@functools.cache
def camera_photos(size):
    """Return the photographs as files of that size, which are decoded at a quarter, with all of their pixels."""
    files = [jpeg(np.asarray(Image.fromarray(p).resize(size, Image.Resampling.LANCZOS)), quality=90) for p in PHOTOS]
    for data in files:
        assert reduced(data, 3, lambda height, width: (512, 512))[0].shape[0] == 750, "a quarter: it was reduced"
    return [(data, decode(data, 3)) for data in files]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("resize", [pillow_resize, torch_resize])
@pytest.mark.parametrize("size", [(4000, 3000), (4003, 2999)], ids=["whole blocks", "cut blocks"])
def test_camera_photos_decoded_at_a_quarter_differ_by_less_than_a_third_of_a_level(size, resize, interpolation):
    spec = InputSpec(
        channels=3, height=224, width=224, mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=0.875, interpolation=interpolation
    )
    differences = []
    for data, whole_HWC in camera_photos(size):
        quick, full = to_input(data, spec, name="x", resize=resize), resize_and_crop(whole_HWC, spec)
        differences.append(np.abs(quick.astype(int) - full))
    assert np.mean(differences) <= 0.3
    assert np.max(differences) <= 15


def test_an_image_of_less_than_six_times_the_size_is_decoded_whole():
    data = jpeg(PHOTOS[0])
    spec = InputSpec(channels=3, height=74, width=74, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert np.array_equal(to_input(data, spec, name="x"), resize_and_crop(decode(data, 3), spec))


@pytest.mark.parametrize("side", [32, 64, 73])
def test_sharp_photographs_decoded_reduced_differ_by_half_a_level_at_most(side):
    spec = InputSpec(channels=3, height=side, width=side, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear")
    for photo in PHOTOS:
        data = jpeg(photo, quality=92)
        quick, full = to_input(data, spec, name="x"), resize_and_crop(decode(data, 3), spec)
        assert 0 < np.abs(quick.astype(int) - full).mean() <= 0.5


@pytest.mark.parametrize("name", ["lossless and large.jpg", "lossless and large, colour.jpg"])
def test_a_lossless_jpeg_is_decoded_whole_whatever_is_enough(name, python, tmp_path):
    exhibit = next(exhibit for exhibit in exhibits() if exhibit.name == name)
    (tmp_path / name).write_bytes(exhibit.data)
    # Memory that is written beyond its end may only be missed later, hence often and in a process of its own.
    code = """
import sys
from linne.data.images.decode import read_file, reduced
data, channels = read_file(sys.argv[1]), int(sys.argv[2])
for _ in range(200):
    for factor in (2, 4, 8):
        pixels, size = reduced(data, channels, lambda height, width: (height // factor, width // factor))
        assert pixels.shape[:2] == size
"""
    ended = python("-c", code, tmp_path / name, 3 if "colour" in name else 1)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("cut", [2, 3, 100, 20_000])
def test_a_jpeg_cut_short_is_refused_at_every_size(cut):
    data = jpeg(PHOTOS[0])[:-cut]
    for enough in (None, lambda height, width: (1, 1)):
        with pytest.raises(ImageError, match=r"^`a.jpg` cannot be read: cut short JPEG"):
            reduced(data, 3, enough, name="a.jpg")


def test_a_jpeg_with_thousands_of_scans_is_refused_before_it_is_decoded():
    data = jpeg(PHOTOS[0], progressive=True)
    start = data.rindex(b"\xff\xda")
    bomb = data[:start] + data[start:-2] * 200 + data[-2:]
    with pytest.raises(ImageError, match=r"it has 20\d scans, expected at most 100"):
        decode(bomb, 3)


def test_an_image_of_too_many_pixels_is_refused_from_its_header():
    data = bytearray(jpeg(PHOTOS[0]))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    with pytest.raises(ImageError, match="65,535 x 65,535 pixels, more than the 50,000,000 accepted"):
        decode(bytes(data), 3)
