"""Damaged images without end: case N of a seed is always the same, made from an exhibit of the museum."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from functools import cache

from museum import exhibits

LARGEST_BYTES = 6000
"""Of an exhibit that is damaged further: larger ones take longer and teach no more."""
KINDS = ("jpg", "png", "gif", "bmp", "webp", "tif", "ppm", "pgm", "pbm")
_NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    8,
    15,
    16,
    127,
    128,
    255,
    256,
    4096,
    32767,
    32768,
    65535,
    65536,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
)


@cache
def parents() -> dict[str, tuple[tuple[str, bytes], ...]]:
    """Return name and content of the exhibits that are damaged further, by ending."""
    small = [exhibit for exhibit in exhibits() if 10 < len(exhibit.data) <= LARGEST_BYTES]
    return {kind: tuple((e.name, e.data) for e in small if e.name.endswith(f".{kind}")) for kind in KINDS}


def mutated(seed: int, number: int) -> tuple[str, bytes]:
    """Return the name of the exhibit that case `number` comes from, and its damaged content."""
    draw = random.Random(f"{seed}/{number}")
    kind = KINDS[number % len(KINDS)]
    name, content = draw.choice(parents()[kind])
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4, 12))):
        special = _SPECIAL.get(kind)
        change = special if special is not None and draw.random() < 0.35 else draw.choice(_CHANGES)
        change(data, draw)
    if kind == "png" and draw.random() < 0.7:
        data = _with_right_sums(data)
    return name, bytes(data[: 4 * LARGEST_BYTES])


Change = Callable[[bytearray, random.Random], None]


def _place(data: bytearray, draw: random.Random) -> int:
    """Return a position, more often near the start, where the headers are."""
    return draw.randrange(max(len(data), 1) if draw.random() < 0.5 else max(min(len(data), 80), 1))


def _flip(data: bytearray, draw: random.Random) -> None:
    if data:
        data[_place(data, draw)] ^= 1 << draw.randrange(8)


def _set(data: bytearray, draw: random.Random) -> None:
    if data:
        data[_place(data, draw)] = draw.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, draw.randrange(256)))


def _number(data: bytearray, draw: random.Random) -> None:
    """Write a number that programs trip over, in 2 or 4 bytes of either order."""
    layout = draw.choice(("<H", ">H", "<I", ">I"))
    place = _place(data, draw)
    packed = struct.pack(layout, draw.choice(_NUMBERS) % (1 << 8 * struct.calcsize(layout)))
    data[place : place + len(packed)] = packed


def _cut(data: bytearray, draw: random.Random) -> None:
    del data[_place(data, draw) :]


def _drop(data: bytearray, draw: random.Random) -> None:
    place = _place(data, draw)
    del data[place : place + draw.randrange(1, 60)]


def _insert(data: bytearray, draw: random.Random) -> None:
    place = _place(data, draw)
    data[place:place] = draw.randbytes(draw.randrange(1, 40))


def _repeat(data: bytearray, draw: random.Random) -> None:
    place, length = _place(data, draw), draw.randrange(1, 300)
    data[place:place] = bytes(data[place : place + length]) * draw.choice((1, 2, 9))


def _fill(data: bytearray, draw: random.Random) -> None:
    place, length = _place(data, draw), draw.randrange(1, 200)
    data[place : place + length] = bytes([draw.choice((0, 0xFF, 0xAA))]) * length


def _splice(data: bytearray, draw: random.Random) -> None:
    """Continue with the rest of another exhibit, of any format."""
    _, other = draw.choice(parents()[draw.choice(KINDS)])
    place = _place(data, draw)
    data[place:] = other[min(place, len(other)) if draw.random() < 0.7 else 0 :]


def _jpeg(data: bytearray, draw: random.Random) -> None:
    """Insert, repeat or resize a segment: frames, scans, tables, restarts."""
    marks = [k for k in range(2, len(data) - 9) if data[k] == 0xFF and 0xC0 <= data[k + 1] <= 0xFE]
    if not marks:
        return
    place = draw.choice(marks)
    way = draw.randrange(5)
    if way == 0:
        data[place + 1] = draw.choice(
            (0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC9, 0xCC, 0xD0, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xEE)
        )
    elif way == 1:
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        data[place:place] = bytes(data[place:end]) * draw.choice((1, 3, 30))
    elif way == 2:
        frames = [k for k in marks if data[k + 1] in (0xC0, 0xC1, 0xC2, 0xC3, 0xC9)]
        for frame in frames[:1]:
            data[frame + 5 : frame + 9] = struct.pack(">HH", *draw.choices((0, 1, 7, 8, 9, 17, 255, 4000, 65535), k=2))
    elif way == 3:
        body = draw.randbytes(draw.randrange(1, 30))
        data[place:place] = bytes([0xFF, draw.randrange(0xC0, 0xFF)]) + struct.pack(">H", len(body) + 2) + body
    else:
        data[place + 2 : place + 4] = struct.pack(">H", draw.choice((0, 1, 2, 3, 8, 255, 65535)))


def _png(data: bytearray, draw: random.Random) -> None:
    """Insert, repeat, drop, swap or change a chunk, or the header's fields."""
    spans = _chunks(data)
    if not spans:
        return
    start, end = draw.choice(spans)
    way = draw.randrange(5)
    if way == 0:
        data[start:start] = bytes(data[start:end]) * draw.choice((1, 2, 20))
    elif way == 1:
        del data[start:end]
    elif way == 2:
        field = draw.choice((16, 20))
        data[field : field + 4] = struct.pack(">I", draw.choice((0, 1, 2, 11, 13, 19, 21, 300, 7000, 2**31)))
    elif way == 3:
        data[24:29] = bytes(draw.choice(one) for one in ((1, 2, 4, 8, 16), (0, 2, 3, 4, 6), (0, 1), (0, 1), (0, 1, 2)))
    else:
        name = draw.choice((b"tRNS", b"PLTE", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"iCCP", b"zTXt", b"IDAT", b"IEND"))
        body = draw.randbytes(draw.randrange(30))
        data[start:start] = struct.pack(">I", len(body)) + name + body + bytes(4)


def _chunks(data: bytearray) -> list[tuple[int, int]]:
    spans, position = [], 8
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        if end > len(data):
            break
        spans.append((position, end))
        position = end
    return spans


def _with_right_sums(data: bytearray) -> bytearray:
    """Return a PNG whose chunks have the check sums of what is in them, so that decoders go on to read it."""
    for start, end in _chunks(data):
        data[end - 4 : end] = struct.pack(">I", zlib.crc32(data[start + 4 : end - 4]))
    return data


def _tiff(data: bytearray, draw: random.Random) -> None:
    """Change a tag, its type, its count or its value."""
    if len(data) < 16:
        return
    order = "<" if data[:1] == b"I" else ">"
    start = struct.unpack_from(order + "I", data, 4)[0]
    if start + 2 > len(data):
        return
    count = struct.unpack_from(order + "H", data, start)[0]
    entry = start + 2 + 12 * draw.randrange(max(min(count, 40), 1))
    if entry + 12 > len(data):
        return
    field, layout, values = draw.choice(
        (
            (0, "H", (254, 256, 257, 258, 259, 262, 273, 274, 277, 278, 279, 284, 317, 320, 322, 324, 338, 339, 34665)),
            (2, "H", tuple(range(19))),
            (4, "I", (0, 1, 2, 3, 4, 1000, 65535, 2**31)),
            (8, "I", (0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 32, 300, 7000, 32773, 34712, 50000, 2**32 - 1)),
            (8, "H", (0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 32, 300, 7000, 32773, 34712, 50000, 65535)),
        )
    )
    struct.pack_into(order + layout, data, entry + field, draw.choice(values))


def _sizes(data: bytearray, draw: random.Random) -> None:
    """Change what GIF, BMP and WebP headers say of sizes and frames."""
    sides = (0, 1, 2, 11, 13, 19, 21, 255, 300, 7000, 65535)
    if data[:3] == b"GIF" and len(data) > 20:
        frame = data.find(b",", 13)
        place = 6 if frame < 0 or draw.random() < 0.5 else frame + draw.choice((1, 5))
        data[place : place + 4] = struct.pack("<HH", *draw.choices(sides, k=2))
    elif data[:2] == b"BM" and len(data) > 60:
        place = draw.choice((10, 14, 18, 22, 28, 30, 46))
        data[place : place + 4] = struct.pack("<i", draw.choice((*sides, -1, -12, -(2**31))))
    elif data[:4] == b"RIFF" and len(data) > 40:
        place = draw.choice((4, 16, 20, 24, 27))
        data[place : place + 3] = draw.choice(sides).to_bytes(3, "little")


_CHANGES: tuple[Change, ...] = (_flip, _flip, _set, _number, _number, _cut, _drop, _insert, _repeat, _fill, _splice)
_SPECIAL: dict[str, Change] = {"jpg": _jpeg, "png": _png, "tif": _tiff, "gif": _sizes, "bmp": _sizes, "webp": _sizes}
