"""What Pillow does not look at in a PNG: check sums of the pixels, a missing palette, pixels that end too early."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from linne.data.images.headers import counted_part
from linne.errors import ImageError

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PALETTE = 3
_ADAM7 = ((0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1))
"""PNG, section 8.2: first row, step, first column, step of each of the seven images of an interlaced one."""
_PIECE_BYTES = 2**20


def check(data: bytes) -> None:
    """Raise ImageError when a chunk of pixels was changed, header or palette is misplaced, or chunks are too many."""
    if data[12:16] != b"IHDR" or len(data) < 33 or data[25] not in _SAMPLES:
        raise ImageError("damaged PNG (it does not begin with its header)")
    has_palette = data[25] != _PALETTE
    for name, start, end in _chunks(data):
        if name == b"IHDR" and start > 16:
            raise ImageError("damaged PNG (it has two headers)")
        if name == b"PLTE":
            has_palette = True
        elif name == b"IDAT":
            if not has_palette:
                raise ImageError("damaged PNG (it has no palette)")
            if zlib.crc32(memoryview(data)[start - 4 : end]) != int.from_bytes(data[end : end + 4]):
                raise ImageError("damaged PNG (the check sum of its pixels is wrong)")


def check_rows(data: bytes) -> None:
    """Raise ImageError when the packed pixels end before the last row, of which Pillow says nothing.

    Unpacks them, which takes half as long as decoding.
    """
    width, height, depth, kind = struct.unpack_from(">IIBB", data, 16)
    bits = depth * _SAMPLES[kind]
    parts = _ADAM7 if data[28] else ((0, 1, 0, 1),)
    sizes = [(len(range(y, height, dy)), len(range(x, width, dx))) for y, dy, x, dx in parts]
    missing = sum(rows * (1 + (columns * bits + 7) // 8) for rows, columns in sizes if columns)
    unpacker = zlib.decompressobj()
    for name, start, end in _chunks(data):
        packed = data[start:end] if name == b"IDAT" else b""
        try:
            while packed and missing > 0:
                missing -= len(unpacker.decompress(packed, _PIECE_BYTES))
                packed = unpacker.unconsumed_tail
        except zlib.error as error:
            raise ImageError(f"damaged PNG ({error})") from error
    if missing > 0:
        raise ImageError("cut short PNG (its pixels end before its last row)")


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name of each whole chunk up to the end of the image, and where its body starts and ends."""
    position, num_chunks = 8, 0
    while position + 12 <= len(data):
        name, end = data[position + 4 : position + 8], position + 8 + int.from_bytes(data[position : position + 4])
        if end + 4 > len(data) or name == b"IEND":
            return
        num_chunks = counted_part(num_chunks, "PNG")
        yield name, position + 8, end
        position = end + 4
