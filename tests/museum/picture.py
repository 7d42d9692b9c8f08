"""What the exhibits show, by formula, and what every module of the museum is made of."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

UInt8 = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Exhibit:
    """One odd file, and the one result that it has."""

    name: str
    """The name of its file: what is odd about it, and an ending (which may lie)."""
    data: bytes
    shows: UInt8 | None = None
    """Its pixels as RGB, H x W x 3, upright, on white; None where it is refused."""
    refusal: str | None = None
    """What is said of it, after its name."""
    within: float = 0.0
    """Mean difference, in levels, of a file whose format loses something."""


def shown(name: str, data: bytes, pixels: Any, within: float = 0.0) -> Exhibit:
    """Return an exhibit that shows `pixels`: H x W grey or H x W x 3."""
    array = np.asarray(pixels, np.uint8)
    return Exhibit(name, data, np.repeat(array[..., None], 3, axis=2) if array.ndim == 2 else array, within=within)


def refused(name: str, data: bytes, refusal: str) -> Exhibit:
    """Return an exhibit that is refused with the words `refusal`."""
    return Exhibit(name, data, refusal=refusal)


def colours(height: int = 12, width: int = 20) -> UInt8:
    """Return a picture whose every pixel differs and no side of which is like another."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 12 % 256, y * 20 % 256, (200 - 5 * x + 3 * y) % 256], axis=-1).astype(np.uint8)


def greys(height: int = 12, width: int = 20) -> UInt8:
    """Return a grey picture from black to white."""
    count = height * width
    return (np.arange(count) * 255 // (count - 1)).astype(np.uint8).reshape(height, width)


def smooth(height: int = 48, width: int = 64) -> UInt8:
    """Return a picture that a lossy format hurts little."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 3, y * 4, 255 - (x + y) * 2], axis=-1).clip(0, 255).astype(np.uint8)


def over_white(rgb: Any, alpha: Any) -> UInt8:
    """Return colours laid on white: alpha 0 shows white, 255 the colour; rounded as integers in the way of Pillow."""
    rgb, alpha = np.asarray(rgb, np.int64), np.asarray(alpha, np.int64)[..., None]
    # Pillow's alpha_composite for an opaque background: 7 more bits than 8, rounded.
    blend = rgb * alpha * 128 + 255 * (255 * 128 - alpha * 128) + (0x80 << 7)
    return ((((blend >> 8) + blend) >> 8) >> 7).astype(np.uint8)


def saved(pixels: Any, kind: str, mode: str | None = None, **options: Any) -> bytes:
    """Return what Pillow writes."""
    stream = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels), mode)).save(
        stream, kind, **options
    )
    return stream.getvalue()


def exif(orientation: int, order: str = ">") -> bytes:
    """Return an EXIF block (TIFF without `Exif`) that states `orientation` and nothing else."""
    head = b"MM\0*" if order == ">" else b"II*\0"
    return head + struct.pack(order + "IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def stored(upright: UInt8, orientation: int) -> UInt8:
    """Return how a camera with this EXIF orientation stores what is seen as `upright` (Exif 2.32, tag 0x0112)."""
    ways = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: upright.swapaxes(0, 1)[::-1],
        7: upright.swapaxes(0, 1)[::-1, ::-1],
        8: upright.swapaxes(0, 1)[:, ::-1],
    }
    return np.ascontiguousarray(ways[orientation])
