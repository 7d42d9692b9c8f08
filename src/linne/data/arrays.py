"""Images that are already pixels in memory: one uint8 array for a whole set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from linne.data.source import Ints, Split, UInt8
from linne.errors import SourceError


@dataclass(frozen=True, eq=False, slots=True)
class ArrayStore:
    """All images as one array; splits of one set share it."""

    images_NHWC: UInt8
    """1 or 3 channels."""
    prefix: str
    """`train` makes the images `train[0]`, `train[1]` ..."""

    def __len__(self) -> int:
        return len(self.images_NHWC)

    @property
    def array(self) -> UInt8 | None:
        return self.images_NHWC

    def load(self, index: int) -> bytes | UInt8:
        """Return image `index` as a view of uint8 H x W x C."""
        pixels_HWC: UInt8 = self.images_NHWC[index]
        return pixels_HWC

    def name(self, index: int) -> str:
        return f"{self.prefix}[{index}]"


def array_split(name: str, images_NHWC: UInt8, labels_N: Ints, prefix: str) -> Split:
    """Return a split of all of `images_NHWC`."""
    return Split(name, ArrayStore(images_NHWC, prefix), np.arange(len(images_NHWC)), labels_N)


def array_identities(splits: Sequence[Split]) -> list[bytes]:
    """Return bytes for each split that change when a pixel of its store, or the choice of its images, does."""
    digests: dict[int, bytes] = {}
    for split in splits:
        images_NHWC = split.store.array
        assert images_NHWC is not None
        if id(split.store) not in digests:  # splits share stores, and hashing takes a second a gigabyte
            digest = hashlib.sha256(repr(images_NHWC.shape).encode())
            digest.update(np.ascontiguousarray(images_NHWC).data)
            digests[id(split.store)] = digest.digest()
    return [digests[id(split.store)] + split.indices_N.astype("<i8").tobytes() for split in splits]


def check_labels(labels_N: Ints, num_images: int, num_classes: int, what: str) -> None:
    """Raise unless there is one label an image, each below `num_classes`.

    Raises:
        SourceError: they do not fit; the message begins with `what`.
    """
    if num_images == 0:
        raise SourceError(f"{what} holds no images")
    if len(labels_N) != num_images:
        raise SourceError(f"{what} has {num_images:,} images and {len(labels_N):,} labels")
    if labels_N.min() < 0 or labels_N.max() >= num_classes:
        worst = labels_N.min() if labels_N.min() < 0 else labels_N.max()
        raise SourceError(f"{what} has label {worst}, expected 0 to {num_classes - 1}")
