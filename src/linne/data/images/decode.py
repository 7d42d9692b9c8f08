"""Bytes to pixels: the only decoder, the same in training, evaluation and prediction.

What an image becomes is decided here and nowhere else, see docs/concepts/decoding.md. Pillow's plugins are called
directly, one per allowed format, because `Image.open` would load forty parsers to find WebP and TIFF, and warns about
large images through a process-wide setting. No setting of Pillow is changed, so threads may decode at once.
"""

from __future__ import annotations

import io
import math
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from linne.data.images import headers, jpeg, modes, png
from linne.data.names import printable
from linne.errors import ImageError
from linne.preprocess import InputSpec, Resize, pillow_resize, resize_and_crop, resized_size

UInt8 = NDArray[np.uint8]

MAX_PIXELS = 50_000_000
"""Larger images are refused from their header: decoding one would take more than a gigabyte."""
MAX_SIDE = 100_000
"""A row costs Pillow more than 100 bytes whatever is in it: one pixel wide, the pixels above would take gigabytes."""
MAX_BYTES = 256 * 2**20
MAX_RUN_LENGTH_PIXELS = 10_000_000
"""Of a run-length coded BMP, which Pillow unpacks in Python: a second's worth; a kilobyte can state any size."""

_HEAD_BYTES = 256 * 2**10
_READERS: dict[str, Callable[[IO[bytes]], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
}
_SIZES = {"GIF": headers.gif_size, "WEBP": headers.webp_size}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class Header:
    """What an image will be once decoded, read without decoding it."""

    height: int
    width: int
    grey: bool
    """Whether it holds no colour by its pixel format; a colour file of grey things is not grey."""


def decode(data: bytes, channels: int, *, name: str = "image") -> UInt8:
    """Return the image in `data` as uint8 H x W x `channels` (1 grey, 3 RGB), upright, on white, first frame.

    JPEG, PNG, GIF, BMP, WebP, TIFF and PPM, recognised by content. Takes up to 16 bytes a pixel.

    Raises:
        ImageError: `data` is not an image linne reads, is damaged or cut short, or too large; the message begins
            with `name`.
    """
    return reduced(data, channels, None, name=name)[0]


def reduced(
    data: bytes, channels: int, enough: jpeg.Enough | None, *, name: str = "image"
) -> tuple[UInt8, tuple[int, int]]:
    """Return what `decode` does at a reduced size where that is quicker, and the (height, width) of the full image.

    Only JPEGs are reduced: by 2, 4 or 8, the most that leaves at least as many pixels as `enough` asks for, which is
    called with the height and width of the upright image.

    Raises:
        ImageError: as `decode`, or from `enough`; the message begins with `name`.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels}, expected 1 or 3")
    try:
        _check_bytes(len(data))
        kind = _kind(data)
        # Without metadata: Pillow parses a JPEG's EXIF on opening, and warns about what is damaged there.
        data, orientation = headers.split_jpeg(data) if kind == "JPEG" else (data, 1)
        if kind == "JPEG":
            quick = jpeg.decode(data, channels, orientation, enough, _check_size)
            if quick is not None:
                return to_channels(quick[0], channels), quick[1]
        pixels_HWC = _pixels(_loaded(kind, data, orientation), channels)
        return pixels_HWC, (pixels_HWC.shape[0], pixels_HWC.shape[1])
    except ImageError as refused:
        raise _about(name, refused) from refused.__cause__


def decode_file(path: str | os.PathLike[str], channels: int, *, name: str | None = None) -> UInt8:
    """Return the image in the file `path` as `decode` does; the file is only read.

    Raises:
        ImageError: it cannot be read or decoded; the message begins with `name`, or with `path` without one.
    """
    name = printable(path) if name is None else name
    return decode(read_file(path, name=name), channels, name=name)


def read_file(path: str | os.PathLike[str], *, name: str | None = None) -> bytes:
    """Return the bytes of the file `path`: a regular file of at most `MAX_BYTES`.

    Raises:
        ImageError: it cannot be read; the message begins with `name`, or with `path` without one.
    """
    try:
        return _read(path, MAX_BYTES)
    except ImageError as refused:
        raise _about(printable(path) if name is None else name, refused) from refused.__cause__


def to_input(image: bytes | UInt8, spec: InputSpec, *, name: str, resize: Resize = pillow_resize) -> UInt8:
    """Return an encoded or decoded image as the model sees it: uint8 of the height, width and channels of `spec`.

    The one way from an image to model input, in training, evaluation and prediction. A JPEG of six times and more
    the size it is resized to is decoded at a half, a quarter or an eighth, see `enough_for`.

    Raises:
        ImageError: it cannot be decoded or resized; the message begins with `name`.
    """
    if not isinstance(image, bytes):
        pixels_HWC = to_channels(image, spec.channels)
        full_size = (pixels_HWC.shape[0], pixels_HWC.shape[1])
    else:

        def enough(height: int, width: int) -> tuple[int, int]:
            return enough_for(*resized_size(height, width, spec))

        pixels_HWC, full_size = reduced(image, spec.channels, enough, name=name)
    try:
        return resize_and_crop(pixels_HWC, spec, full_size=full_size, resize=resize)
    except ImageError as refused:
        raise ImageError(f"`{name}`: {refused.message}") from refused


def enough_for(height: int, width: int) -> tuple[int, int]:
    """Return the (height, width) that an image may be reduced to before it is resized to these.

    Measured on 22 sharp photographs, JPEGs decoded at a half to an eighth and then resized to 32 to 100 pixels: with
    2.9 times as many pixels each way the mean difference from decoding them whole is 0.3 of a level, 0.5 at most; with
    twice as many 1 and 1.9. A 12-megapixel photo for 224 pixels keeps 2.93 times as many at a quarter.
    """
    return math.ceil(2.9 * height), math.ceil(2.9 * width)


def to_channels(pixels_HWC: UInt8, channels: int) -> UInt8:
    """Return pixels with `channels` channels: grey is repeated, colour weighted as by Pillow's "L"."""
    stored = pixels_HWC.shape[2]
    if stored == channels:
        return pixels_HWC
    if stored == 1:
        return np.repeat(pixels_HWC, channels, axis=2)
    return np.array(Image.fromarray(pixels_HWC).convert("L"))[..., None]


def peek(data: bytes, *, name: str = "image") -> Header:
    """Return size and colour of the encoded image `data`, which may be its first 256 KiB only (TIFF: all of it).

    A WebP's or PNG's orientation is not seen where it is stated behind the pixels.

    Raises:
        ImageError: the header is not understood; the message begins with `name`.
    """
    try:
        return _peek(_kind(data), data)
    except ImageError as refused:
        raise _about(name, refused) from refused.__cause__


def peek_file(path: str | os.PathLike[str], *, name: str | None = None) -> Header:
    """Return size and colour of the image in the file `path`, reading its first 256 KiB at most (TIFF: its tags).

    A WebP's or PNG's orientation is not seen where it is stated behind the pixels.

    Raises:
        ImageError: the file cannot be read or its header is not understood; the message begins with `name`, or with
            `path` without one.
    """
    try:
        head = _read(path, _HEAD_BYTES)
        kind = _kind(head)
        if kind != "TIFF":
            return _peek(kind, head)
        with open(path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as whole:
            return _header(_opened(kind, whole, file), 1)
    except ImageError as refused:
        raise _about(printable(path) if name is None else name, refused) from refused.__cause__


def _peek(kind: str, head: bytes) -> Header:
    if kind == "WEBP":  # its plugin wants the whole file
        width, height = headers.webp_size(head) or (0, 0)
        return Header(height, width, grey=False)
    head, orientation = headers.split_jpeg(head) if kind == "JPEG" else (head, 1)
    image = _opened(kind, head, io.BytesIO(head))
    return _header(image, orientation if orientation != 1 else _stated_orientation(image))


def _header(image: ImageFile.ImageFile, orientation: int) -> Header:
    width, height = image.size if orientation < 5 else image.size[::-1]
    try:
        return Header(height, width, grey=modes.is_grey(image))
    except Exception as error:  # a palette that is none
        raise _damaged(str(image.format), error) from error


def _about(name: str, refused: ImageError) -> ImageError:
    return ImageError(f"`{name}` cannot be read: {refused.message}", hint=refused.hint)


def _read(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """Return at most `max_bytes` of a regular file; a longer file is an error only past `MAX_BYTES`."""
    try:
        status = os.stat(path)
        # Asked before opening: opening a named pipe would wait for a writer.
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("it is a folder" if stat.S_ISDIR(status.st_mode) else "it is not a regular file")
        _check_bytes(status.st_size)
        with open(path, "rb") as file:
            return file.read(max_bytes)
    except OSError as error:
        raise ImageError((error.strerror or str(error)).lower()) from error
    except ValueError as error:  # a NUL in the path
        raise ImageError(str(error)) from error


def _kind(data: bytes) -> str:
    """Return the format of `data`, one of `headers.FORMATS`."""
    if not data:
        raise ImageError("the file is empty")
    kind = headers.sniff(data)
    if kind is None:
        raise ImageError(
            f"it holds {headers.looks_like(data)}; expected JPEG, PNG, GIF, BMP, WebP, TIFF or PPM",
            hint="convert it to JPEG or PNG, or take it out of the folder",
        )
    return kind


def _opened(kind: str, head: bytes | mmap, stream: IO[bytes]) -> ImageFile.ImageFile:
    """Return Pillow's lazy image: header read, size accepted, nothing decoded."""
    if kind in _SIZES:  # their plugins allocate the canvas on opening
        _check_size(_SIZES[kind](head) or (0, 0))
    if kind == "TIFF" and not headers.tiff_is_whole(head):
        raise ImageError("cut short TIFF (its tags lie beyond its end)")
    try:
        image = _READERS[kind](stream)
    except Exception as error:  # Pillow's parsers raise a dozen types on damaged bytes
        raise _damaged(kind, error) from error
    _check_size(image.size)
    num_pixels = image.width * image.height
    if kind == "BMP" and image.tile and image.tile[0].codec_name == "bmp_rle" and num_pixels > MAX_RUN_LENGTH_PIXELS:
        raise ImageError(
            f"it is run-length coded and has {num_pixels:,} pixels, more than the {MAX_RUN_LENGTH_PIXELS:,} accepted"
        )
    return image


def _loaded(kind: str, data: bytes, orientation: int) -> Image.Image:
    """Return the decoded image, upright, in whatever mode it was stored."""
    if kind == "PNG":
        png.check(data)
    image = _opened(kind, data, io.BytesIO(data))
    if kind == "PPM" and image.tile and image.tile[0].codec_name == "ppm":
        return modes.from_levels(image, data)
    try:
        image.load()
    except Exception as error:  # as above; a warning made an error by the caller's filters lands here too
        raise _damaged(kind, error) from error
    if kind == "PNG":
        # Rows that are not there are all zero; of interlaced images any can be.
        if data[28] or image.crop((0, image.height - 1, image.width, image.height)).getbbox() is None:
            png.check_rows(data)
        modes.scale_transparency(image, bit_depth=data[24])
    if kind == "GIF" and (frame := headers.gif_frame(data)):
        return modes.only_frame(image, frame)
    if orientation == 1 and kind != "TIFF":  # a TIFF was turned by Pillow while loading
        orientation = _stated_orientation(image)
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _check_bytes(size: int) -> None:
    if size > MAX_BYTES:
        raise ImageError(f"it has {size:,} bytes, more than the {MAX_BYTES:,} accepted")


def _check_size(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageError(f"it has {size[0]:,} x {size[1]:,} pixels, more than the {MAX_PIXELS:,} accepted")
    if max(size) > MAX_SIDE:
        raise ImageError(f"it has {size[0]:,} x {size[1]:,} pixels, more than the {MAX_SIDE:,} accepted in a row")


def _damaged(kind: str, error: Exception) -> ImageError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    is_short = any(words in reason.lower() for words in ("truncated", "not enough image data"))
    state = "cut short" if is_short else "damaged"
    return ImageError(f"{state} {kind} ({reason})")


def _stated_orientation(image: Image.Image) -> int:
    exif = image.info.get("exif")
    return headers.exif_orientation(exif) if isinstance(exif, bytes) else 1


def _pixels(image: Image.Image, channels: int) -> UInt8:
    """Return an image of any mode as uint8 H x W x `channels`."""
    try:
        return modes.to_array(image, channels)
    except ImageError:
        raise
    except Exception as error:  # a mode or palette that Pillow cannot convert
        raise _damaged(image.mode, error) from error
