"""Archives from strangers, unpacked whole into a new folder or not at all.

Refused: links, devices, pipes, sparse and encrypted members; names that are absolute, lead upward, hold a backslash, a
colon or a control character, or are too long; names that are one on a system that ignores case or Unicode spelling;
more files or bytes than allowed, and more than 200 bytes for each byte of the archive. Counted while unpacking, so a
bomb stops at the limit. Archives inside the archive stay files.

Not covered: what the files hold (check the archive's hash before, and images are decoded with limits of their own),
another program of the same user that writes into the folder meanwhile, names that only Windows reserves (`con`), and
a power cut right after: the system may not have written everything yet.
"""

from __future__ import annotations

import os
import secrets
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from linne.archive_members import BadArchive, Member, members, shown, tar_members
from linne.errors import SourceError

MAX_BYTES = 50 * 10**9
MAX_FILES = 1_000_000
MAX_RATIO = 200
_FREE_BYTES = 10 * 10**6
"""So many may come out before the ratio counts: a small file of zeros is no bomb."""
_PART_BYTES = 255
"""What file systems take for one name."""
_TAKEN = "is there twice, in two spellings (case, accents), or as file and folder"


@dataclass(frozen=True, slots=True)
class Extracted:
    """What came out of an archive."""

    num_files: int
    size_bytes: int


@dataclass(slots=True)
class _Target:
    """The new folder, and what is in it by now; names are kept as hashes, a million of them in 100 MB."""

    folder: Path
    max_files: int
    files: set[int] = field(default_factory=set)
    folders: dict[int, int] = field(default_factory=dict)
    size_bytes: int = 0

    def add(self, name: str, member: Member) -> None:
        """Make the file or folder `name`."""
        parts = safe_parts(name)
        for depth in range(1, len(parts) + member.is_folder):
            self._add_folder("/".join(parts[:depth]))
        if member.is_folder:
            return
        if not parts:
            raise BadArchive(f"{shown(name)} is no name for a file")
        path = "/".join(parts)
        key = hash(path.casefold())
        if key in self.files or key in self.folders:
            raise BadArchive(f"{shown(path)} {_TAKEN}")
        self.files.add(key)
        self._check_number()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(self.folder / path, flags, 0o666), "wb") as file:
            for piece in member.pieces:
                file.write(piece)
                self.size_bytes += len(piece)

    def _add_folder(self, path: str) -> None:
        key = hash(path.casefold())
        if self.folders.get(key) == hash(path):
            return
        if key in self.folders or key in self.files:
            raise BadArchive(f"{shown(path)} {_TAKEN}")
        self.folders[key] = hash(path)
        self._check_number()
        (self.folder / path).mkdir()

    def _check_number(self) -> None:
        if len(self.files) + len(self.folders) > self.max_files:
            raise BadArchive(f"it holds more than {self.max_files:,} files and folders")


def extract(
    archive: Path,
    into: Path,
    *,
    max_bytes: int = MAX_BYTES,
    max_files: int = MAX_FILES,
    inner_tars: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> Extracted:
    """Return what was unpacked from `archive` to the new folder `into`.

    Everything is written to a hidden folder beside it, which takes the name `into` when all of it is there. Owners,
    rights, times and empty directories' marks are the system's, not the archive's.

    Args:
        archive: zip, tar, or a tar or a single file packed by gzip, bzip2 or xz.
        into: A folder that is not there yet.
        max_bytes: Most that may come out, a tar's headers included.
        max_files: Most files and folders.
        inner_tars: Unpack each `x.tar` in the archive to a folder `x`, as ImageNet's archive of archives needs.
        progress: Told how many bytes came out, headers included.

    Raises:
        SourceError: the archive is damaged, breaks a rule, or the disk cannot hold it; nothing of it stays.
    """
    if into.exists():
        raise SourceError(f"`{into}` is there already; expected a new folder to unpack `{archive.name}` to")
    size = archive.stat().st_size
    folder = into.with_name(f".{into.name}.{secrets.token_hex(4)}.unpacking")
    target = _Target(folder, max_files)
    try:
        folder.mkdir(parents=True)
        for name, member in _flat(archive, _limit(size, max_bytes, progress), inner_tars):
            target.add(name, member)
        os.rename(folder, into)
    except BadArchive as bad:
        raise SourceError(f"`{archive}` is not unpacked: {bad}", hint="get it again, from its publisher") from bad
    except OSError as error:
        raise SourceError(f"`{archive}` cannot be unpacked to `{into}`: {_reason(error)}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Extracted(len(target.files), target.size_bytes)


def _flat(archive: Path, count: Callable[[int], None], inner_tars: bool) -> Iterator[tuple[str, Member]]:
    """Yield each member with its name, those of tars inside under the tar's name where that is asked for."""
    for member in members(archive, count):
        if inner_tars and not member.is_folder and member.name.endswith(".tar"):
            for inner in tar_members(member.pieces):
                yield f"{member.name[:-4]}/{inner.name}", inner
        else:
            yield member.name, member


def _limit(archive_bytes: int, max_bytes: int, progress: Callable[[int], None]) -> Callable[[int], None]:
    """Return what is told of every number of bytes that came out, and raises when they are too many."""
    done = 0

    def count(number: int) -> None:
        nonlocal done
        done += number
        if done > max_bytes:
            raise BadArchive(f"it holds more than {max_bytes:,} bytes")
        if done > max(_FREE_BYTES, MAX_RATIO * archive_bytes):
            raise BadArchive(f"it holds more than {MAX_RATIO} times its own {archive_bytes:,} bytes: a bomb")
        progress(done)

    return count


def safe_parts(name: str) -> list[str]:
    """Return the parts of a member's name in Unicode NFC, without empty ones and `.`.

    Raises:
        BadArchive: it could lead out of the folder, or means something else on another system.
    """
    name = unicodedata.normalize("NFC", name)
    if name.startswith("/"):
        raise BadArchive(f"{shown(name)} is an absolute path")
    if any(mark in name for mark in "\\:"):
        raise BadArchive(f"{shown(name)} holds a backslash or a colon")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        raise BadArchive(f"{shown(name)} holds a control character, or is not Unicode")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BadArchive(f"{shown(name)} leads upward")
    if any(len(part.encode()) > _PART_BYTES for part in parts):
        raise BadArchive(f"{shown(name)} has a part of more than {_PART_BYTES} bytes")
    return parts


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
