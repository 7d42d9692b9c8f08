"""Which images are nearly the same picture: re-encoded, resized, recoloured, mirrored, or cut a little differently.

A 64-bit dHash proposes pairs, thumbnails judge them. How close is close depends on the crowd: two photographs at a
distance of 0.3 are copies, but among 7,000 handwritten ones every one has neighbours at 0.2. So the limit shrinks
with the number of images whose hash is alike by chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]
Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]

_MAX_BITS = 6
"""Differing bits of a pair that is looked at. JPEG at quality 30, half the size or a cut of 2 % change 0 to 6."""
_MAX_BITS_CROWDED, _CROWDED = 3, 0.15
"""The same where the limit on the distance is small: pairs that near differ in no more."""
_MAX_DISTANCE = 0.35
"""Of normalised thumbnails, where 0 is equal and 1.4 unrelated. In CIFAR-10, pairs up to here are the same picture."""
_CROWD_BITS = 8
_CROWD_SAMPLE = 4096
_WINDOW = 256
"""Images with the same 16 bits that one is compared with: in a crowd, those whose other bits are nearest in order."""
_NUM_ORDERS = 8


@dataclass(frozen=True, eq=False, slots=True)
class Pairs:
    """Images that are nearly alike."""

    images_P2: Ints
    """Two images each, the first below the second."""
    mirrored_P: NDArray[np.bool_]
    """Whether it is the mirror image of one that is like the other."""
    limits_P: NDArray[np.float32]
    """How far apart their thumbnails may be."""


def similar_pairs(hashes_N: Hashes, mirrors_N: Hashes, thumbs_NHW: UInt8) -> Pairs:
    """Return the pairs of images whose thumbnails are nearer than their crowd explains, in order.

    Args:
        hashes_N: `difference_hash` of each image.
        mirrors_N: The same of its mirror image.
        thumbs_NHW: Grey thumbnails; images of one even colour must not be among them.

    All pairs that share 16 bits of the hash at one of eight sets of places are looked at: every pair up to 3 bits
    apart, 99 % of those at 4, 86 % of those at 6. In a crowd of more than 256 with the same 16 bits, fewer.
    """
    num = len(hashes_N)
    views_V = np.concatenate([hashes_N, mirrors_N])  # view n + num is the mirror image of image n
    limits_V = distance_limits(views_V, hashes_N)
    limits_V[num:] = np.minimum(limits_V[:num], limits_V[num:])
    bits_V = np.where(limits_V < _CROWDED, _MAX_BITS_CROWDED, _MAX_BITS)
    blocks_VB = _blocks(thumbs_NHW)
    blocks_VB = np.concatenate([blocks_VB, blocks_VB.reshape(-1, 4, 4)[:, :, ::-1].reshape(-1, 16)])
    found = [np.zeros((0, 3), np.int64)]
    for order_V, keys_V in _orders(views_V):
        for first, second in _neighbours(order_V, keys_V):
            near = np.bitwise_count(views_V[first] ^ views_V[second]) <= bits_V[first]
            first, second = first[near], second[near]
            near = (first % num != second % num) & (np.minimum(first, second) < num)  # two mirror images: nothing new
            first, second = first[near], second[near]
            limit = np.minimum(limits_V[first], limits_V[second])
            near = ((blocks_VB[first] - blocks_VB[second]) ** 2).sum(1) <= limit**2  # never more than the distance
            first, second, limit = first[near], second[near], limit[near]
            near = distances(_seen(thumbs_NHW, first), _seen(thumbs_NHW, second)) <= limit
            first, second = first[near], second[near]
            images_P2 = np.sort(np.stack([first % num, second % num], axis=1), axis=1)
            found.append(np.column_stack([images_P2, np.maximum(first, second) >= num]))
    rows = np.unique(np.concatenate(found), axis=0)
    mirrored_P = rows[:, 2] == 1
    limits_P = limits_V[rows[:, :2] + num * mirrored_P[:, None]].min(1)
    return Pairs(rows[:, :2], mirrored_P, limits_P)


def _seen(thumbs_NHW: UInt8, views: Ints) -> UInt8:
    """Return the thumbnails of `views`, those past the number of images mirrored."""
    seen = thumbs_NHW[views % len(thumbs_NHW)]
    mirrored = views >= len(thumbs_NHW)
    seen[mirrored] = seen[mirrored][:, :, ::-1]
    return seen


def distance_limits(hashes_N: Hashes, among_M: Hashes) -> NDArray[np.float32]:
    """Return how near an image `among_M` must be to each of `hashes_N` to be more than a chance resemblance.

    With m images within 8 bits, of which as many lie within a distance d of thumbnails as (d / 0.6)^4 of them (the
    dimension was measured on MNIST's ones, the densest crowd at hand), fewer than 0.3 chance neighbours are expected
    below 0.6 (0.3 / m)^(1/4). m is counted in a sample of 4,096.
    """
    sample = among_M[np.random.default_rng(0).permutation(len(among_M))[:_CROWD_SAMPLE]]
    crowd_N = np.ones(len(hashes_N))
    for start in range(0, len(hashes_N), 1024):
        part = hashes_N[start : start + 1024, None]
        alike = (np.bitwise_count(part ^ sample) <= _CROWD_BITS).sum(1)
        crowd_N[start : start + 1024] = np.maximum(alike * (len(among_M) / len(sample)), 1)
    return np.minimum(0.6 * (0.3 / crowd_N) ** 0.25, _MAX_DISTANCE).astype(np.float32)


def _orders(hashes_N: Hashes) -> Iterator[tuple[Ints, NDArray[np.uint64]]]:
    """Yield eight orders of the images, each with the 16 bits it sorts by first, in that order.

    The bits are dealt to four hands in two ways, so that each hand has some from every part of the image.
    """
    bits_NB = np.unpackbits(hashes_N.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)
    for deal in (np.arange(64).reshape(16, 4).T, np.random.default_rng(1).permutation(64).reshape(4, 16)):
        for hand in range(_NUM_ORDERS // 2):
            places = np.roll(deal, -hand, axis=0).ravel()
            dealt_NB = np.ascontiguousarray(np.packbits(bits_NB[:, places], axis=1))
            dealt_N = dealt_NB.view(">u8")[:, 0].astype(np.uint64)
            order_N = np.argsort(dealt_N, kind="stable")
            yield order_N, dealt_N[order_N] >> np.uint64(48)


def _neighbours(order_N: Ints, keys_N: NDArray[np.uint64]) -> Iterator[tuple[Ints, Ints]]:
    """Yield the pairs of images that have the same key and lie 1, then 2, ... up to 256 apart in `order_N`."""
    places = np.arange(len(order_N))
    for apart in range(1, _WINDOW + 1):
        places = places[places + apart < len(order_N)]
        places = places[keys_N[places] == keys_N[places + apart]]
        if len(places) == 0:
            return
        yield order_N[places], order_N[places + apart]


def _blocks(thumbs_NHW: UInt8) -> NDArray[np.float32]:
    """Return N x 16: normalised thumbnails as the sums of 4 x 4 blocks, scaled so that no distance grows by it."""
    parts = []
    for start in range(0, len(thumbs_NHW), 8192):
        unit = _unit(thumbs_NHW[start : start + 8192]).reshape(
            -1, 4, thumbs_NHW.shape[1] // 4, 4, thumbs_NHW.shape[2] // 4
        )
        parts.append(unit.sum((2, 4)).reshape(-1, 16) / np.sqrt(unit.shape[2] * unit.shape[4], dtype=np.float32))
    return np.concatenate(parts)


def distances(first: UInt8, second: UInt8) -> NDArray[np.float32]:
    """Return how far images of P pairs are apart, brightness and contrast made equal: 0 equal, 1.4 unrelated.

    The Euclidean distance of the images less their mean, scaled to unit length; sqrt(2 - 2 r) for a correlation r.
    """
    apart: NDArray[np.float32] = np.linalg.norm(_unit(first) - _unit(second), axis=1)
    return apart


def _unit(images: UInt8) -> NDArray[np.float32]:
    flat = images.reshape(len(images), np.prod(images.shape[1:])).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return flat


def components(pairs_P2: Ints, num: int) -> list[Ints]:
    """Return the groups of two or more among `num` things that `pairs_P2` connect, each sorted."""
    parent = np.arange(num)
    while True:  # each thing takes the smallest number that a neighbour has, until nothing changes
        before = parent.copy()
        np.minimum.at(parent, pairs_P2[:, 0], parent[pairs_P2[:, 1]])
        np.minimum.at(parent, pairs_P2[:, 1], parent[pairs_P2[:, 0]])
        parent = parent[parent]
        if (parent == before).all():
            break
    involved = np.unique(pairs_P2)
    order = involved[np.argsort(parent[involved], kind="stable")]
    cuts = np.flatnonzero(np.diff(parent[order])) + 1
    return [group for group in np.split(order, cuts) if len(group) > 1]
