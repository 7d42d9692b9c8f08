"""The part of a check that takes next to no time: what class counts, file sizes and pixels in memory say."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from linne.checking.findings import class_findings
from linne.data.files import FileStore
from linne.data.names import counted, listed
from linne.data.source import Source, Split, UInt8
from linne.errors import ImageError

_MOST_PIXELS = 512 * 2**20
_MOST_FILES, _MOST_BYTES = 2000, 64 * 2**20
"""Read at most, which takes a tenth of a second where they are cached."""

Contents = Iterator[tuple[int, bytes]]
"""Positions in a split, with something that only equal images share."""


def quick_check(source: Source) -> list[str]:
    """Return a sentence for each thing to look at before training; no image is decoded.

    Classes, empty files, and images in more than one split: among pixels in memory all, among files those that a
    file of another split equals in size, up to 64 MiB. `check` finds the rest.
    """
    splits = tuple(source.splits.values())
    said = [finding.title for finding in class_findings(splits, source.labels)]
    said += [sentence for split in splits for sentence in _empty(split)]
    leaks = list(_leaks(splits))
    if leaks:
        pairs = [f"{one} = {other}" for one, other in leaks]
        said.append(f"{counted(len(leaks), 'image')} in more than one split: {listed(pairs, 2)}")
    return said


def _empty(split: Split) -> Iterator[str]:
    if isinstance(split.store, FileStore):
        empty = np.flatnonzero(split.store.sizes_N[split.indices_N] == 0)
        if len(empty):
            names = [split.example_name(position) for position in empty[:4].tolist()]
            yield f"{counted(len(empty), 'empty file')} in {split.name}, among them {listed(names)}"


def _leaks(splits: tuple[Split, ...]) -> Iterator[tuple[str, str]]:
    """Yield the name of each image that an earlier split has too, after that of the one there."""
    first: dict[bytes, tuple[int, int]] = {}
    for number, (split, contents) in enumerate(zip(splits, _contents(splits), strict=False)):
        for position, content in contents:
            owner, place = first.setdefault(content, (number, position))
            if owner != number:
                yield splits[owner].example_name(place), split.example_name(position)


def _contents(splits: tuple[Split, ...]) -> list[Contents]:
    """Return what there is to compare in each split; nothing where looking would take long."""
    arrays = {id(split.store): split.store.array for split in splits}
    pixels = [array for array in arrays.values() if array is not None]
    if len(pixels) == len(arrays):
        if len({each.shape[1:] for each in pixels}) == 1 and sum(each.nbytes for each in pixels) <= _MOST_PIXELS:
            return _pixel_contents(splits, dict(zip(arrays, pixels, strict=True)))
        return []
    stores = [split.store for split in splits]
    if all(isinstance(store, FileStore) for store in stores):
        sizes = [s.store.sizes_N[s.indices_N] for s in splits if isinstance(s.store, FileStore)]
        return [_file_contents(split, chosen) for split, chosen in zip(splits, _of_shared_size(sizes), strict=True)]
    return []


def _pixel_contents(splits: tuple[Split, ...], pixels: Mapping[int, UInt8]) -> list[Contents]:
    """Return the digests of those images whose cheap checksum occurs in more than one split."""
    of_store = {store: _checksums(images_NHWC) for store, images_NHWC in pixels.items()}
    sums = [of_store[id(split.store)][split.indices_N] for split in splits]
    chosen = [np.isin(each, np.concatenate([s for s in sums if s is not each] or [each[:0]])) for each in sums]
    return [
        _digests(pixels[id(split.store)], split.indices_N, np.flatnonzero(which).tolist())
        for split, which in zip(splits, chosen, strict=True)
    ]


def _digests(images_NHWC: UInt8, indices_N: NDArray[np.int64], chosen: list[int]) -> Contents:
    return ((n, hashlib.sha256(images_NHWC[indices_N[n]].tobytes()).digest()) for n in chosen)


def _checksums(images_NHWC: UInt8) -> NDArray[np.uint64]:
    """Return 64 bits an image: its bytes, eight at a time, times odd random numbers, summed modulo 2^64."""
    flat = np.ascontiguousarray(images_NHWC).reshape(len(images_NHWC), -1)
    words = np.ascontiguousarray(flat[:, : flat.shape[1] // 8 * 8]).view(np.uint64)
    factors = np.random.default_rng(0).integers(2**63, size=words.shape[1], dtype=np.uint64) | np.uint64(1)
    return np.concatenate([words[k : k + 1024] @ factors for k in range(0, len(words), 1024)])


def _of_shared_size(sizes: list[NDArray[np.int64]]) -> list[list[int]]:
    """Return for each split the positions of files whose size a file of another split has; few, or none at all."""
    chosen = []
    for each in sizes:
        others = np.concatenate([other for other in sizes if other is not each] or [each[:0]])
        chosen.append(np.flatnonzero(np.isin(each, others) & (each > 0)))
    num = sum(map(len, chosen))
    num_bytes = sum(int(each[which].sum()) for each, which in zip(sizes, chosen, strict=True))
    if num > _MOST_FILES or num_bytes > _MOST_BYTES:
        return [[] for _ in sizes]
    return [which.tolist() for which in chosen]


def _file_contents(split: Split, chosen: list[int]) -> Contents:
    for position in chosen:
        try:
            image = split.load(position)
        except ImageError:  # counted when it is loaded
            continue
        yield position, hashlib.sha256(bytes(image)).digest()
