"""One shard of a pack: written under another name, flushed, read back, and only then called what it is called."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from linne.data.names import printable
from linne.data.shards.pack_image import PackedImage
from linne.data.shards.pack_state import DoneShard, keep, sha256_of
from linne.data.shards.tar import BLOCK, members
from linne.data.source import Ints, Split
from linne.errors import LinneError


@dataclass(frozen=True, eq=False, slots=True)
class PlannedShard:
    """A shard to be: these positions of a split, in this order."""

    name: str
    split: Split
    positions_N: Ints
    first: int
    """Number of its first example, for keys that are unique in a split."""


def write_shard(
    path: Path, planned: PlannedShard, images: Iterable[tuple[int, PackedImage]], labels: Sequence[str]
) -> DoneShard:
    """Write a shard, read it back, and return what it holds; `images` come after their places in the plan.

    Raises:
        LinneError: it cannot be written, or reads back as something else than was written.
    """
    partial = path.with_name(f".{path.name}.partial")
    digest, expected, shapes = hashlib.sha256(), [], []
    try:
        with open(partial, "wb") as file:
            for place, image in images:
                shapes.append((image.height, image.width))
                for name, data in _sample(planned, place, image, labels):
                    header = tarfile.TarInfo(name)
                    header.size = len(data)
                    block = header.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % BLOCK)
                    digest.update(block)
                    file.write(block)
                    expected.append((name, len(data)))
            end = bytes(2 * BLOCK)
            digest.update(end)
            file.write(end)
            file.flush()
            os.fsync(file.fileno())
        if sha256_of(partial) != digest.hexdigest() or _listed(partial) != expected:
            raise LinneError(f"`{printable(path)}` reads back as something else than was written", hint=_DISK)
        size_bytes = partial.stat().st_size
        keep(partial, path)
    except OSError as error:
        raise LinneError(f"`{printable(path)}` cannot be written: {(error.strerror or str(error)).lower()}") from error
    finally:
        partial.unlink(missing_ok=True)
    heights, widths = [height for height, _ in shapes], [width for _, width in shapes]
    return DoneShard(
        name=planned.name,
        split=planned.split.name,
        num_images=len(shapes),
        size_bytes=size_bytes,
        sha256=digest.hexdigest(),
        heights=(min(heights, default=0), max(heights, default=0)),
        widths=(min(widths, default=0), max(widths, default=0)),
    )


_DISK = "is another `linne data pack` writing there? Otherwise the disk or the memory is faulty"


def _listed(path: Path) -> list[tuple[str, int]]:
    with open(path, "rb", buffering=4096) as file:
        return [(member.name, member.size) for member in members(file, printable(path))]


def _sample(
    planned: PlannedShard, place: int, image: PackedImage, labels: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    """Yield the members of one sample: the image, its label as a number, and what it was called."""
    position = int(planned.positions_N[place])
    label = int(planned.split.labels_N[position])
    facts = {"name": planned.split.example_name(position), "label": label, "class_name": labels[label]}
    key = f"{planned.first + place:09d}"
    yield f"{key}.{image.suffix}", image.data
    yield f"{key}.cls", str(label).encode()
    yield f"{key}.json", json.dumps(facts).encode()
