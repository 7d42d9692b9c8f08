"""From uint8 pixels to the normalised tensor that a model takes, in one pass through the cache.

The rounding is `normalise`'s: one product and one sum a value, in float32.
"""

from __future__ import annotations

import weakref

import numpy as np
import torch
from numpy.typing import NDArray

from linne.device import Device
from linne.preprocess import InputSpec, scale_and_bias

PIECE_BYTES = 512 * 1024
"""On a CPU this much is converted, scaled and shifted before the next: it stays in the cache of a core meanwhile."""


class Finish:
    """Normalises batches on the device, in the layout that the model wants."""

    def __init__(self, spec: InputSpec, device: Device, *, channels_last: bool) -> None:
        self.spec = spec
        self.device = device
        self._rows_of_pixels = channels_last or spec.channels == 1
        scale, bias = (torch.from_numpy(values) for values in scale_and_bias(spec))
        if self._rows_of_pixels:  # one factor a value of a row: over three channels nothing would be vectorised
            scale, bias = scale.repeat(spec.width), bias.repeat(spec.width)
        else:
            scale, bias = scale[:, None, None], bias[:, None, None]
        self._scale, self._bias = device.put(scale), device.put(bias)
        self._memory = Memory()

    def __call__(self, images_NHWC: torch.Tensor) -> torch.Tensor:
        """Return uint8 images, on the device, as normalised float32 N x C x H x W; channels last where asked for."""
        count, height, width, channels = images_NHWC.shape
        values = self._empty(images_NHWC.numel(), images_NHWC.device)
        if self._rows_of_pixels:
            row = width * channels
            pixels, done = images_NHWC.reshape(count, height, row), values.view(count, height, row)
            images_NCHW = values.view(count, height, width, channels).permute(0, 3, 1, 2)
            if channels == 1:  # both layouts are the same memory; contiguous strides are the ones that are expected
                images_NCHW = values.view(count, 1, height, width)
        else:
            pixels, done = images_NHWC.permute(0, 3, 1, 2), values.view(count, channels, height, width)
            images_NCHW = done
        step = count
        if not self.device.is_accelerator:
            step = max(1, PIECE_BYTES // (4 * height * width * channels))
        for first in range(0, count, max(step, 1)):
            part = slice(first, first + step)
            done[part].copy_(pixels[part]).mul_(self._scale).add_(self._bias)
        return images_NCHW

    def _empty(self, count: int, device: torch.device) -> torch.Tensor:
        return self._memory.lend(count) if device.type == "cpu" else torch.empty(count, device=device)


class Memory:
    """Blocks of float32 on the host that are used again as soon as nothing refers to them.

    glibc gives blocks of more than 32 MiB back to the system at once, and the page faults of the next one took four
    times as long as normalising into it. Accelerators have such a cache in torch.
    """

    def __init__(self) -> None:
        self._free: list[NDArray[np.float32]] = []

    def lend(self, count: int) -> torch.Tensor:
        """Return `count` uninitialised values; whoever keeps the tensor, autograd included, keeps the memory."""
        block = self._free.pop() if self._free else np.empty(count, np.float32)
        if len(block) < count:
            block = np.empty(count, np.float32)
        view = block[:count]
        # A tensor over an array holds that array, so the view dies with the last tensor over it.
        weakref.finalize(view, self._take_back, block).atexit = False
        return torch.from_numpy(view)

    def _take_back(self, block: NDArray[np.float32]) -> None:
        if not self._free:  # batches are used one after another: more than one block was somebody's exception
            self._free.append(block)
