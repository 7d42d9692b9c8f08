"""What is in a zip, a tar or a packed file, member by member, in memory that no archive decides about.

`tarfile` and `zipfile` keep a record of every member, and believe a header that asks for gigabytes. Here tar is read
by `tarfile` through a stream that gives headers only so many bytes, and zip from its directory, one entry at a time.
"""

from __future__ import annotations

import bz2
import gzip
import itertools
import lzma
import stat
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

_PIECE = 256 * 2**10
_HEADER_BYTES = 2**20
"""All headers of one member of a tar together; real ones have a few kilobytes."""
_XZ_MEMORY = 256 * 2**20
"""What unpacking xz may take; `xz -9` needs 65 MiB."""
_TAR_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}
_ZIP_KINDS = {stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


@dataclass(frozen=True, slots=True)
class Member:
    """One file or folder; `pieces` are the file's bytes, to be used up before the next member is asked for."""

    name: str
    """As stored: not to be trusted."""
    is_folder: bool
    pieces: Iterator[bytes]


class BadArchive(Exception):
    """Damaged, or holding what is not taken out; says what."""


def shown(name: str) -> str:
    """Return a member's name as it may stand in a message."""
    text = ascii(name)[1:-1]
    return f"`{text}`" if len(text) <= 100 else f"`{text[:100]}...`"


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what the readers raise into `BadArchive`."""
    try:
        yield
    except tarfile.TarError as error:
        raise BadArchive(f"it is damaged: {error}") from error
    except EOFError as error:
        raise BadArchive("it is damaged: it ends too early") from error
    except (OSError, zlib.error, lzma.LZMAError, struct.error, ValueError, OverflowError, RecursionError) as error:
        raise BadArchive(f"it is damaged: {ascii(str(error))[1:-1].lower()}") from error


def members(path: Path, count: Callable[[int], None]) -> Iterator[Member]:
    """Yield what `path` holds; what kind of archive it is its first bytes say, not its name.

    A packed file that is no tar (`x.gz`) is one member, named without its ending.

    Args:
        path: zip, tar, or either a tar or one file packed by gzip, bzip2 or xz.
        count: Told of every number of bytes that was unpacked, before they are handed on; stops by raising.

    Raises:
        BadArchive: it is damaged, or holds links, devices, holes, or what is encrypted or packed in a rare way.
    """
    with _explained(), open(path, "rb") as file:
        magic = file.read(6)
        file.seek(0)
        if magic[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            yield from _zip_members(path, file, count)
            return
        unpack = next((unpack for mark, unpack in _PACKED.items() if magic.startswith(mark)), None)
        pieces = _counted(iter(lambda: file.read(_PIECE), b"") if unpack is None else unpack(file), count)
        head = b""
        while len(head) < tarfile.BLOCKSIZE and (piece := next(pieces, b"")):
            head += piece
        pieces = itertools.chain([head], pieces)
        if _is_tar(head[: tarfile.BLOCKSIZE]):
            yield from tar_members(pieces)
        elif unpack is not None:
            yield Member(path.stem, False, _guarded(pieces))
        else:
            raise BadArchive("it is neither zip nor tar, nor packed by gzip, bzip2 or xz")


def _counted(pieces: Iterator[bytes], count: Callable[[int], None]) -> Iterator[bytes]:
    for piece in pieces:
        count(len(piece))
        yield piece


def _guarded(pieces: Iterator[bytes]) -> Iterator[bytes]:
    with _explained():
        yield from pieces


def _gzip(file: IO[bytes]) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=file) as unpacked:
        yield from iter(lambda: unpacked.read(_PIECE), b"")


def _bzip2(file: IO[bytes]) -> Iterator[bytes]:
    with bz2.BZ2File(file) as unpacked:
        yield from iter(lambda: unpacked.read(_PIECE), b"")


def _xz(file: IO[bytes]) -> Iterator[bytes]:
    # LZMAFile has no limit on memory, and a header of some bytes can ask for four gigabytes.
    unpack = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
    while not unpack.eof:
        data = file.read(_PIECE) if unpack.needs_input else b""
        if unpack.needs_input and not data:
            raise EOFError
        yield unpack.decompress(data, _PIECE)
    if unpack.unused_data or file.read(1):
        raise BadArchive("it has something after its end")


_PACKED: dict[bytes, Callable[[IO[bytes]], Iterator[bytes]]] = {
    b"\x1f\x8b": _gzip,
    b"BZh": _bzip2,
    b"\xfd7zXZ\0": _xz,
}


def _is_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")  # checks the header's checksum
    except (tarfile.TarError, ValueError):
        return False
    return True


class _Forward:
    """The file that `tarfile` sees: read once, and for headers only a little."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest, self._at = pieces, memoryview(b""), 0
        self.header_bytes = 0
        self.last = b""

    def tell(self) -> int:
        return self._at

    def seek(self, to: int) -> None:
        if to < self._at:
            raise BadArchive("it is damaged: a header points back")
        for _ in self.take(to - self._at):
            pass

    def read(self, size: int) -> bytes:
        self.header_bytes += size
        if size < 0 or self.header_bytes > _HEADER_BYTES:
            raise BadArchive(f"a member has headers of more than {_HEADER_BYTES:,} bytes")
        self.last = b"".join(self.take(size))
        return self.last

    def take(self, size: int) -> Iterator[bytes]:
        """Yield the next `size` bytes, or as many as there are."""
        while size > 0:
            if not self._rest:
                self._rest = memoryview(next(self._pieces, b""))
                if not self._rest:
                    return
            piece, self._rest = self._rest[:size], self._rest[size:]
            size -= len(piece)
            self._at += len(piece)
            yield bytes(piece)


def tar_members(pieces: Iterator[bytes]) -> Iterator[Member]:
    """Yield the members of the tar whose bytes are `pieces`, and use those up.

    Raises:
        BadArchive: as `members`.
    """
    with _explained():
        stream = _Forward(pieces)
        with tarfile.TarFile(fileobj=cast("IO[bytes]", stream), encoding="utf-8") as tar:
            while (info := tar.next()) is not None:
                cast("Any", tar).members.clear()  # or it would remember a kilobyte for each
                if not (info.isreg() or info.isdir()) or info.issparse():
                    kind = "a file with holes" if info.issparse() else _TAR_KINDS.get(info.type, "of an unknown kind")
                    raise BadArchive(f"{shown(info.name)} is {kind}")
                stream.header_bytes = 0
                yield Member(info.name, info.isdir(), _tar_content(stream, info))
            if stream.last.strip(b"\0") or len(stream.last) < tarfile.BLOCKSIZE:  # `tarfile` takes any junk for the end
                raise BadArchive("it is damaged: it ends without its end mark")
        for _ in pieces:  # to the end, where a packed stream has its checksum
            pass


def _tar_content(stream: _Forward, info: tarfile.TarInfo) -> Iterator[bytes]:
    with _explained():
        left = info.size
        for piece in stream.take(left):
            left -= len(piece)
            yield piece
        if left:
            raise EOFError


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the directory of a zip says of one member."""

    name: str
    flags: int
    method: int
    crc: int
    packed_size: int
    size: int
    mode: int
    offset: int


def _zip_members(path: Path, file: IO[bytes], count: Callable[[int], None]) -> Iterator[Member]:
    with open(path, "rb") as directory:
        for entry in _zip_entries(directory):
            kind = stat.S_IFMT(entry.mode)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise BadArchive(f"{shown(entry.name)} is {_ZIP_KINDS.get(kind, 'a device')}")
            if entry.flags & 0x41:
                raise BadArchive(f"{shown(entry.name)} is encrypted")
            if entry.method not in (0, 8):
                raise BadArchive(f"{shown(entry.name)} is packed by method {entry.method}, expected 0 or 8 (deflate)")
            yield Member(entry.name, entry.name.endswith("/"), _guarded(_counted(_zip_content(file, entry), count)))


def _zip_entries(file: IO[bytes]) -> Iterator[_Entry]:
    """Yield the entries of the directory. Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, 4.3."""
    length = file.seek(0, 2)
    tail_at = max(0, length - 2**16 - 22)
    file.seek(tail_at)
    tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0:
        raise EOFError
    _, disk, _, _, num, size, at, _ = struct.unpack_from("<4s4H2LH", tail, end)
    if 0xFFFF in (num, disk) or 0xFFFFFFFF in (size, at):
        _, _, end64, _ = struct.unpack_from("<4sLQL", tail, end - 20)
        file.seek(end64)
        _, _, _, _, disk, _, _, num, size, at = struct.unpack("<4sQ2H2L4Q", file.read(56))
    if disk or at + size > length:
        raise BadArchive("it is damaged: its directory is not where it says")
    file.seek(at)
    for _ in range(num):
        head = struct.unpack("<4s6H3L5H2L", file.read(46))
        mark, _, _, flags, method, _, _, crc, packed_size, unpacked, num_name, num_extra, num_note = head[:13]
        if mark != b"PK\x01\x02":
            raise BadArchive("it is damaged: its directory breaks off")
        name, extra = file.read(num_name), file.read(num_extra)
        file.seek(num_note, 1)
        unpacked, packed_size, offset = _zip64(extra, [unpacked, packed_size, head[16]])
        text = name.decode("utf-8" if flags & 0x800 else "cp437")
        yield _Entry(text, flags, method, crc, packed_size, unpacked, head[15] >> 16, offset)


def _zip64(extra: bytes, values: list[int]) -> list[int]:
    """Return `values`, those that do not fit 32 bits as the extra field gives them."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        if kind == 1:
            wide = iter(struct.unpack_from(f"<{size // 8}Q", extra, 4))
            return [next(wide, value) if value == 0xFFFFFFFF else value for value in values]
        extra = extra[4 + size :]
    return values


def _zip_content(file: IO[bytes], entry: _Entry) -> Iterator[bytes]:
    file.seek(entry.offset)
    head = struct.unpack("<4s5H3L2H", file.read(30))
    if head[0] != b"PK\x03\x04":
        raise BadArchive(f"it is damaged: {shown(entry.name)} is not where it says")
    file.seek(head[9] + head[10], 1)
    unpack = zlib.decompressobj(-15) if entry.method == 8 else None
    left, size, crc = entry.packed_size, 0, 0
    while left and (data := file.read(min(left, _PIECE))):
        left -= len(data)
        while data:
            piece = data if unpack is None else unpack.decompress(data, _PIECE)
            data = b"" if unpack is None else unpack.unconsumed_tail
            size, crc = size + len(piece), zlib.crc32(piece, crc)
            yield piece
            if unpack is not None and unpack.eof:
                left, data = 0, b""
    if size != entry.size or crc != entry.crc:
        raise BadArchive(f"it is damaged: {shown(entry.name)} does not have the bytes it should")
