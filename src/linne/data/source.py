"""What every source offers: labels in order, splits of examples, and a fingerprint.

Pixels come from an `ImageStore`; a `Split` is a selection of a store's images with their labels, so that two
splits of one set share its memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from linne.data.images.decode import decode, to_channels, to_input
from linne.preprocess import InputSpec, Resize, pillow_resize

UInt8 = NDArray[np.uint8]
Ints = NDArray[np.int64]


class ImageStore(Protocol):
    """Images by position, which threads may read at once."""

    def __len__(self) -> int: ...

    @property
    def array(self) -> UInt8 | None:
        """All images as one N x H x W x C array, when they are already pixels of one size in memory."""

    def load(self, index: int) -> bytes | UInt8:
        """Return image `index` as it is kept: an encoded file's bytes, or uint8 H x W x C with C of 1 (grey) or 3.

        Raises:
            ImageError: it cannot be read; the message names it.
        """

    def name(self, index: int) -> str:
        """Return what to call image `index` in reports: a path relative to the source, or `train[17]`."""


@dataclass(frozen=True, eq=False)
class Split:
    """Some examples of a source, in a fixed order."""

    name: str
    """`train`, `val` or `test`."""
    store: ImageStore = field(repr=False)
    indices_N: Ints = field(repr=False)
    """Positions in `store`."""
    labels_N: Ints = field(repr=False)
    """Position in the source's `labels`, one an example."""

    def __len__(self) -> int:
        return len(self.indices_N)

    def load(self, position: int) -> bytes | UInt8:
        """Return example `position` as its store keeps it: encoded bytes, or pixels."""
        return self.store.load(int(self.indices_N[position]))

    def pixels(self, position: int, channels: int) -> UInt8:
        """Return example `position` as uint8 H x W x `channels` (1 grey, 3 RGB), at its full size.

        Raises:
            ImageError: it cannot be read or decoded; the message names it.
        """
        image = self.load(position)
        if isinstance(image, bytes):
            return decode(image, channels, name=self.example_name(position))
        return to_channels(image, channels)

    def cropped(self, position: int, spec: InputSpec, resize: Resize = pillow_resize) -> UInt8:
        """Return example `position` at the size and with the channels of `spec`.

        Raises:
            ImageError: it cannot be decoded or resized; the message names it.
        """
        return to_input(self.load(position), spec, name=self.example_name(position), resize=resize)

    def example_name(self, position: int) -> str:
        """Return what to call example `position` of this split."""
        return self.store.name(int(self.indices_N[position]))


@dataclass(frozen=True, eq=False)
class Source:
    """A set of labelled examples, opened: everything but the pixels is known."""

    name: str
    """What the user typed."""
    labels: tuple[str, ...]
    """Class names; an example's label is a position in this tuple."""
    splits: Mapping[str, Split]
    """`val` and `test` where the set or the split gives them; `train`, but where it was opened to evaluate on."""
    fingerprint: str
    """sha256 over what the examples are: changes when an example, its label or its split does."""
    channels: int
    """1 when every image is grey, else 3."""
    image_size: tuple[int, int]
    """(height, width) of every image, or the median of a sample where sizes differ."""
    same_size: bool
    """Whether every image is `image_size`."""
    notes: tuple[str, ...] = ()
    """One line each for what was recognised, ignored or decided while opening."""

    @property
    def num_classes(self) -> int:
        return len(self.labels)
