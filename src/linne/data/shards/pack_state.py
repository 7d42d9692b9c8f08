"""How far a pack has come, so that one that was killed goes on: what was asked for, then a line for each shard done.

A shard is written under another name, flushed, read back, renamed, and only then noted. What is noted is therefore
there; what is there without a note is written again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from linne.data.names import listed, printable
from linne.data.shards.names import INFO, UNFINISHED
from linne.errors import LinneError, SourceError


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What is to be packed, and how; two runs with equal orders write equal bytes."""

    source: str
    fingerprint: str
    """Of the source."""
    settings: Mapping[str, Any]
    labels: tuple[str, ...]
    per_shard: int
    """Examples in each shard but a split's last; measured once, on the first run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DoneShard:
    """A shard that is complete on disk."""

    name: str
    split: str
    num_images: int
    size_bytes: int
    sha256: str
    heights: tuple[int, int]
    """The smallest and largest."""
    widths: tuple[int, int]
    left_out: tuple[tuple[str, str], ...] = ()
    """Name and reason of each example that could not be read."""


def read_state(out: Path, order: Order) -> tuple[Order, dict[str, DoneShard]]:
    """Return the order as first given, and the shards that are done and still as they were written, by name.

    Raises:
        SourceError: `out` holds something else: other files, or a pack of another source or with other settings.
    """
    try:
        if not out.exists() or not any(out.iterdir()):
            return order, {}
        lines = _lines(out)
        begun = Order(**{**lines[0], "labels": tuple(lines[0]["labels"])})
        shards = [_done(line) for line in lines[1:]]
    except (FileNotFoundError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise SourceError(
            f"`{printable(out)}` holds something else than a pack of linne", hint="name a new folder"
        ) from error
    except OSError as error:
        raise SourceError(f"`{printable(out)}` cannot be read: {(error.strerror or str(error)).lower()}") from error
    if replace(begun, source=order.source, per_shard=order.per_shard) != order:
        raise SourceError(f"`{printable(out)}` holds a pack of {_difference(begun, order)}", hint="name a new folder")
    return begun, {shard.name: shard for shard in shards if _is_whole(out / shard.name, shard)}


def _lines(out: Path) -> list[dict[str, Any]]:
    """Return the order and the shards done, from the finished pack or from one that was cut."""
    if (out / INFO).is_file():
        own = json.loads((out / INFO).read_bytes())["linne"]
        order = {"source": own["origin"]["source"], "fingerprint": own["origin"]["fingerprint"]}
        order |= {key: own[key] for key in ("settings", "labels", "per_shard")}
        return [order, *({"name": name, **shard} for name, shard in own["shards"].items())]
    lines = (out / UNFINISHED).read_bytes().split(b"\n")
    return [json.loads(line) for line in lines[:-1]]  # a line that was cut has no end


def _done(line: Mapping[str, Any]) -> DoneShard:
    pairs = {key: tuple(line[key]) for key in ("heights", "widths")}
    return DoneShard(**{**line, **pairs, "left_out": tuple((name, reason) for name, reason in line["left_out"])})


def _is_whole(path: Path, shard: DoneShard) -> bool:
    if not path.is_file() or path.stat().st_size != shard.size_bytes:
        return False
    return sha256_of(path) == shard.sha256


def _difference(begun: Order, order: Order) -> str:
    if begun.fingerprint != order.fingerprint or begun.labels != order.labels:
        changed = " as it was" if begun.source == order.source else ""
        return f"`{printable(begun.source)}`{changed}, with the fingerprint {begun.fingerprint[:12]}"
    keys = [key for key in {**begun.settings, **order.settings} if begun.settings.get(key) != order.settings.get(key)]
    return f"the same source with {listed([f'{key} {begun.settings.get(key)}' for key in keys])}"


def begin(out: Path, order: Order, done: Sequence[DoneShard]) -> None:
    """Make `out` the folder of an unfinished pack in which `done` is done.

    Raises:
        LinneError: it cannot be made or written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(asdict(order))] + [json.dumps(asdict(shard)) for shard in done]
        write_whole(out / UNFINISHED, "".join(f"{line}\n" for line in lines).encode())
        (out / INFO).unlink(missing_ok=True)
    except OSError as error:
        raise LinneError(f"`{printable(out)}` cannot be written: {(error.strerror or str(error)).lower()}") from error


def note(out: Path, shard: DoneShard) -> None:
    """Add `shard` to what is done."""
    with open(out / UNFINISHED, "ab") as file:
        file.write(json.dumps(asdict(shard)).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    keep(partial, path)


def keep(partial: Path, path: Path) -> None:
    """Rename a flushed file to what it is to be called, and make the name last."""
    os.replace(partial, path)
    with contextlib.suppress(OSError):  # Windows cannot flush a folder
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
