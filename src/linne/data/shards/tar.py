"""Where the members of a tar archive lie, found by reading headers only; nothing is ever unpacked.

Python's `tarfile` ends without a word at a damaged header in the middle of an archive, and at one that is cut between
members: for training data that is a silent loss. Here both are errors. Regular files are listed, folders passed over,
and anything else (links, devices, sparse files, several volumes) is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO, NamedTuple, NoReturn

from linne.data.names import printable
from linne.errors import SourceError

BLOCK = 512
_ZEROS = bytes(BLOCK)
_MAX_EXTENDED = 2**20
"""A long name or a set of PAX records with more bytes is not believed."""
_REFUSED = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a named pipe",
    b"D": "a GNU directory dump",
    b"M": "the rest of another volume",
    b"N": "an old GNU long name",
    b"S": "a sparse file",
    b"V": "a volume label",
}


class Member(NamedTuple):
    """A regular file in an archive."""

    name: str
    """As stored, without a leading `./`; bytes that are not UTF-8 are surrogates."""
    offset: int
    """Where its first byte lies in the archive."""
    size: int


def members(file: IO[bytes], shown: str) -> Iterator[Member]:
    """Yield the regular files in the archive `file`, in order; `shown` is what to call it in messages.

    Understands ustar, PAX and GNU headers. Between two members the caller may read anywhere in `file`.

    Raises:
        SourceError: not a tar archive, damaged, cut short, or with a member that is not a plain file or folder.
    """
    end = file.seek(0, os.SEEK_END)
    position, long_name, long_size = 0, None, None
    while True:
        file.seek(position)
        header = file.read(BLOCK)
        if header == _ZEROS:
            _check_end(file, shown)
            return
        if len(header) < BLOCK or position + BLOCK > end:
            _cut(shown, f"it ends after {end:,} bytes without the empty block that closes an archive")
        _check_sum(header, position, shown)
        kind, offset = header[156:157], position + BLOCK
        plain = kind in (b"0", b"\0", b"7")
        name = long_name if long_name is not None else _name(header)
        # PAX may state a size that has no room in the header; it counts for files alone.
        size = long_size if plain and long_size is not None else _number(header[124:136], position, shown)
        if offset + size > end:
            _cut(shown, f"`{printable(name)}` has {size:,} bytes and {max(end - offset, 0):,} are left")
        position = offset + (size + BLOCK - 1) // BLOCK * BLOCK
        if kind in (b"L", b"x", b"g", b"K"):
            file.seek(offset)
            records = _extended(kind, file.read(min(size, _MAX_EXTENDED + 1)), shown)
            if kind != b"g":
                long_name = records.get("path", long_name)
                long_size = _whole(records["size"], shown) if "size" in records else long_size
            continue
        if plain and not name.endswith("/"):
            yield Member(name.removeprefix("./"), offset, size)
        elif kind != b"5" and not plain:
            what = _REFUSED.get(kind, f"of the unknown kind `{printable(kind)}`")
            raise SourceError(
                f"`{printable(name)}` in `{shown}` is {what}; expected plain files only",
                hint="write the archive again without it: `tar --dereference` stores what links lead to",
            )
        long_name = long_size = None


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:  # GNU keeps times where POSIX has the name's beginning
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    return name.decode("utf-8", "surrogateescape")


def _check_sum(header: bytes, position: int, shown: str) -> None:
    """Raise unless the header's bytes add up to what it states, taken as unsigned or, by old programs, signed."""
    field, others = header[148:156], header[:148] + header[156:]
    try:
        stated = int(field.strip(b" \0"), 8) - 8 * 32  # its own eight bytes count as spaces
    except ValueError:
        stated = -1
    if stated == sum(others) or stated == sum(memoryview(others).cast("b")):
        return
    if position:
        raise SourceError(f"`{shown}` is damaged: at byte {position:,} is no header of a member")
    if header.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        raise SourceError(
            f"`{shown}` is compressed; images are read from anywhere in a shard, which compression does not allow",
            hint="unpack the compression, not the archive: `gunzip FILE.tar.gz`, `zstd -d FILE.tar.zst`",
        )
    raise SourceError(f"`{shown}` is not a tar archive")


def _number(field: bytes, position: int, shown: str) -> int:
    """Return a size as octal digits, or as the base-256 number that GNU writes for 8 GiB and more."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if digits and not digits.strip(b"01234567"):
        return int(digits, 8)
    if not digits:
        return 0
    raise SourceError(f"`{shown}` is damaged: the header at byte {position:,} states no size")


def _whole(text: str, shown: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 18:
        return int(text)
    raise SourceError(f"`{shown}` is damaged: a PAX record has the size `{printable(text[:40])}`")


def _extended(kind: bytes, data: bytes, shown: str) -> dict[str, str]:
    """Return what a header that speaks about the next member says of its `path` and `size`."""
    if len(data) > _MAX_EXTENDED:
        raise SourceError(f"`{shown}` has a name of more than {_MAX_EXTENDED:,} bytes")
    if kind == b"L":
        return {"path": data.partition(b"\0")[0].decode("utf-8", "surrogateescape")}
    if kind == b"K":  # the name that a link leads to; the link itself is refused
        return {}
    records, position, end = {}, 0, len(data.rstrip(b"\0"))
    while position < end:  # by position: cutting each record off would copy the rest a hundred thousand times
        length = data[position : position + 9].partition(b" ")[0]
        if not length.isdigit() or len(length) > 8 or not len(length) + 2 < int(length) <= len(data) - position:
            raise SourceError(f"`{shown}` is damaged: a PAX record cannot be read")
        key, _, value = data[position + len(length) + 1 : position + int(length) - 1].partition(b"=")
        records[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        position += int(length)
    if any(key.startswith("GNU.sparse.") for key in records):
        raise SourceError(f"`{shown}` holds a sparse file; expected plain files only")
    if kind == b"g" and records.keys() & {"path", "size"}:
        raise SourceError(f"`{shown}` states one name or size for all its members")
    return records


def _check_end(file: IO[bytes], shown: str) -> None:
    """Raise where something follows the end mark: other programs would not see it."""
    while rest := file.read(2**16):
        if rest.strip(b"\0"):
            raise SourceError(
                f"`{shown}` goes on after its end: were two archives joined?",
                hint="join archives with `tar --concatenate`, or leave them apart",
            )


def _cut(shown: str, what: str) -> NoReturn:
    raise SourceError(f"`{shown}` is cut short: {what}", hint="copy or download it again")
