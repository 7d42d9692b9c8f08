"""What an image file's first bytes say, read without a decoder: format, size, orientation.

Everything here takes hostile bytes: every read is bounds-checked, nothing is allocated from a length in the file.
"""

from __future__ import annotations

import struct
from mmap import mmap

from linne.errors import ImageError

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")

MAX_PARTS = 100_000
"""Chunks of a PNG, or blocks before a GIF's first frame; real files have some dozens, and one of 256 MiB of pixels
32,000. Each costs a step of Python, here and in Pillow."""

_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
}
_OTHERS = {
    b"MM\0+": "a big-endian BigTIFF",  # Pillow knows the little-endian ones only
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"8BPS": "a Photoshop document",
    b"\0\0\x01\0": "an icon",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xffO\xffQ": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\n": "JPEG XL",
    b"version https://git-lfs": "a Git LFS pointer, not the file it stands for",
}
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC"}
_ORIENTATION_TAG, _SHORT = 0x0112, 3
_TIFF_TYPE_BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
"""TIFF 6.0, section 2, and BigTIFF's 16 to 18; the rest are one byte or unknown."""


def sniff(data: bytes) -> str | None:
    """Return which of `FORMATS` the bytes `data` begin as, whatever the file is called; None for any other."""
    for signature, kind in _SIGNATURES.items():
        if data.startswith(signature):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    is_netpbm = len(data) > 2 and data[:1] == b"P" and data[1] in b"123456" and data[2] in b" \t\r\n\v\f#"
    return "PPM" if is_netpbm else None


def looks_like(data: bytes) -> str:
    """Return what bytes that `sniff` does not know seem to be, for an error message: `HTML`, `HEIC`, `text`."""
    for signature, what in _OTHERS.items():
        if data.startswith(signature):
            return what
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "a video")
    opening = data[:512].lstrip().lower()
    if opening.startswith((b"<!doctype html", b"<html")):
        return "HTML"
    if b"<svg" in opening:
        return "SVG"
    is_text = bool(opening) and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in opening)
    return "text" if is_text else "no image format known here"


def gif_size(data: bytes | mmap) -> tuple[int, int] | None:
    """Return (width, height) of the canvas that a GIF's screen and first frame span; None where it has no frame."""
    frame = gif_frame(data)
    if frame is None:
        return None
    screen_W, screen_H = struct.unpack_from("<HH", data, 6)
    return max(screen_W, frame[2]), max(screen_H, frame[3])


def gif_frame(data: bytes | mmap) -> tuple[int, int, int, int] | None:
    """Return left, top, right and bottom of a GIF's first frame on its canvas; None where it has no frame.

    Raises:
        ImageError: more than `MAX_PARTS` blocks, or bytes that are none, come before it.
    """
    if len(data) < 13:
        return None
    flags, num_parts = data[10], 0
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while position < len(data) and data[position] != 0x2C:  # an image descriptor
        if data[position] == 0x21:  # an extension: its kind, then blocks that each say their length
            position += 2
            while position < len(data) and data[position]:
                position += 1 + data[position]
                num_parts = counted_part(num_parts, "GIF")
        position += 1
        num_parts = counted_part(num_parts, "GIF")
    if position + 9 > len(data):
        return None
    left, top, width, height = struct.unpack_from("<HHHH", data, position + 1)
    return left, top, left + width, top + height


def counted_part(num_parts: int, kind: str) -> int:
    """Return one more than `num_parts`.

    Raises:
        ImageError: that is more than `MAX_PARTS`.
    """
    if num_parts >= MAX_PARTS:
        raise ImageError(f"it has more than {MAX_PARTS:,} parts: such {kind}s are made to take long")
    return num_parts + 1


def webp_size(data: bytes | mmap) -> tuple[int, int] | None:
    """Return (width, height) of a WebP's canvas; None where the header is cut or damaged."""
    chunk = data[12:16]
    if chunk == b"VP8X" and len(data) >= 30:
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if chunk == b"VP8 " and len(data) >= 30:
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if chunk == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return None


def tiff_is_whole(data: bytes | mmap) -> bool:
    """Return whether the tags of a TIFF's first image, and what they point to, lie within `data`.

    Pillow skips tags that do not, with a warning, and reads the pixels by the defaults of what it skipped.
    """
    order, big = "<" if data[:1] == b"I" else ">", data[2:4] in (b"+\0", b"\0+")
    pointer, counter, inline = ("Q", "Q", 8) if big else ("I", "H", 4)
    entry = struct.Struct(f"{order}HH{pointer}{pointer}")
    try:
        (start,) = struct.unpack_from(order + pointer, data, inline)
        (num_entries,) = struct.unpack_from(order + counter, data, start)
        start += struct.calcsize(counter)
        if start + num_entries * entry.size + inline > len(data):
            return False
        for position in range(start, start + num_entries * entry.size, entry.size):
            _, kind, count, offset = entry.unpack_from(data, position)
            size = _TIFF_TYPE_BYTES.get(kind, 0) * count
            if size > inline and offset + size > len(data):
                return False
    except (struct.error, OverflowError):
        return False
    return True


def split_jpeg(data: bytes) -> tuple[bytes, int]:
    """Return a JPEG without its metadata, and its EXIF orientation (1-8).

    Metadata is APP1 to APP13, APP15 and comments: EXIF, XMP, ICC profile, thumbnails, the index of a multi-picture
    file. JFIF (APP0) and Adobe (APP14) segments stay, they decide colours. Anything unexpected is left as it is.
    """
    kept, orientation, position = [data[:2]], 1, 2
    while data[position : position + 1] == b"\xff":
        marker = data[position + 1 : position + 2]
        if marker == b"\xff":  # padding, allowed before any marker
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        end = position + 2 + length
        if not b"\xc0" <= marker <= b"\xfe" or b"\xd0" <= marker <= b"\xda" or length < 2 or end > len(data):
            break  # the scan begins, or what follows is not a segment
        if marker == b"\xe1" and orientation == 1 and data.startswith(b"Exif\0\0", position + 4):
            orientation = exif_orientation(data[position + 4 : end])
        if not (b"\xe1" <= marker <= b"\xef" or marker == b"\xfe") or marker == b"\xee":
            kept.append(data[position:end])
        position = end
    return b"".join((*kept, data[position:])), orientation


def exif_orientation(exif: bytes) -> int:
    """Return the orientation (1-8) that an EXIF block states for the main image, 1 where it states none or nonsense.

    Values as in the Exif 2.32 standard, tag 0x0112: 6 means that the top of the scene is the image's right edge.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return 1
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    if start + 2 > len(tiff):
        return 1
    (num_entries,) = struct.unpack_from(order + "H", tiff, start)
    for position in range(start + 2, min(start + 2 + 12 * num_entries, len(tiff) - 11), 12):
        tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, position)
        if tag == _ORIENTATION_TAG:
            return value if kind == _SHORT and 1 <= value <= 8 else 1
    return 1
