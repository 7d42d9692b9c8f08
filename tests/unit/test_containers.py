"""What files say of themselves is read from their headers, and no header breaks the reader."""

import io
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from linne.checking.containers import ALPHA, ANIMATED, CMYK, DEEP, PROFILE, TURNED, describe, named_otherwise

RGB = Image.linear_gradient("L").resize((20, 12)).convert("RGB")
CLEAR = Image.merge("RGBA", [*RGB.split(), RGB.convert("L")])
TURN = Image.Exif()
TURN[0x0112] = 6
FRAMES = {"save_all": True, "append_images": [RGB.rotate(180), RGB.rotate(90)]}
ICC = {"icc_profile": b"\0" * 200}

CASES = {
    "jpeg": (RGB, "JPEG", {}, 0),
    "jpeg turned": (RGB, "JPEG", {"exif": TURN}, TURNED),
    "jpeg with profile": (RGB, "JPEG", ICC, PROFILE),
    "jpeg of four inks": (RGB.convert("CMYK"), "JPEG", {}, CMYK),
    "png": (RGB, "PNG", {}, 0),
    "png with alpha": (CLEAR, "PNG", {}, ALPHA),
    "png with a transparent colour": (RGB.convert("P"), "PNG", {"transparency": 3}, ALPHA),
    "png of 16 bits": (RGB.convert("I;16"), "PNG", {}, DEEP),
    "png turned": (RGB, "PNG", {"exif": TURN}, TURNED),
    "png with profile": (RGB, "PNG", ICC, PROFILE),
    "png of three frames": (RGB, "PNG", FRAMES, ANIMATED),
    "gif": (RGB, "GIF", {}, 0),
    "gif of three frames": (RGB, "GIF", FRAMES, ANIMATED),
    "gif with a transparent colour": (RGB.quantize(8), "GIF", {"transparency": 0}, ALPHA),
    "webp": (RGB, "WEBP", {}, 0),
    "webp lossless with alpha": (CLEAR, "WEBP", {"lossless": True}, ALPHA),
    "webp with alpha": (CLEAR, "WEBP", {}, ALPHA),
    "webp of three frames": (RGB, "WEBP", FRAMES, ANIMATED),
    "webp turned, with profile": (RGB, "WEBP", {"exif": TURN, **ICC}, TURNED | PROFILE),
    "tiff": (RGB, "TIFF", {}, 0),
    "tiff with alpha": (CLEAR, "TIFF", {}, ALPHA),
    "tiff of four inks": (RGB.convert("CMYK"), "TIFF", {}, CMYK),
    "tiff of 16 bits": (RGB.convert("I;16"), "TIFF", {}, DEEP),
    "tiff turned, with profile": (RGB, "TIFF", {"exif": TURN, **ICC}, TURNED | PROFILE),
    "tiff of three pages": (RGB, "TIFF", FRAMES, ANIMATED),
    "bmp": (RGB, "BMP", {}, 0),
    "ppm": (RGB, "PPM", {}, 0),
}


def encoded(case):
    image, kind, options, _ = CASES[case]
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


@pytest.mark.parametrize("case", CASES)
def test_format_and_particulars_are_recognised(case):
    assert describe(encoded(case)) == (CASES[case][1], CASES[case][3])


@pytest.mark.parametrize("case", CASES)
def test_a_file_cut_anywhere_is_described_without_an_error(case):
    data = encoded(case)
    for length in range(0, len(data), max(1, len(data) // 150)):
        describe(data[:length])


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(CASES)), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=12))
def test_a_damaged_header_is_described_without_an_error(case, changes):
    data = bytearray(encoded(case))
    for place, value in changes:
        data[place % len(data)] = value
    describe(bytes(data))


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff\xe1\0\2" * 1_000_000,
        b"\xff\xd8" + b"\xff" * 3_000_000,
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\0" * 4_000_000,
        b"GIF89a" + b"\1\0" * 3 + b"\0" + b"\x21\xfe\0" * 1_000_000,
        b"RIFF\0\0\0\0WEBPVP8X\0\0\0\0\x08" + b"\0" * 8_000_000,
        b"II*\0\x08\0\0\0\xff\xff" + b"\0" * 800_000,
    ],
    ids=["jpeg segments", "jpeg padding", "png", "gif", "webp", "tiff"],
)
def test_a_file_of_a_million_empty_parts_takes_no_time(data):
    started = time.process_time()
    describe(data)
    assert time.process_time() - started < 0.5  # a hundredth of that here; a shared machine is slower


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("a/b.jpg", "JPEG", False),
        ("a/b.JPEG", "JPEG", False),
        ("a/b.jpg", "PNG", True),
        ("a/b.png", "GIF", True),
        ("train[3]", "PNG", False),
        ("b.cls", "PNG", False),
        ("b.jpg", None, False),
        ("b.tif", "TIFF", False),
    ],
)
def test_a_file_is_named_otherwise_when_its_ending_is_another_formats(name, kind, expected):
    assert named_otherwise(name, kind) == expected
