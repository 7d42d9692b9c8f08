"""WebDataset shards: images inside tar files, read from wherever they lie; nothing is unpacked.

The headers are read once, and kept for next time where there are many. `linne data pack` writes such shards too.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from linne.data.files import HASHED_BYTES, Names
from linne.data.images.decode import MAX_BYTES
from linne.data.images.npy import MAGIC, from_npy
from linne.data.index import Index
from linne.data.names import alike, listed, printable
from linne.data.shards.info import Info, read_info
from linne.data.shards.members import index_shards
from linne.data.shards.names import Shards, divide_shards, find_shards
from linne.data.source import Ints, Split, UInt8
from linne.data.sources.sample import Sample, sample_of
from linne.data.split import Examples
from linne.errors import ImageError, SourceError

_MOST_CLASSES = 100
"""More classes than this, and than half the images, are no classes: numbers of examples, or captions."""


@dataclass(frozen=True, eq=False, slots=True)
class ShardStore:
    """Images in tar files, read when asked for."""

    root: str
    shards: tuple[str, ...]
    """Relative to `root`."""
    names: Names
    """Printable: `shard.tar/0001.jpg`, or what an image was called before it was packed."""
    shards_N: NDArray[np.int32]
    """Position in `shards` of each image's shard."""
    offsets_N: Ints
    sizes_N: Ints
    """In bytes."""

    def __len__(self) -> int:
        return len(self.sizes_N)

    @property
    def array(self) -> UInt8 | None:
        return None

    def load(self, index: int) -> bytes | UInt8:
        """Return image `index`: an encoded image's bytes, or the pixels of a `.npy` member.

        Raises:
            ImageError: it cannot be read; the message begins with its name.
        """
        try:
            # Opened each time: one open file for all threads would need a lock round seek and read, which systems
            # without `pread` do in two steps, and opening costs 1 % of decoding.
            with open(self.path(index), "rb") as file:
                data = _content(file, int(self.offsets_N[index]), int(self.sizes_N[index]))
            return from_npy(data) if data.startswith(MAGIC) else data
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ImageError(f"`{self.name(index)}` cannot be read: {reason}") from error
        except ImageError as refused:
            raise ImageError(f"`{self.name(index)}` cannot be read: {refused.message}") from refused

    def path(self, index: int) -> str:
        """Return the tar file that image `index` is in."""
        return os.path.join(self.root, self.shards[self.shards_N[index]])

    def name(self, index: int) -> str:
        return self.names[index]


def _content(file: IO[bytes], offset: int, size: int) -> bytes:
    if size > MAX_BYTES:
        raise ImageError(f"it has {size:,} bytes, more than the {MAX_BYTES:,} accepted")
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise ImageError("its shard was cut short since it was opened")
    return data


def open_shards(location: str | None, root: Path | None = None) -> Examples:
    """Return the labelled images of WebDataset shards: a folder of them, one file, or a pattern with braces.

    A split is what shards are named for (`train-000.tar`, `val/000.tar`) or what `_info.json` says. Class names are the
    texts of `.cls`, or the lines of `classes.txt` where `.cls` are numbers.

    Raises:
        SourceError: there are no shards, one is damaged, or samples and labels do not fit together.
    """
    shards = find_shards(location)
    info = read_info(shards.root)
    if info.packed is not None:
        _check_packed(shards, info)
    divided, notes = divide_shards(shards.paths, info.splits)
    index, index_notes = index_shards(shards, packed=info.packed is not None)
    _check_counts(shards, info, index)
    store = _store(shards, index)
    in_split = {name: np.isin(store.shards_N, positions) for name, positions in divided.items()}
    shown = printable(location or "")
    labels, labels_N, label_notes = _labels(index, info.labels, in_split, shown)
    if info.packed is None:
        about = sample_of(store, shown)
    else:
        packed = info.packed
        about = Sample(packed.channels, packed.image_size, packed.same_size, (packed.text,))
    return Examples(
        labels=labels,
        given={name: Split(name, store, np.flatnonzero(in_N), labels_N[in_N]) for name, in_N in in_split.items()},
        channels=about.channels,
        image_size=about.image_size,
        same_size=about.same_size,
        identities=shard_identities,
        index="" if int(store.sizes_N.sum()) <= HASHED_BYTES else index.identity,
        notes=(*shards.notes, *info.notes, *notes, *index.facts["notes"], *index_notes, *label_notes, *about.notes),
    )


def _store(shards: Shards, index: Index) -> ShardStore:
    arrays = index.arrays
    names = Names(arrays["names"], arrays["name_ends"])
    return ShardStore(shards.root, shards.paths, names, arrays["shards_N"], arrays["offsets_N"], arrays["sizes_N"])


_ELSEWHERE = "take what does not belong to the pack elsewhere"


def _check_packed(shards: Shards, info: Info) -> None:
    """Raise unless the shards are those that `linne data pack` wrote, by name and size."""
    again = "type the same `linne data pack` again: it writes what is missing"
    missing = [path for path in info.sizes if path not in shards.paths] if shards.whole else []
    if missing:
        raise SourceError(
            f"`{printable(shards.root)}` lacks {listed([printable(path) for path in missing])}", hint=again
        )
    strange = [printable(path) for path in shards.paths if path not in info.sizes]
    if strange:
        raise SourceError(
            f"`_info.json` in `{printable(shards.root)}` does not list {listed(strange)}", hint=_ELSEWHERE
        )
    for path in shards.paths:
        found = os.path.getsize(os.path.join(shards.root, path))
        if found != info.sizes[path]:
            raise SourceError(f"`{printable(path)}` has {found:,} bytes, expected {info.sizes[path]:,}", hint=again)


def _check_counts(shards: Shards, info: Info, index: Index) -> None:
    for path, found in zip(shards.paths, index.arrays["counts"].tolist(), strict=True):
        if found != info.counts.get(path, found):
            raise SourceError(f"`{printable(path)}` has {found:,} images; `_info.json` says {info.counts[path]:,}")


def _labels(
    index: Index, names: tuple[str, ...] | None, in_split: Mapping[str, NDArray[np.bool_]], shown: str
) -> tuple[tuple[str, ...], Ints, list[str]]:
    """Return the class names, the label of each image, and notes. The classes are those of train, or `names`."""
    values: list[str] = index.facts["values"]
    codes_N: Ints = index.arrays["codes_N"]
    numbers = all(value.isascii() and value.isdigit() and len(value) < 10 for value in values)
    used = {name: set(np.unique(codes_N[in_N]).tolist()) for name, in_N in in_split.items()}
    if names is None:
        most = max(_MOST_CLASSES, int(in_split["train"].sum()) // 2)
        if len(used["train"]) > most:
            raise SourceError(
                f"`{shown}` has {len(used['train']):,} different labels, such as {listed(values)}: no classes",
                hint="put each image's class in its `.cls` member; `.txt` is read where there is none",
            )
        order = sorted((values[code] for code in used["train"]), key=lambda text: (int(text) if numbers else 0, text))
        place_of = {value: place for place, value in enumerate(order)}
        labels = tuple(order)
        pair = alike(labels)
        if pair is not None:
            raise SourceError(f"`{shown}` has the labels {listed(pair)}, which differ only by case")
    else:
        labels = names
        place_of = {name: place for place, name in enumerate(names)}
        if numbers:
            place_of = {value: int(value) for value in values if int(value) < len(names)}
    if len(labels) < 2:
        raise SourceError(f"`{shown}` has only one class, `{labels[0]}`; expected at least two")
    for split, codes in used.items():
        unknown = [values[code] for code in sorted(codes) if values[code] not in place_of]
        if unknown:
            where = f"not among the {len(labels):,} class names" if names is not None else "which train does not have"
            raise SourceError(f"{split} has the label {listed(unknown)}, {where}")
    places_K = np.array([place_of.get(value, -1) for value in values], np.int64)
    return labels, places_K[codes_N], list(_say_missing(labels, places_K, used))


def _say_missing(labels: Sequence[str], places_K: Ints, used: Mapping[str, set[int]]) -> Iterator[str]:
    for split, codes in used.items():
        present = {int(places_K[code]) for code in codes}
        missing = [label for place, label in enumerate(labels) if place not in present]
        if missing:
            yield f"{split} has no images of {listed(missing, 5)}"


def shard_identities(splits: Sequence[Split]) -> list[bytes]:
    """Return bytes for each split that change when the name or the size of one of its images does.

    Where all images together have no more than 256 MiB, they change with every byte of every image.
    """
    chosen = [(split.store, split.indices_N) for split in splits if isinstance(split.store, ShardStore)]
    by_content = sum(int(store.sizes_N[indices_N].sum()) for store, indices_N in chosen) <= HASHED_BYTES
    return [_identity(store, indices_N, by_content=by_content) for store, indices_N in chosen]


def _identity(store: ShardStore, indices_N: Ints, *, by_content: bool) -> bytes:
    digest = hashlib.sha256()
    for index, size in zip(indices_N.tolist(), store.sizes_N[indices_N].tolist(), strict=True):
        digest.update(b"%s\0%d\0" % (store.names.encoded(index), size))
        if by_content:
            with open(store.path(index), "rb") as file:
                digest.update(hashlib.sha256(_content(file, int(store.offsets_N[index]), size)).digest())
    return digest.digest()
