"""What `linne data pack` stores for one image: its own bytes where they will do, or smaller pixels encoded anew."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image

from linne.data.images.decode import enough_for, peek, reduced
from linne.data.images.headers import sniff
from linne.data.images.npy import to_npy
from linne.data.source import Source, Split, UInt8
from linne.errors import ImageError, RecipeError
from linne.preprocess import InputSpec, resize_and_crop

FORMATS = ("jpg", "png", "raw")
_KEPT = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
"""Formats whose bytes are kept where nothing is resized: those that every reader of shards knows."""
_INTERPOLATION = "bicubic"
_LONGEST = 8192
"""The most pixels on a side that an `InputSpec` takes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PackSettings:
    """What decides the bytes of a packed image."""

    size: int | None = 256
    """Pixels of the shorter edge of images that are larger; None resizes nothing."""
    format: str = "jpg"
    """`jpg`, `png`, or `raw` pixels."""
    quality: int = 90
    """Of `jpg`, 1 to 100."""

    def __post_init__(self) -> None:
        if self.size is not None and not 1 <= self.size <= 8192:
            raise RecipeError(f"size is {self.size}, expected 1 to 8192")
        if self.format not in FORMATS:
            raise RecipeError(f"no format `{self.format}`; known: {', '.join(FORMATS)}")
        if not 1 <= self.quality <= 100:
            raise RecipeError(f"quality is {self.quality}, expected 1 to 100")

    def to_dict(self) -> dict[str, int | str | None]:
        """Return what changes the bytes, as JSON-ready values."""
        quality = {"quality": self.quality} if self.format == "jpg" else {}
        return {"size": self.size, "format": self.format, **quality}


def usual_format(source: Source) -> str:
    """Return `png` for a source of pixels, which JPEG would blur, and `jpg` for one of image files."""
    return "png" if source.splits["train"].store.array is not None else "jpg"


@dataclass(frozen=True, eq=False, slots=True)
class PackedImage:
    """An image as it goes into a shard."""

    suffix: str
    """`jpg`, `png`, `webp`, or `npy` for pixels."""
    data: bytes
    height: int
    width: int


def pack_image(split: Split, position: int, settings: PackSettings) -> PackedImage:
    """Return example `position` of `split` as `settings` want it stored; every image is decoded whole or reduced.

    A larger image is resized as `Split.cropped` resizes it for a model whose shorter edge before the crop is
    `settings.size`: from `raw` and `png` such a model gets the same pixels, bit for bit. An image that needs no
    resizing keeps its bytes, metadata included, when they are JPEG, PNG or WebP and pixels were not asked for.

    Raises:
        ImageError: it cannot be read or decoded; the message begins with its name.
    """
    image, name = split.load(position), split.example_name(position)
    if not isinstance(image, bytes):
        pixels_HWC, full_size = image, (image.shape[0], image.shape[1])
    else:
        # In its own channels, so that one colour image among grey ones keeps its colour.
        channels = 1 if peek(image, name=name).grey else 3

        def enough(height: int, width: int) -> tuple[int, int]:
            return enough_for(*packed_size(height, width, settings.size))

        pixels_HWC, full_size = reduced(image, channels, enough, name=name)
    height, width = packed_size(*full_size, settings.size)
    if (height, width) != full_size:
        pixels_HWC = _resized(pixels_HWC, height, width, full_size, name)
    elif isinstance(image, bytes) and settings.format != "raw" and (kept := _KEPT.get(sniff(image) or "")):
        return PackedImage(kept, image, height, width)
    return PackedImage(*_encoded(pixels_HWC, settings), height, width)


def packed_size(height: int, width: int, size: int | None) -> tuple[int, int]:
    """Return the (height, width) that an image is packed with: as `preprocess.resized_size`, but never larger."""
    if size is None or min(height, width) <= size:
        return height, width
    return (size, int(size * width / height)) if height <= width else (int(size * height / width), size)


def _resized(pixels_HWC: UInt8, height: int, width: int, full_size: tuple[int, int], name: str) -> UInt8:
    if max(height, width) > _LONGEST:
        raise ImageError(f"`{name}` would be packed as {height:,} x {width:,} pixels, more than {_LONGEST:,} a side")
    channels = pixels_HWC.shape[2]
    # The very function that makes model input, told to keep everything: what it does to reduced JPEGs is its own.
    whole = InputSpec(
        channels=channels,
        height=height,
        width=width,
        mean=(0.5,) * channels,
        std=(0.5,) * channels,
        interpolation=_INTERPOLATION,
        crop_mode="squash",
    )
    return resize_and_crop(pixels_HWC, whole, full_size=full_size)


def _encoded(pixels_HWC: UInt8, settings: PackSettings) -> tuple[str, bytes]:
    if settings.format == "raw":
        return "npy", to_npy(pixels_HWC)
    grey = pixels_HWC.shape[2] == 1
    if settings.format == "png":
        stream = io.BytesIO()
        Image.fromarray(pixels_HWC[..., 0] if grey else pixels_HWC).save(stream, "PNG")
        return "png", stream.getvalue()
    # Colour at full resolution: a fifth more bytes, and thin coloured lines keep their colour.
    colours = {"colorspace": "GRAY", "colorsubsampling": "Gray"} if grey else {"colorsubsampling": "444"}
    return "jpg", simplejpeg.encode_jpeg(np.ascontiguousarray(pixels_HWC), settings.quality, **colours)
