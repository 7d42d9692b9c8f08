"""`linne data pack`: a source as WebDataset shards of resized images, its splits, labels and names kept.

Why tar files: docs/decisions/0005-packed-format.md. Equal sources and settings give equal bytes.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import linne
from linne.data.index import spread
from linne.data.names import counted, listed, printable
from linne.data.shards.info import FORMAT
from linne.data.shards.names import CLASSES, INFO, UNFINISHED
from linne.data.shards.pack_image import PackedImage, PackSettings, pack_image, packed_size, usual_format
from linne.data.shards.pack_shard import PlannedShard, write_shard
from linne.data.shards.pack_state import DoneShard, Order, begin, note, read_state, write_whole
from linne.data.shards.tar import BLOCK
from linne.data.source import Source
from linne.errors import CheckFailed, ImageError, LinneError, SourceError
from linne.log import Narrator

_SAMPLE = 64
_BLOCKS_AN_IMAGE = 6.5
"""Headers, label and JSON of an image take five blocks, and its last block is half empty."""
_LEAST_BAD, _BAD_FRACTION = 10, 0.001
_SHUFFLE_SEED = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class PackResult:
    """What a pack holds."""

    path: str
    num_images: int
    num_shards: int
    num_kept: int
    """Shards that an earlier run had finished."""
    size_bytes: int
    left_out: tuple[tuple[str, str], ...]
    """Name and reason of each example that could not be read."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {**asdict(self), "left_out": [{"name": name, "reason": reason} for name, reason in self.left_out]}

    def to_text(self) -> str:
        """Return what there is, and what to type next, on two lines."""
        what = f"{counted(self.num_images, 'image')} in {counted(self.num_shards, 'shard')}"
        kept = f", {self.num_kept:,} of them verified and kept" if self.num_kept else ""
        left_out = f"; {len(self.left_out):,} left out" if self.left_out else ""
        return f"{what}{kept}, {self.size_bytes / 1e6:,.1f} MB{left_out}\nlinne train {shlex.quote(self.path)}"


def pack(
    source: Source,
    out: str | os.PathLike[str],
    settings: PackSettings | None = None,
    *,
    shard_size_bytes: int = 256 * 10**6,
    max_unreadable: int | None = None,
    num_threads: int | None = None,
    narrator: Narrator | None = None,
) -> PackResult:
    """Write `source` to the folder `out` as shards, and return what is there then.

    Killed at any moment and called again, it goes on after the last finished shard. Called on a finished pack, it
    verifies every shard and writes anew what is missing or damaged. The order of train is shuffled, for readers that
    go through shards from front to back.

    Args:
        max_unreadable: Images that cannot be read and may be left out; None for a thousandth, or 10 where that is
            more.
        num_threads: Threads that decode and encode; None for one a core.

    Raises:
        SourceError: `out` holds something else, or lies inside the source.
        CheckFailed: too many images cannot be read.
        LinneError: there is no room, or `out` cannot be written.
    """
    settings = settings or PackSettings(format=usual_format(source))
    narrator, folder = narrator or Narrator(quiet=True), Path(out)
    _check_outside(source, folder)
    mean_bytes = _mean_bytes(source, settings)
    asked = Order(
        source=source.name,
        fingerprint=source.fingerprint,
        settings={**settings.to_dict(), "shard_size_bytes": shard_size_bytes},
        labels=source.labels,
        per_shard=max(1, int(shard_size_bytes / mean_bytes)),
    )
    order, done = read_state(folder, asked)
    planned = list(_plan(source, order.per_shard))
    left = [shard for shard in planned if shard.name not in done]
    if left or not (folder / INFO).is_file():
        kept = [done[shard.name] for shard in planned if shard.name in done]
        _check_room(folder, sum(len(shard.positions_N) for shard in left) * mean_bytes)
        begin(folder, order, kept)
        num_images = sum(len(split) for split in source.splits.values())
        cap = max(_LEAST_BAD, math.ceil(num_images * _BAD_FRACTION)) if max_unreadable is None else max_unreadable
        job = _Job(
            out=folder,
            labels=source.labels,
            settings=settings,
            cap=cap,
            num_threads=num_threads or _cores(),
            narrator=narrator,
        )
        done = _write_all(job, left, kept)
        _finish(source, folder, order, done)
    shards = [done[shard.name] for shard in planned]
    return PackResult(
        path=str(out),
        num_images=sum(shard.num_images for shard in shards),
        num_shards=len(shards),
        num_kept=len(planned) - len(left),
        size_bytes=sum(shard.size_bytes for shard in shards),
        left_out=tuple(pair for shard in shards for pair in shard.left_out),
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_outside(source: Source, out: Path) -> None:
    """Raise where `out` would be found in the source, were it opened again; beside a list's images it may lie."""
    for typed in (source.name, source.name.partition(":")[2]):
        folder = Path(typed).expanduser()
        if typed and folder.is_dir() and out.resolve().is_relative_to(folder.resolve()):
            raise SourceError(
                f"`{printable(out)}` lies inside the source; packing would change it",
                hint="name a folder beside the source",
            )


def _mean_bytes(source: Source, settings: PackSettings) -> float:
    """Return what an image takes in a shard, from a sample spread over train."""
    train, sizes = source.splits["train"], []
    for position in spread(len(train), _SAMPLE).tolist():
        try:
            sizes.append(len(pack_image(train, position, settings).data))
        except ImageError:  # counted when its turn comes
            continue
    return float(np.mean(sizes or [0])) + _BLOCKS_AN_IMAGE * BLOCK


def _plan(source: Source, per_shard: int) -> Iterator[PlannedShard]:
    for name, split in source.splits.items():
        order_N = np.arange(len(split))
        if name == "train":
            np.random.default_rng(_SHUFFLE_SEED).shuffle(order_N)
        for number, start in enumerate(range(0, len(split), per_shard)):
            yield PlannedShard(f"{name}-{number:05d}.tar", split, order_N[start : start + per_shard], start)


def _check_room(out: Path, needed: float) -> None:
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise LinneError(
            f"packing needs about {needed / 1e9:,.1f} GB and `{printable(there)}` has {free / 1e9:,.1f} GB free",
            hint="name a folder on another disk, or pack smaller: `--size`, `--format jpg`",
        )


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class _Job:
    """What stays the same from shard to shard."""

    out: Path
    labels: Sequence[str]
    settings: PackSettings
    cap: int
    """Unreadable images that may be left out."""
    num_threads: int
    narrator: Narrator


def _write_all(job: _Job, left: Sequence[PlannedShard], kept: Sequence[DoneShard]) -> dict[str, DoneShard]:
    """Write the shards that are left, and return all by name."""
    done = {shard.name: shard for shard in kept}
    if kept:
        job.narrator.line(f"{counted(len(kept), 'shard')} of an earlier run verified and kept")
    num_images = sum(len(shard.positions_N) for shard in left)
    with ThreadPoolExecutor(job.num_threads) as pool, job.narrator.progress("packing", num_images):
        for planned in left:
            bad_before = [pair for shard in done.values() for pair in shard.left_out]
            bad: list[tuple[str, str]] = []
            images = _readable(job, planned, _in_order(job, planned, pool), bad_before, bad)
            written = write_shard(job.out / planned.name, planned, images, job.labels)
            shard = replace(written, left_out=tuple(bad))
            note(job.out, shard)
            done[shard.name] = shard
    return done


def _in_order(job: _Job, planned: PlannedShard, pool: ThreadPoolExecutor) -> Iterator[PackedImage | ImageError]:
    """Yield each image of a shard, or why there is none; few are made before they are asked for."""

    def make(position: int) -> PackedImage | ImageError:
        try:
            return pack_image(planned.split, position, job.settings)
        except ImageError as error:
            return error

    waiting: deque[Future[PackedImage | ImageError]] = deque()
    try:
        for position in planned.positions_N.tolist():
            waiting.append(pool.submit(make, position))
            if len(waiting) > 2 * job.num_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _readable(
    job: _Job,
    planned: PlannedShard,
    images: Iterable[PackedImage | ImageError],
    bad_before: Sequence[tuple[str, str]],
    bad: list[tuple[str, str]],
) -> Iterator[tuple[int, PackedImage]]:
    """Yield each image that could be read, after its place in the shard; the others are added to `bad`.

    Raises:
        CheckFailed: with those in `bad_before` they are more than the job's cap.
    """
    for place, image in enumerate(images):
        job.narrator.advance()
        if isinstance(image, PackedImage):
            yield place, image
            continue
        bad.append((planned.split.example_name(int(planned.positions_N[place])), image.message))
        job.narrator.warn(f"left out: {image.message}")
        names = [name for name, _ in (*bad_before, *bad)]
        if len(names) > job.cap:
            raise CheckFailed(
                f"{counted(len(names), 'image')} cannot be read, more than the {job.cap:,} that may be left out: "
                f"{listed(names)}",
                hint="`linne data check SOURCE --quarantine FILE` finds them all; `--max-unreadable N` allows more",
            )


def _finish(source: Source, out: Path, order: Order, done: dict[str, DoneShard]) -> None:
    """Write what describes the shards, last of all `_info.json`, which makes the pack a finished one."""
    splits = {}
    for name in source.splits:
        own = [shard for shard in done.values() if shard.split == name]
        own.sort(key=lambda shard: shard.name)
        splits[name] = {
            "name": name,
            "num_samples": sum(shard.num_images for shard in own),
            "filenames": [shard.name for shard in own],
            "shard_lengths": [shard.num_images for shard in own],
        }
    shards = {shard.name: asdict(shard) for shard in sorted(done.values(), key=lambda shard: shard.name)}
    for facts in shards.values():
        del facts["name"]
    image_size, same_size = _image_size(source, list(done.values()), order)
    own_facts = {
        "format": FORMAT,
        "linne": linne.__version__,
        "origin": {"source": order.source, "fingerprint": order.fingerprint},
        "settings": dict(order.settings),
        "per_shard": order.per_shard,
        "channels": source.channels,
        "image_size": image_size,
        "same_size": same_size,
        "labels": list(order.labels),
        "shards": shards,
    }
    write_whole(out / CLASSES[0], "".join(f"{label}\n" for label in order.labels).encode())
    info = json.dumps({"splits": splits, "linne": own_facts}, indent=1, allow_nan=False)
    write_whole(out / INFO, info.encode() + b"\n")
    (out / UNFINISHED).unlink()
    for partial in out.glob(".*.partial"):  # of a run that was killed
        partial.unlink()


def _image_size(source: Source, shards: Sequence[DoneShard], order: Order) -> tuple[tuple[int, int], bool]:
    """Return the (height, width) of every image and True, or about what the median has and False."""
    shapes = {(shard.heights[k], shard.widths[k]) for shard in shards if shard.num_images for k in (0, 1)}
    if len(shapes) == 1:
        return next(iter(shapes)), True
    return packed_size(*source.image_size, order.settings["size"]), False
