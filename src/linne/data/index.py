"""What was found in a large source, kept in the cache folder, so that opening it again need not look at every file.

An index is plain data: numpy arrays and JSON facts in one safetensors file. It is had back only while every file and
folder it was made from still has the size and the times that it had then.

    index, notes = index_of(key, make)        # one call: had back, or made and kept

What is not seen: a file changed in place that was not among those watched. Watch folders (a file added, removed or
renamed changes its folder's time) and a spread sample of files; read by content what must never be wrong.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import stat
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from linne.data.files import Names
from linne.data.names import printable
from linne.host import cache_folder

FORMAT = 1
LEAST_FILES = 20_000
"""Files from which on a source is worth an index; fewer are listed in less than a fifth of a second."""
_RACY_NS = 2 * 10**9
"""A file system may count in steps of 2 s (FAT): a time this near to the looking can hide a later change."""
_MAX_BYTES = 4 * 2**30
"""Of all indexes together; the ones not used for longest go first. One million files take about 60 MB."""
_DTYPES = {"U8": "u1", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "F32": "<f4", "F64": "<f8", "BOOL": "?"}
_WATCHED, _ENDS, _STATES = "index.watched", "index.watched_ends", "index.watched_states"

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False, slots=True)
class Index:
    """What was found."""

    facts: Mapping[str, Any]
    """What JSON can hold."""
    arrays: Arrays
    identity: str = ""
    """Different each time one is made; empty when it was not kept. What is derived from an index has it in its key."""


@dataclass(frozen=True, eq=False, slots=True)
class Found:
    """What a look at the files gave, and what must stay as it is for that to hold."""

    index: Index
    watched: Sequence[str]
    """Paths of folders, and of a sample of files; all of what is found hangs on these."""
    keep: bool = True
    """False where it was so little that looking again is as quick."""


def index_of(key: str, look: Callable[[], Found]) -> tuple[Index, list[str]]:
    """Return the index kept under `key`, or else what `look` finds, now kept; and notes on what was wrong with the old.

    `key` says what was looked at and how: a change of the code that alters what is found needs another key.
    A cache folder that cannot be written is no error: a note says so.
    """
    had, notes = load(key)
    if had is not None:
        return had, notes
    started_ns = time.time_ns()
    found = look()
    if not found.keep:
        return found.index, notes
    kept, more = save(key, found.index, found.watched, started_ns)
    return kept, notes + more


def load(key: str) -> tuple[Index | None, list[str]]:
    """Return the index kept under `key` where it still holds, or None; and a note why one that is there does not."""
    path = _path(key)
    try:
        if not _is_ours(path):
            return None, []
        index, arrays = _read(path, key)
    except FileNotFoundError:
        return None, []
    except Exception as error:  # whatever is wrong with a cache, the files themselves are there to be read
        return None, [f"looked through all files again: the index `{printable(path)}` is damaged ({_said(error)})"]
    changed = _first_change(Names(arrays.pop(_WATCHED), arrays.pop(_ENDS)), arrays.pop(_STATES))
    if changed is not None:
        return None, [f"looked through all files again: `{printable(changed)}` changed since they were indexed"]
    with contextlib.suppress(OSError):
        os.utime(path)  # used now: not among the first to go
    return index, []


def save(key: str, index: Index, watched: Sequence[str], started_ns: int) -> tuple[Index, list[str]]:
    """Keep `index` under `key`, and return it with its identity; and a note where it could not be kept.

    Nothing is kept, without a note, when something in `watched` changed less than two seconds before `started_ns`
    (when the looking began, `time.time_ns()`), or since: the next look will be kept.
    """
    states = [_state(path) for path in watched]
    if any(max(mtime, ctime) > started_ns - _RACY_NS for mtime, ctime, _ in states):
        return index, []
    names = Names.of(watched)
    states_W3 = np.array(states, np.int64).reshape(len(states), 3)
    own: Arrays = {_WATCHED: names.text, _ENDS: names.ends_N, _STATES: states_W3}
    identity = uuid4().hex
    path = _path(key)
    partial = path.with_name(f"{path.name}.{identity}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(partial, {"key": key, "identity": identity, "facts": index.facts}, {**index.arrays, **own})
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        return index, [f"the index of the files could not be kept in `{printable(path.parent)}`: {_said(error)}"]
    with contextlib.suppress(OSError):  # another process may be tidying up as well
        _make_room(path.parent)
    return Index(index.facts, index.arrays, identity), []


def spread(number: int, most: int = 256) -> NDArray[np.int64]:
    """Return at most `most` different positions below `number`, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, max(number - 1, 0), min(most, number)).astype(np.int64))


def _path(key: str) -> Path:
    named = hashlib.sha256(f"{FORMAT}\0{key}".encode("utf-8", "surrogateescape")).hexdigest()
    return cache_folder() / "index" / f"{named[:32]}.safetensors"


def _is_ours(path: Path) -> bool:
    """Return whether the file belongs to this user: in a shared cache folder, another's could name any file to read."""
    owner = path.stat().st_uid
    return not hasattr(os, "getuid") or owner == os.getuid()


def _state(path: str) -> tuple[int, int, int]:
    """Return the times of change and the size of a file, or of a folder without its size; zeros where it is gone.

    The inode's time is there because unpacking an archive sets a folder's own time back to what it was.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return 0, 0, 0
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size if stat.S_ISREG(found.st_mode) else -1


def _first_change(paths: Iterable[str], states: NDArray[np.int64]) -> str | None:
    for path, expected in zip(paths, states.tolist(), strict=True):
        if list(_state(path)) != expected:
            return path
    return None


def _write(path: Path, document: Mapping[str, Any], arrays: Arrays) -> None:
    from safetensors.numpy import save_file

    text = json.dumps(document, allow_nan=False)
    held = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(held, path, {"linne_index": text, "crc32": str(_checksum(text, held))})


def _read(path: Path, key: str) -> tuple[Index, dict[str, NDArray[Any]]]:
    """Return the index in `path`, with its arrays and those that say what is watched; any error means damage."""
    with path.open("rb") as file:
        # Mapped, not read: of a million names a run touches those it loads.
        data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:start].tobytes())
    metadata = header.pop("__metadata__")
    arrays: dict[str, NDArray[Any]] = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        arrays[name] = data[start + begin : start + end].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    text = metadata["linne_index"]
    if _checksum(text, arrays) != int(metadata["crc32"]):
        raise ValueError("its checksum is wrong")
    document = json.loads(text)
    if document["key"] != key:
        raise ValueError("it is another's")
    return Index(document["facts"], arrays, document["identity"]), arrays


def _checksum(text: str, arrays: Arrays) -> int:
    """Return a CRC-32 over all that a file says; it finds damage and keeps nobody out."""
    checksum = zlib.crc32(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        checksum = zlib.crc32(f"{name} {array.dtype.str} {array.shape}".encode(), checksum)
        checksum = zlib.crc32(array.reshape(-1).view(np.uint8).data, checksum)
    return checksum


def _make_room(folder: Path) -> None:
    """Remove the indexes not used for longest until all together fit; and what a killed process left behind."""
    entries = [(entry, entry.stat()) for entry in folder.iterdir() if entry.suffix in (".safetensors", ".partial")]
    entries.sort(key=lambda pair: pair[1].st_mtime_ns, reverse=True)
    total, day_ago = 0, time.time() - 24 * 3600
    for entry, found in entries:
        total += found.st_size
        if total > _MAX_BYTES or (entry.suffix == ".partial" and found.st_mtime < day_ago):
            entry.unlink(missing_ok=True)


def _said(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return printable(text[:200]).lower()
