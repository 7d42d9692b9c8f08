"""JPEGs by libjpeg-turbo itself: in half the time of Pillow, and at a half, a quarter or an eighth of their size.

The same library does the work inside Pillow, so that at full size not one pixel differs.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from linne.errors import ImageError

UInt8 = NDArray[np.uint8]
Enough = Callable[[int, int], tuple[int, int]]
"""From the height and width of the whole image, upright, to the fewest (rows, columns) that are wanted of it."""

MAX_SCANS = 100
"""A progressive JPEG has about ten. Each scan passes over every pixel, so thousands in a small file take minutes."""
MAX_SCANNED_PIXELS = 1_000_000_000
"""Pixels times scans: twenty scans of the largest image accepted, which take up to a second and a half."""
_ALWAYS_ENOUGH = 20
_SCAN = 0xDA
_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
"""What ends the data of a scan: neither a stuffed zero nor a restart."""
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_LOSSLESS = (0xC3, 0xC7, 0xCB, 0xCF)
_FACTORS = (8, 4, 2)
"""Powers of two only: the other eighths of libjpeg differ by several levels on small photos."""


def decode(
    data: bytes,
    channels: int,
    orientation: int,
    enough: Enough | None,
    check_size: Callable[[tuple[int, int]], None],
) -> tuple[UInt8, tuple[int, int]] | None:
    """Return the pixels of a JPEG, turned by its EXIF `orientation`, and the (height, width) of the full image.

    Of a colour JPEG they are RGB, even where `channels` is 1: what is grey of it is for `to_channels` to say.
    None where another decoder should judge: CMYK, and everything that libjpeg has a word to say about.

    Raises:
        ImageError: a part of the picture is missing or damaged, it has too many scans or, from `check_size` (called
            with (width, height)), too many pixels.
    """
    # What follows 0xFF is a marker, in pixels a zero or a restart; elsewhere it may look like one.
    bytes_N = np.frombuffer(data, np.uint8)
    marks = np.bincount(bytes_N[1:][bytes_N[:-1] == 0xFF], minlength=256)
    if marks[_SCAN] > _ALWAYS_ENOUGH:
        _check_scans(data)
    factor = 1
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        check_size((width, height))
        if colours not in ("Gray", "YCbCr", "RGB"):
            return None
        full_size = (height, width) if orientation < 5 else (width, height)
        # Lossless ones cannot be reduced: simplejpeg 1.9 makes room for less than libjpeg-turbo 3 then writes.
        if enough is not None and not marks[[*_LOSSLESS]].any():
            factor = _factor(full_size, enough(*full_size))
        # With these minimums no smaller size is allowed, and by `min_factor` no larger one.
        least = {"min_height": -(-height // factor), "min_width": -(-width // factor), "min_factor": factor}
        wanted = "GRAY" if colours == "Gray" and channels == 1 else "RGB"
        pixels_HWC: UInt8 = simplejpeg.decode_jpeg(data, wanted, **least)
    except ValueError as warned:  # a warning or an error of libjpeg
        kind, _, what = str(warned).partition(": ")
        # Of cameras that write some bytes too many between scans nothing is missing.
        if kind != "Corrupt JPEG data" or "extraneous bytes" in what:
            # Grey lossless ones are not coloured; damage must not depend on what is wanted.
            return None if factor == channels == 1 else decode(data, 1, orientation, None, check_size)
        raise ImageError(f"{'cut short' if 'end' in what else 'damaged'} JPEG ({what})") from warned
    return _upright(pixels_HWC, orientation), full_size


def _check_scans(data: bytes) -> None:
    num_scans, num_pixels = _scans(data)
    if num_scans > MAX_SCANS:
        raise ImageError(f"it has {num_scans:,} scans, expected at most {MAX_SCANS}: such JPEGs are made to take long")
    if num_scans * num_pixels > MAX_SCANNED_PIXELS:
        raise ImageError(
            f"it has {num_scans} scans of {num_pixels:,} pixels, expected at most {MAX_SCANNED_PIXELS:,} in all: such "
            "JPEGs are made to take long"
        )


def _scans(data: bytes) -> tuple[int, int]:
    """Return how many scans a JPEG has, and of how many pixels; what lies behind its end does not count.

    Phones put videos there, which contain anything.
    """
    num_scans, num_pixels, position = 0, 0, 2
    while (found := _MARKER.search(data, position)) and (marker := found[1][0]) != 0xD9:
        position = found.end()
        if marker in (0x01, 0xD8):  # without a length
            continue
        if marker == _SCAN:
            num_scans += 1
        elif marker in _FRAMES and num_pixels == 0:
            num_pixels = int.from_bytes(data[position + 3 : position + 5]) * int.from_bytes(
                data[position + 5 : position + 7]
            )
        position += int.from_bytes(data[position : position + 2])
    return num_scans, num_pixels


def _factor(full_size: tuple[int, int], least: tuple[int, int]) -> int:
    """Return by how much the image can be reduced and keep `least` rows and columns."""
    for factor in _FACTORS:
        if full_size[0] // factor >= least[0] and full_size[1] // factor >= least[1]:
            return factor
    return 1


def _upright(pixels_HWC: UInt8, orientation: int) -> UInt8:
    """Return the image as it is to be seen: Exif 2.32, tag 0x0112."""
    if orientation == 1:
        return pixels_HWC
    if orientation >= 5:  # rows are columns
        pixels_HWC = pixels_HWC.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels_HWC = pixels_HWC[::-1]
    if orientation in (2, 3, 6, 7):
        pixels_HWC = pixels_HWC[:, ::-1]
    return np.ascontiguousarray(pixels_HWC)
