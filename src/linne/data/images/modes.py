"""From an image of any of Pillow's modes to grey or RGB of 8 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin

from linne.errors import ImageError

UInt8 = NDArray[np.uint8]

_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
"""Tags of TIFF 6.0, section 8."""


def to_array(image: Image.Image, channels: int) -> UInt8:
    """Return an image as uint8 H x W x `channels` (1 or 3), composited on white.

    Raises:
        ImageError: its numbers have no known range.
    """
    if is_deep(image):
        image = _to_8_bits(image)
    elif image.mode in _ALPHA_MODES or "transparency" in image.info:
        image = _on_white(image)
    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    if image.mode != (wanted := "L" if channels == 1 else "RGB"):  # `convert` copies even where nothing changes
        image = image.convert(wanted)
    return np.array(image).reshape(image.height, image.width, channels)  # a copy: arrays of `asarray` are read-only


def is_deep(image: Image.Image) -> bool:
    """Return whether the pixels are single numbers of more than 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def is_grey(image: ImageFile.ImageFile) -> bool:
    """Return whether an image can show no colour, by its mode and palette."""
    if image.mode == "P" and image.palette is not None:
        colours = np.frombuffer(bytes(image.palette.palette), np.uint8)
        triples = colours[: len(colours) // 3 * 3].reshape(-1, 3)
        return bool((triples == triples[:, :1]).all())
    return image.mode in ("1", "L", "LA") or is_deep(image)


def scale_transparency(image: Image.Image, *, bit_depth: int) -> None:
    """Bring a PNG's transparent colour to the 8 bits of the pixels; Pillow leaves it as the file has it."""
    stated = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(stated, tuple) and bit_depth == 16:
        image.info["transparency"] = tuple(value >> 8 for value in stated)
    elif image.mode == "L" and isinstance(stated, int) and bit_depth in (2, 4):
        image.info["transparency"] = stated * 255 // (2**bit_depth - 1)


def only_frame(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """Return a GIF's image with white around the part `box` that its first frame fills, as browsers show it.

    Pillow has the first colour of the palette there, whatever it is.
    """
    if box[0] <= 0 and box[1] <= 0 and box[2] >= image.width and box[3] >= image.height:
        return image
    part = image.crop(box)
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(_on_white(part) if "transparency" in image.info else part.convert("RGB"), box)
    return canvas


def from_levels(image: ImageFile.ImageFile, data: bytes) -> Image.Image:
    """Return a PGM or PPM of any number of levels but 256 and 65536, which Pillow reads number by number in Python.

    Raises:
        ImageError: `data` ends too early.
    """
    tile = image.tile[0]
    assert isinstance(tile.args, tuple)
    mode, top = str(tile.args[0]), int(tile.args[1])
    dtype, num_samples = np.dtype(">u2" if top > 255 else "u1"), 3 if mode == "RGB" else 1
    shape = (image.height, image.width, num_samples)
    if len(data) - tile.offset < np.prod(shape) * dtype.itemsize:
        raise ImageError("cut short PPM (not enough image data)")
    values_N = np.frombuffer(data, dtype, int(np.prod(shape)), tile.offset)
    level_of = np.rint(np.arange(top + 1) / top * 255).astype(np.uint8)
    levels_HWC = level_of[np.minimum(values_N, top)].reshape(shape)
    return Image.fromarray(levels_HWC if num_samples == 3 else levels_HWC[..., 0])


def _on_white(image: Image.Image) -> Image.Image:
    """Return the image composited on white, RGB."""
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Return a grey image of more than 8 bits as mode L: 16 bits divided by 257, floats of 0-1 times 255.

    Other ranges are refused: that an image is 0-4095, 0-1 or 0-255 stands nowhere in the file, and a wrong guess
    would make it black or white. TIFF states 12 bits, and which end is white.
    """
    values_HW: NDArray[Any] = np.asarray(image)
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    low, high = float(values_HW.min()), float(values_HW.max())
    if image.mode == "F":
        if not (low >= 0 and high <= 1):  # NaN fails both
            raise ImageError(
                f"its pixels are floating-point numbers from {low:g} to {high:g}, expected 0 to 1",
                hint="save it with 8 or 16 bits a channel",
            )
        grey_HW = np.rint(values_HW * 255).astype(np.uint8)
    else:
        if image.mode == "I" and (image.format == "TIFF" or low < 0 or high > 65535):
            raise ImageError(
                "its pixels are 32-bit integers, whose range no file states", hint="save it with 8 or 16 bits"
            )
        values_HW = values_HW.astype(np.uint32)
        twelve = tags.get(_BITS) == (12,)
        grey_HW = ((values_HW * 255 + 2047) // 4095 if twelve else (values_HW + 128) // 257).astype(np.uint8)
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            grey_HW[values_HW == transparent] = 255
    return Image.fromarray(255 - grey_HW if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else grey_HW)
