"""What an encoded image says about itself beside its pixels: format, transparency, colour model, animation, turn.

Only headers are walked. Everything here takes hostile bytes: every read is bounds-checked, every loop moves forward.
"""

from __future__ import annotations

import os
import struct

from linne.data.images.headers import exif_orientation, sniff

ANIMATED, ALPHA, CMYK, DEEP, TURNED, PROFILE = (1 << k for k in range(6))
"""Flags: several frames, transparency, four inks, more than 8 bits, an EXIF turn, an embedded colour profile."""

_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
_FORMAT_OF = {suffix: kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes}
_MAX_STEPS = 100_000
"""Segments or blocks walked in one file; real ones have a few, hostile ones millions of empty ones."""


def describe(data: bytes) -> tuple[str | None, int]:
    """Return the format of an encoded image (None for no known one) and the flags that hold for it."""
    kind = sniff(data)
    walk = {"JPEG": _jpeg, "PNG": _png, "GIF": _gif, "WEBP": _webp, "TIFF": _tiff}.get(kind or "")
    try:
        return kind, walk(data) if walk else 0
    except (struct.error, IndexError):  # cut short: decoding says so
        return kind, 0


def named_otherwise(name: str, kind: str | None) -> bool:
    """Return whether the ending of `name` is that of another image format than `kind`."""
    stated = _FORMAT_OF.get(os.path.splitext(name)[1].lower())
    return kind is not None and stated is not None and stated != kind


def _turn(exif: bytes) -> int:
    return TURNED if exif_orientation(exif) != 1 else 0


def _jpeg(data: bytes) -> int:
    flags, position = 0, 2
    for _ in range(_MAX_STEPS):
        if data[position] != 0xFF:
            break
        marker = data[position + 1]
        if marker == 0xFF:  # padding, allowed before any marker
            position += 1
            continue
        if marker in (0xD9, 0xDA):  # the end, or the scan begins
            break
        (length,) = struct.unpack_from(">H", data, position + 2)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame: precision, size, components
            flags |= (data[position + 4] > 8) * DEEP | (data[position + 9] == 4) * CMYK
        elif marker == 0xE1 and data.startswith(b"Exif\0\0", position + 4) and not flags & TURNED:
            flags |= _turn(data[position + 4 : position + 2 + length])
        elif marker == 0xE2 and data.startswith(b"ICC_PROFILE\0", position + 4):
            flags |= PROFILE
        position += 2 + max(length, 2)
    return flags


def _png(data: bytes) -> int:
    depth, colour = data[24], data[25]
    flags = (depth == 16) * DEEP | (colour in (4, 6)) * ALPHA
    position = 8
    for _ in range(_MAX_STEPS):
        (length,) = struct.unpack_from(">I", data, position)
        kind = data[position + 4 : position + 8]
        if kind == b"IEND":
            break
        if kind == b"eXIf":
            flags |= _turn(data[position + 8 : position + 8 + length])
        elif kind == b"acTL":
            flags |= (data[position + 8 : position + 12] > b"\0\0\0\1") * ANIMATED
        flags |= {b"tRNS": ALPHA, b"iCCP": PROFILE}.get(kind, 0)
        position += 12 + length
    return flags


def _gif(data: bytes) -> int:
    flags, num_frames = 0, 0
    position = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    for _ in range(_MAX_STEPS):
        block = data[position]
        if block == 0x21:  # an extension; 0xF9 is graphic control, whose first bit says transparent
            if data[position + 1] == 0xF9 and data[position + 3] & 1 and num_frames == 0:  # the first frame's
                flags |= ALPHA
            position += 2
        elif block == 0x2C:  # a frame: nine bytes, a palette, the code size
            num_frames += 1
            if num_frames == 2:
                return flags | ANIMATED
            packed = data[position + 9]
            position += 11 + (3 << (packed & 7) + 1 if packed & 0x80 else 0)
        else:
            break
        while data[position]:
            position += 1 + data[position]
        position += 1
    return flags


def _webp(data: bytes) -> int:
    if data[12:16] == b"VP8L":
        return (data[24] >> 4 & 1) * ALPHA
    if data[12:16] != b"VP8X":
        return 0
    said = data[20]
    flags = (said >> 1 & 1) * ANIMATED | (said >> 4 & 1) * ALPHA | (said >> 5 & 1) * PROFILE
    position = 12
    for _ in range(_MAX_STEPS if said >> 3 & 1 else 0):
        (length,) = struct.unpack_from("<I", data, position + 4)
        if data[position : position + 4] == b"EXIF":
            return flags | _turn(data[position + 8 : position + 8 + length])
        position += 8 + length + (length & 1)
    return flags


def _tiff(data: bytes) -> int:
    order = "<" if data[:1] == b"I" else ">"
    if data[2:4] in (b"+\0", b"\0+"):  # BigTIFF: rare, and decoding reads it
        return 0
    (start,) = struct.unpack_from(order + "I", data, 4)
    (num_entries,) = struct.unpack_from(order + "H", data, start)
    flags: int = 0
    for entry in range(start + 2, start + 2 + 12 * num_entries, 12):
        tag, kind, count, value = struct.unpack_from(order + "HHIH", data, entry)
        if tag == 258:  # bits a sample; several are kept elsewhere
            if count > 2:
                (offset,) = struct.unpack_from(order + "I", data, entry + 8)
                (value,) = struct.unpack_from(order + "H", data, offset)
            flags |= DEEP if int(value) > 8 else 0
        elif kind == 3 and count == 1:
            flags |= (tag == 262 and value == 5) * CMYK | (tag == 274 and 2 <= value <= 8) * TURNED
            flags |= (tag == 338 and value in (1, 2)) * ALPHA
        flags |= (tag == 34675) * PROFILE
    (following,) = struct.unpack_from(order + "I", data, start + 2 + 12 * num_entries)
    return flags | (ANIMATED if following else 0)
