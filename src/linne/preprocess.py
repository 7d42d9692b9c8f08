"""How pixels become the numbers a model sees at evaluation time, and its one reference implementation.

A model's `InputSpec` is plain data and travels in its bundle. Evaluation, prediction and export use
`resize_and_crop` and `normalise` below, or are tested equal to them. No augmentation, no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from linne.errors import BundleError, ImageError

UInt8 = NDArray[np.uint8]
Floats = NDArray[np.float32]
Extent = tuple[float, float]
"""Rows and columns of a pixel array that the image fills; its last row and column may be only partly image."""
Resize = Callable[[UInt8, int, int, str, Extent], UInt8]
"""From uint8 H x W x C, a height, a width, one of `INTERPOLATIONS` and the extent to uint8 of that size."""

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
CROP_MODES = ("center", "squash")
MAX_RESIZED_PIXELS = 50 * 10**6
"""A image one pixel high, resized to keep its aspect ratio, would fill the memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InputSpec:
    """What a model expects: `height` x `width` pixels of `channels`, scaled by `mean` and `std`."""

    channels: int
    """1 for grey, 3 for RGB."""
    height: int
    width: int
    mean: tuple[float, ...]
    """One value a channel, of pixels scaled to 0-1."""
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    """The image is resized to (height, width) / crop_pct before the centre crop; 1 keeps the borders."""
    crop_mode: str = "center"
    """`center` keeps the aspect ratio and cuts what overhangs; `squash` stretches to the exact size."""

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise BundleError(f"input spec has {self.channels} channels, expected 1 or 3")
        if not (len(self.mean) == len(self.std) == self.channels):
            raise BundleError(
                f"input spec has {len(self.mean)} means and {len(self.std)} deviations for {self.channels} channels"
            )
        if min(self.std) <= 0 or not all(map(math.isfinite, (*self.mean, *self.std))):
            raise BundleError(f"input spec has mean {self.mean} and std {self.std}; finite values and std > 0 expected")
        if not (1 <= self.height <= 8192 and 1 <= self.width <= 8192):
            raise BundleError(f"input spec asks for {self.height} x {self.width} pixels, expected 1 to 8192")
        if not 0.1 <= self.crop_pct <= 1.0:
            raise BundleError(f"input spec has crop_pct {self.crop_pct}, expected 0.1 to 1")
        if self.interpolation not in INTERPOLATIONS:
            raise BundleError(f"no interpolation `{self.interpolation}`; known: {', '.join(INTERPOLATIONS)}")
        if self.crop_mode not in CROP_MODES:
            raise BundleError(f"no crop mode `{self.crop_mode}`; known: {', '.join(CROP_MODES)}")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InputSpec:
        """Return the spec written by `to_dict`.

        Raises:
            BundleError: a field is missing, unknown or out of range.
        """
        fields: dict[str, Any] = {k: tuple(v) if k in ("mean", "std") else v for k, v in values.items()}
        try:
            return cls(**fields)
        except TypeError as error:
            raise BundleError(f"input spec cannot be read: {error}") from error


def pillow_resize(pixels_HWC: UInt8, height: int, width: int, interpolation: str, extent: Extent) -> UInt8:
    """Return `pixels_HWC` at `height` x `width`, filtered over the whole footprint: the reference of every resize.

    Bit for bit what timm, torchvision (on PIL images) and transformers evaluate with.
    """
    grey = pixels_HWC.shape[2] == 1
    image = Image.fromarray(pixels_HWC[..., 0] if grey else pixels_HWC)
    box = (0, 0, extent[1], extent[0])
    resized = np.asarray(image.resize((width, height), INTERPOLATIONS[interpolation], box))
    return resized[..., None] if grey else resized


def resized_size(height: int, width: int, spec: InputSpec) -> tuple[int, int]:
    """Return the (height, width) that an image gets before the centre of (spec.height, spec.width) is cut out.

    Geometry and rounding follow timm's evaluation transform (`timm.data.create_transform`, itself torchvision's
    `Resize` + `CenterCrop` on PIL images), so that a bundle answers the same there.

    Raises:
        ImageError: the image is so long and thin that resizing it would fill the memory.
    """
    scaled_H, scaled_W = math.floor(spec.height / spec.crop_pct), math.floor(spec.width / spec.crop_pct)
    if spec.crop_mode == "squash":
        resized_H, resized_W = scaled_H, scaled_W
    elif scaled_H == scaled_W:  # torchvision Resize(int): the shorter edge matches, the longer is truncated
        if height <= width:
            resized_H, resized_W = scaled_H, int(scaled_H * width / height)
        else:
            resized_H, resized_W = int(scaled_W * height / width), scaled_W
    else:  # timm ResizeKeepRatio(longest=0): cover the box, round to nearest
        ratio = min(height / scaled_H, width / scaled_W)
        resized_H, resized_W = max(round(height / ratio), 1), max(round(width / ratio), 1)
    if resized_H * resized_W > MAX_RESIZED_PIXELS:
        raise ImageError(
            f"an image of {height} x {width} pixels would become {resized_H} x {resized_W} before its centre is cut "
            f"out, more than {MAX_RESIZED_PIXELS // 10**6} million pixels"
        )
    return resized_H, resized_W


def resize_and_crop(
    pixels_HWC: UInt8, spec: InputSpec, *, full_size: tuple[int, int] | None = None, resize: Resize = pillow_resize
) -> UInt8:
    """Return `pixels_HWC` resized and centre-cropped to (spec.height, spec.width, spec.channels), uint8.

    Args:
        full_size: (height, width) of the image where it was decoded at a half, a quarter or an eighth of them,
            rounded up. Decides the geometry: without it, a row that is only partly image would move all others.
        resize: How pixels are filtered; the reference, or one that is within a level of it.

    Raises:
        ImageError: the image is so long and thin that resizing it would fill the memory.
    """
    height, width, channels = pixels_HWC.shape
    if channels != spec.channels:
        raise ValueError(f"image has {channels} channels, the input spec {spec.channels}")
    if spec.crop_pct == 1.0 and (height, width) == (spec.height, spec.width):
        return pixels_HWC
    full_H, full_W = full_size or (height, width)
    resized_H, resized_W = resized_size(full_H, full_W, spec)
    if (resized_H, resized_W) != (height, width):
        factor = next(f for f in (1, 2, 4, 8) if (-(-full_H // f), -(-full_W // f)) == (height, width))
        pixels_HWC = resize(pixels_HWC, resized_H, resized_W, spec.interpolation, (full_H / factor, full_W / factor))
    return _center_crop(pixels_HWC, spec.height, spec.width)


def normalise(images_NHWC: UInt8, spec: InputSpec) -> Floats:
    """Return (pixel / 255 - mean) / std as float32, N x C x H x W."""
    scale, bias = scale_and_bias(spec)
    images = images_NHWC.astype(np.float32) * scale + bias
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def scale_and_bias(spec: InputSpec) -> tuple[Floats, Floats]:
    """Return per-channel `scale` and `bias` with which normalised = pixel * scale + bias."""
    mean, std = np.asarray(spec.mean, dtype=np.float64), np.asarray(spec.std, dtype=np.float64)
    return (1.0 / (255.0 * std)).astype(np.float32), (-mean / std).astype(np.float32)


def _center_crop(pixels_HWC: UInt8, height: int, width: int) -> UInt8:
    """Cut the centre, padding with black where the image is smaller (torchvision CenterCrop's rounding)."""
    pad_H, pad_W = max(height - pixels_HWC.shape[0], 0), max(width - pixels_HWC.shape[1], 0)
    if pad_H or pad_W:
        top, left = pad_H // 2, pad_W // 2
        pixels_HWC = np.pad(pixels_HWC, ((top, pad_H - top), (left, pad_W - left), (0, 0)))
    top = round((pixels_HWC.shape[0] - height) / 2.0)
    left = round((pixels_HWC.shape[1] - width) / 2.0)
    return pixels_HWC[top : top + height, left : left + width]
