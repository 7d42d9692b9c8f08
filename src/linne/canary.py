"""Generated pictures on which a bundle proves, before its first answer, that it still answers as it did."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linne.preprocess import Floats, InputSpec, UInt8, normalise, resize_and_crop

MAX_SIDE = 1024


def canary_batch(spec: InputSpec) -> Floats:
    """Return the canary pictures as a model sees them, N x C x H x W."""
    return normalise(np.stack([resize_and_crop(image, spec) for image in canary_images(spec)]), spec)


def canary_images(spec: InputSpec) -> list[UInt8]:
    """Return generated pictures, H x W x `spec.channels`, the same on every call.

    Nobody's data, so that sharing a bundle shares none. Larger than the model's input and not square, with colours,
    edges, fine lines and no symmetry, so that channel order, scaling, resizing and cropping all change the answer.
    """
    draw = np.random.default_rng(1707)  # any number; the pictures are kept in the bundle, not drawn again
    wide = _canary_size(spec, 1.2, 1.7)
    tall = _canary_size(spec, 1.8, 1.25)
    images = [_shapes(*wide), _rings(*tall), _blocks(*wide, draw), draw.integers(0, 4, (*tall, 3)) * 85]
    return [np.ascontiguousarray(image[..., : spec.channels].astype(np.uint8)) for image in images]


def _canary_size(spec: InputSpec, tall: float, wide: float) -> tuple[int, int]:
    sides = math.ceil(spec.height * tall) + 3, math.ceil(spec.width * wide) + 5
    return min(sides[0], MAX_SIDE), min(sides[1], MAX_SIDE)


def _shapes(height: int, width: int) -> NDArray[Any]:
    """A slope of colour in another direction for each channel, with a disc and a bar on it."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    image = np.stack([x, y, 1 - x * y], axis=-1) * 255
    image[(y - 0.35) ** 2 + (x - 0.4) ** 2 < 0.05] = (250, 40, 10)
    image[(y > 0.6) & (y < 0.75) & (x > 0.3)] = (20, 60, 230)
    return image


def _rings(height: int, width: int) -> NDArray[Any]:
    """Rings that grow finer outwards, around another centre for each channel."""
    y, x = np.mgrid[0:height, 0:width]
    centres = ((0.2, 0.3), (0.5, 0.6), (0.8, 0.4))
    squares = [(y - height * a) ** 2 + (x - width * b) ** 2 for a, b in centres]
    return 127.5 * (1 + np.cos(np.stack(squares, axis=-1) * np.pi / (2 * max(height, width))))


def _blocks(height: int, width: int, draw: np.random.Generator) -> NDArray[Any]:
    """Blocks of random colours, five high and seven wide."""
    colours = draw.integers(0, 256, (5, 7, 3))
    return colours[np.arange(height) * 5 // height][:, np.arange(width) * 7 // width]
