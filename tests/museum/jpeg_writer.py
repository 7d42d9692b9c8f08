"""JPEGs written bit by bit: blocks of one value each, so that what a decoder must show is known to the level."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
SOI, EOI = b"\xff\xd8", b"\xff\xd9"
JFIF = b"\xff\xe0" + struct.pack(">H5sHBHHBB", 16, b"JFIF\0", 0x0101, 0, 1, 1, 0, 0)


def adobe(transform: int) -> bytes:
    """Return Adobe's APP14: 0 as stored, 1 YCbCr, 2 YCCK."""
    return segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform))


def segment(marker: int, body: bytes) -> bytes:
    """Return a marker with what belongs to it."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


class Bits:
    """Bits of a scan, with a zero byte after each 0xFF."""

    def __init__(self) -> None:
        self.text: list[str] = []

    def put(self, value: int, length: int) -> None:
        """Add the `length` lowest bits of `value`."""
        if length:
            self.text.append(format(value & (1 << length) - 1, f"0{length}b"))

    def difference(self, value: int) -> None:
        """Add a difference: its category as 5 bits, then the bits of its size (T.81, F.1.2.1)."""
        category = abs(value).bit_length()
        self.put(category, 5)
        self.put(value if value >= 0 else value - 1, category)

    def bytes(self) -> bytes:
        """Return what was added, filled up with ones."""
        bits = "".join(self.text)
        bits += "1" * (-len(bits) % 8)
        raw = int(bits, 2).to_bytes(len(bits) // 8, "big") if bits else b""
        return raw.replace(b"\xff", b"\xff\0")


DC_TABLE, LOSSLESS_TABLE = (
    segment(0xC4, bytes([0x00]) + bytes([0, 0, 0, 0, count] + [0] * 11) + bytes(range(count))) for count in (16, 17)
)
"""Category k is the 5 bits of k."""
AC_TABLE = segment(0xC4, bytes([0x10]) + bytes([1] + [0] * 15) + b"\0")
"""One bit, 0: the rest of the block is zero."""


def frame(sof: int, precision: int, size: tuple[int, int], sampling: Sequence[tuple[int, int]], ids: bytes) -> bytes:
    """Return the frame header; `sampling` is (vertical, horizontal) a component."""
    parts = b"".join(bytes([i, h << 4 | v, 0]) for i, (v, h) in zip(ids, sampling, strict=True))
    return segment(sof, struct.pack(">BHHB", precision, *size, len(sampling)) + parts)


def scan_header(ids: bytes, first: int = 0, last: int = 63, bits: int = 0) -> bytes:
    """Return a scan header for components `ids`, coefficients `first` to `last`."""
    return segment(0xDA, bytes([len(ids)]) + b"".join(bytes([i, 0]) for i in ids) + bytes([first, last, bits]))


def jpeg(
    planes: Sequence[Any],
    *,
    size: tuple[int, int] | None = None,
    sof: int = 0xC0,
    precision: int = 8,
    sampling: Sequence[tuple[int, int]] | None = None,
    ids: bytes = b"\x01\x02\x03\x04",
    head: bytes = JFIF,
    restart: int = 0,
    interleaved: bool = True,
    wide_table: bool = False,
) -> bytes:
    """Return a JPEG whose component c has blocks of 8 x 8 equal samples `planes[c]`; whole MCUs only.

    Args:
        size: Height and width; by default all of the blocks.
        sof: 0xC0 baseline, 0xC1 extended, 0xC2 progressive: a scan of averages, then one a component that adds nothing.
        wide_table: Quantisation tables of 16 bits.
    """
    blocks = [np.asarray(plane, np.int64) - (1 << precision - 1) for plane in planes]
    sampling = sampling or [(1, 1)] * len(blocks)
    ids = ids[: len(blocks)]
    size = size or (8 * blocks[0].shape[0], 8 * blocks[0].shape[1])
    quantiser = bytes([0x10]) + struct.pack(">64H", *[8] * 64) if wide_table else bytes([0x00]) + bytes([8] * 64)
    out = [SOI, head, segment(0xDB, quantiser), frame(sof, precision, size, sampling, ids), DC_TABLE, AC_TABLE]
    if restart:
        out.append(segment(0xDD, struct.pack(">H", restart)))
    last = 0 if sof == 0xC2 else 63
    if interleaved:
        out += [scan_header(ids, 0, last), _scan(_in_mcus(blocks, sampling), len(blocks), restart, last > 0)]
    else:
        for number, plane in enumerate(blocks):
            order = [[(0, int(value))] for value in plane.ravel()]
            out += [scan_header(ids[number : number + 1], 0, last), _scan(order, 1, restart, last > 0)]
    if sof == 0xC2:
        for number, plane in enumerate(blocks):  # one bit a block: nothing finer follows
            finer = Bits()
            finer.text.append("0" * plane.size)
            out += [scan_header(ids[number : number + 1], 1, 63), finer.bytes()]
    return b"".join((*out, EOI))


def _in_mcus(blocks: Sequence[Ints], sampling: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Return (component, value) of the blocks of each MCU in turn."""
    if len(blocks) == 1:
        return [[(0, int(value))] for value in blocks[0].ravel()]
    rows, columns = blocks[0].shape[0] // sampling[0][0], blocks[0].shape[1] // sampling[0][1]
    return [
        [
            (c, int(plane[row * v + i, column * h + j]))
            for c, (plane, (v, h)) in enumerate(zip(blocks, sampling, strict=True))
            for i in range(v)
            for j in range(h)
        ]
        for row in range(rows)
        for column in range(columns)
    ]


def _scan(mcus: Sequence[Sequence[tuple[int, int]]], num_components: int, restart: int, with_ac: bool) -> bytes:
    out, bits, last = [], Bits(), [0] * num_components
    for number, mcu in enumerate(mcus):
        if restart and number and number % restart == 0:
            out += [bits.bytes(), bytes([0xFF, 0xD0 + (number // restart - 1) % 8])]
            bits, last = Bits(), [0] * num_components
        for component, value in mcu:
            bits.difference(value - last[component])
            last[component] = value
            if with_ac:
                bits.put(0, 1)
    return b"".join((*out, bits.bytes()))


def lossless(planes: Sequence[Any], *, precision: int = 8, head: bytes = b"", ids: bytes = b"\x01\x02\x03") -> bytes:
    """Return a lossless JPEG (SOF3) of samples: each is predicted by its left neighbour, the first by the one above."""
    arrays = [np.asarray(plane, np.int64) for plane in planes]
    height, width = arrays[0].shape
    ids, bits = ids[: len(arrays)], Bits()
    for y in range(height):
        for x in range(width):
            for plane in arrays:
                predicted = plane[y, x - 1] if x else plane[y - 1, 0] if y else 1 << precision - 1
                bits.difference(int(plane[y, x] - predicted))
    out = [SOI, head, frame(0xC3, precision, (height, width), [(1, 1)] * len(arrays), ids), LOSSLESS_TABLE]
    return b"".join((*out, scan_header(ids, 1, 0), bits.bytes(), EOI))


def blocks_of(values: Any) -> Ints:
    """Return samples of blocks: each value eight times in both directions."""
    return np.kron(np.asarray(values, np.int64), np.ones((8, 8), np.int64))


def to_rgb(luma: Any, blue: Any, red: Any) -> NDArray[np.uint8]:
    """Return RGB of YCbCr as ITU-T T.871 has it, in the 16-bit integers of libjpeg."""
    y, b, r = np.asarray(luma, np.int64), np.asarray(blue, np.int64) - 128, np.asarray(red, np.int64) - 128
    half = 1 << 15
    fix = [round(factor * 65536) for factor in (1.40200, 0.34414, 0.71414, 1.77200)]
    channels = [
        y + ((fix[0] * r + half) >> 16),
        y + ((-fix[1] * b - fix[2] * r + half) >> 16),
        y + ((fix[3] * b + half) >> 16),
    ]
    return np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8)
