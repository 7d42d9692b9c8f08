"""Pixels as a NumPy file, read without NumPy's reader, which can be made to unpickle.

Only uint8 images are known: H x W x C with 1 or 3 channels, or H x W, in C order.
"""

from __future__ import annotations

import re
import struct

import numpy as np
from numpy.typing import NDArray

from linne.errors import ImageError

UInt8 = NDArray[np.uint8]

MAGIC = b"\x93NUMPY"
HEAD_BYTES = 256
"""Enough of a file to know its shape: NumPy and linne write 128."""
_HEADER = re.compile(
    rb"\{'descr': '[|<>=]u1', 'fortran_order': False, 'shape': \((\d{1,6}), (\d{1,6})(?:, ([13]))?\), \} *\n"
)
"""What NumPy writes for uint8 images since version 1 of the format; nothing else is accepted."""


def to_npy(pixels_HWC: UInt8) -> bytes:
    """Return uint8 H x W x C `pixels_HWC` as the bytes of a NumPy file, version 1.0, that `numpy.load` reads."""
    height, width, channels = pixels_HWC.shape
    described = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({height}, {width}, {channels}), }}"
    header = described.ljust(117) + "\n"  # 10 + 118 = 128, as NumPy aligns it
    return MAGIC + b"\x01\x00" + struct.pack("<H", len(header)) + header.encode() + pixels_HWC.tobytes()


def npy_shape(head: bytes) -> tuple[int, int, int]:
    """Return (height, width, channels) stated in the first `HEAD_BYTES` of a NumPy file.

    Raises:
        ImageError: it is not a uint8 image in C order.
    """
    return _shape(head)[:3]


def from_npy(data: bytes) -> UInt8:
    """Return the image in a NumPy file as uint8 H x W x C; a read-only view of `data`.

    Raises:
        ImageError: it is not a uint8 image in C order, or cut short.
    """
    height, width, channels, start = _shape(data[:HEAD_BYTES])
    if len(data) - start != height * width * channels:
        raise ImageError(
            f"{height} x {width} x {channels} pixels need {height * width * channels:,} bytes, "
            f"{len(data) - start:,} are there"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(height, width, channels)


def _shape(head: bytes) -> tuple[int, int, int, int]:
    """Return height, width, channels, and where the pixels begin."""
    if head.startswith(MAGIC) and len(head) >= 10 and head[6] in (1, 2, 3):
        start = 10 if head[6] == 1 else 12
        size = int.from_bytes(head[8:start], "little")
        stated = _HEADER.fullmatch(head[start : start + size])
        if stated is not None and int(stated[1]) > 0 and int(stated[2]) > 0:
            return int(stated[1]), int(stated[2]), int(stated[3] or 1), start + size
    raise ImageError("not a NumPy file of uint8 H x W x C pixels in C order, with 1 or 3 channels")
