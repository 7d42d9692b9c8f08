"""Decoded pixels of a set of files, kept on disk so that the next run need not decode them again.

Each is a folder with `pixels.npy`, to be mapped into memory, and `facts.json`. Its name is made from everything that
decides the pixels: each file's path, size and times, the model's input size, and the code that decodes.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import shutil
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import numpy as np
from numpy.lib.format import open_memmap

from linne import preprocess
from linne.data.files import FileStore
from linne.data.images import decode, headers, jpeg, modes, png
from linne.data.names import printable
from linne.data.source import Split
from linne.host import cache_folder
from linne.preprocess import InputSpec, Resize, UInt8

LEAST_FREE_SHARE = 0.1
"""Of the disk, which stays free whatever is kept."""
_LIBRARIES = ("numpy", "pillow", "simplejpeg", "torch")


@dataclass(frozen=True, eq=False, slots=True)
class Kept:
    """Decoded images, now or by an earlier run."""

    images_NHWC: UInt8
    """A read-only map of the file, when they were had back."""
    problems: Mapping[int, str]
    """Why, for each row that could not be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelCache:
    """Where pixels are kept, and when that is worth it."""

    folder: Path = field(default_factory=lambda: cache_folder() / "pixels")
    worth_seconds: float = 5.0
    """What took less to decode is as well done again."""
    settled_seconds: float = 2.0
    """A file system may count in steps of 2 s (FAT): a time this near to the looking can hide a later change."""
    most_bytes: int = 20 * 2**30
    """Of all kept pixels together; the ones not used for longest go first."""

    def place(self, parts: Sequence[Split], spec: InputSpec, resize: Resize) -> Path | None:
        """Return where the pixels of all of `parts`, one after another at the size of `spec`, are kept or would be.

        None where they are not files, and where one changed so lately, or is not there, that its times cannot say
        which content is meant.
        """
        digest = hashlib.sha256(_code(resize) + json.dumps(spec.to_dict()).encode())
        before_ns = time.time_ns() - int(self.settled_seconds * 1e9)
        for part in parts:
            store = part.store
            if not isinstance(store, FileStore):
                return None
            digest.update(os.fsencode(os.path.abspath(store.root)) + b"\n")
            for index in part.indices_N.tolist():
                try:
                    found = os.stat(store.path(index))
                except (OSError, ValueError):
                    return None
                # The inode's time as well: unpacking an archive sets a file's own time back to what it was.
                if max(found.st_mtime_ns, found.st_ctime_ns) > before_ns:
                    return None
                state = b"\0%d %d %d\n" % (found.st_size, found.st_mtime_ns, found.st_ctime_ns)
                digest.update(os.fsencode(store.paths[index]) + state)
        return self.folder / digest.hexdigest()[:32]

    def load(self, place: Path) -> Kept | None:
        """Return what is kept at `place`; None when nothing is, or it is damaged or another user's."""
        try:
            if hasattr(os, "getuid") and place.stat().st_uid != os.getuid():
                return None
            facts = json.loads((place / "facts.json").read_text(encoding="utf-8"))
            images_NHWC: UInt8 = open_memmap(place / "pixels.npy", mode="r")
            if images_NHWC.dtype != np.uint8 or zlib.crc32(images_NHWC.reshape(-1).data) != facts["crc32"]:
                return None
            problems = {int(row): str(problem) for row, problem in facts["problems"].items()}
            os.utime(place)  # used now: not among the first to go
        except Exception:  # whatever is wrong with a cache, the files themselves are there to be read
            return None
        return Kept(images_NHWC, problems)

    def save(self, place: Path, kept: Kept) -> str:
        """Keep decoded pixels at `place`, older ones making room, and return what to say about it."""
        images_NHWC, size = kept.images_NHWC, gigabytes(kept.images_NHWC.nbytes)
        partial = place.with_name(f"{place.name}.{uuid4().hex}.partial")
        try:
            partial.mkdir(parents=True)
            disk = shutil.disk_usage(partial)
            if images_NHWC.nbytes > min(self.most_bytes, disk.free - LEAST_FREE_SHARE * disk.total):
                partial.rmdir()
                return f"pixels  not kept for the next run: {size} are more than the disk has to spare"
            np.save(partial / "pixels.npy", images_NHWC, allow_pickle=False)
            facts = {"crc32": zlib.crc32(images_NHWC.reshape(-1).data), "problems": kept.problems}
            (partial / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
            if place.exists():  # damaged, or kept by another run meanwhile
                shutil.rmtree(place)
            partial.rename(place)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            where = printable(self.folder)
            return f"pixels  could not be kept in `{where}`: {(error.strerror or str(error)).lower()}"
        with contextlib.suppress(OSError):  # another process may be tidying up as well
            self._make_room()
        return f"pixels  kept for the next run: {size} in {printable(place)}; --set data.cache=false keeps none"

    def _make_room(self) -> None:
        """Remove what was not used for longest until all together fits; and what a killed process left behind."""
        kept = (entry for entry in self.folder.iterdir() if entry.is_dir())  # and not what a file manager left
        entries = sorted(kept, key=lambda entry: entry.stat().st_mtime_ns, reverse=True)
        total, day_ago = 0, time.time() - 24 * 3600
        for entry in entries:
            total += sum(file.stat().st_size for file in entry.iterdir())
            if total > self.most_bytes or (entry.suffix == ".partial" and entry.stat().st_mtime < day_ago):
                shutil.rmtree(entry)


def _code(resize: Resize) -> bytes:
    """Return bytes that change when the code or a library that turns files into pixels does."""
    modules = [module.__file__ for module in (decode, headers, jpeg, modes, png, preprocess)]
    contents = [Path(path).read_bytes() for path in (*modules, resize.__code__.co_filename) if path is not None]
    versions = [f"{name} {importlib.metadata.version(name)}".encode() for name in _LIBRARIES]
    return b"\0".join([*contents, resize.__name__.encode(), *versions])


def gigabytes(size_bytes: int) -> str:
    """Return "1.2 GB", to a tenth."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e8 else f"{size_bytes / 1e6:.1f} MB"
