"""PNGs: every depth and colour type, transparency, interlacing, animation, and what is broken in them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from museum.picture import Exhibit, UInt8, colours, exif, greys, over_white, refused, shown, stored

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
SAMPLES = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
TABLE = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]], np.uint8)


def chunk(name: bytes, body: bytes) -> bytes:
    """Return a chunk with its length and check sum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(
    values: Any,
    depth: int = 8,
    kind: int = RGB,
    *,
    before: Sequence[bytes] = (),
    after: Sequence[bytes] = (),
    interlaced: bool = False,
    filters: Sequence[int] = (0,),
    size: tuple[int, int] | None = None,
) -> bytes:
    """Return a PNG of `values` (H x W, or H x W x samples) of `depth` bits, each row by the next of `filters`."""
    values = np.asarray(values, np.int64)
    values = values.reshape(*values.shape[:2], SAMPLES[kind])
    height, width = size or values.shape[:2]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, int(interlaced)))
    data = b"".join(_rows(part, depth, filters) for part in (_adam7(values) if interlaced else [values]))
    return b"".join((SIGNATURE, header, *before, chunk(b"IDAT", zlib.compress(data)), *after, chunk(b"IEND", b"")))


def _adam7(values: Any) -> list[Any]:
    """Return the seven reduced images of PNG, section 8.2, without empty ones."""
    steps = ((0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1))
    return [part for y, dy, x, dx in steps if (part := values[y::dy, x::dx]).size]


def _rows(values: Any, depth: int, filters: Sequence[int]) -> bytes:
    out, previous = [], None
    step = max(values.shape[2] * depth // 8, 1)
    for number, row in enumerate(values.reshape(len(values), -1)):
        if depth == 16:
            raw = row.astype(">u2").tobytes()
        elif depth == 8:
            raw = row.astype(np.uint8).tobytes()
        else:
            bits = "".join(format(int(value), f"0{depth}b") for value in row)
            bits += "0" * (-len(bits) % 8)
            raw = int(bits, 2).to_bytes(len(bits) // 8, "big")
        kind = filters[number % len(filters)]
        out.append(bytes([kind]) + _filtered(raw, previous or bytes(len(raw)), step, kind))
        previous = raw
    return b"".join(out)


def _filtered(raw: bytes, above: bytes, step: int, kind: int) -> bytes:
    """Return a row by filter `kind`: PNG, section 9.2."""
    out = bytearray()
    for k, byte in enumerate(raw):
        left, corner = (raw[k - step], above[k - step]) if k >= step else (0, 0)
        guess = left + above[k] - corner
        by_distance = [
            (abs(guess - left), 0, left),
            (abs(guess - above[k]), 1, above[k]),
            (abs(guess - corner), 2, corner),
        ]
        taken_off = (0, left, above[k], (left + above[k]) // 2, min(by_distance)[2])[kind]
        out.append((byte - taken_off) % 256)
    return bytes(out)


def exhibits() -> Iterator[Exhibit]:
    """Yield all of them."""
    yield from kinds()
    yield from transparency()
    yield from surroundings()
    yield from damages()


def kinds() -> Iterator[Exhibit]:
    """Yield each depth and colour type, interlaced and not, filtered in each way."""
    for depth in (1, 2, 4, 8, 16):
        top = 2**depth - 1
        ramp = greys(9, 13).astype(np.int64) * top // 255
        levels = (ramp * 255 + top // 2) // top  # rounded to nearest, which is exact but for 16 bits
        for interlaced in (False, True):
            how = " interlaced" * interlaced
            yield shown(f"grey {depth} bit{how}.png", png(ramp, depth, GREY, interlaced=interlaced), levels)
    indices = np.arange(9 * 13).reshape(9, 13)
    for depth in (1, 2, 4, 8):
        table = np.stack([np.arange(2**depth) * 7 % 256, 255 - np.arange(2**depth), np.arange(2**depth) // 2], 1)
        few = indices % 2**depth
        for interlaced in (False, True):
            data = png(
                few, depth, PALETTE, before=[chunk(b"PLTE", table.astype(np.uint8).tobytes())], interlaced=interlaced
            )
            yield shown(f"palette {depth} bit{' interlaced' * interlaced}.png", data, table[few])
    for interlaced in (False, True):
        how = " interlaced" * interlaced
        yield shown(f"colour 8 bit{how}.png", png(colours(), interlaced=interlaced), colours())
        deep = colours().astype(np.int64) * 256 + 77
        yield shown(f"colour 16 bit{how}.png", png(deep, 16, interlaced=interlaced), colours())
    for number, name in enumerate(("none", "sub", "up", "average", "Paeth")):
        yield shown(f"filter {name}.png", png(colours(), filters=[number]), colours())
    yield shown("all filters.png", png(colours(), filters=[4, 3, 2, 1, 0]), colours())
    for height, width in ((1, 1), (1, 20_000), (20_000, 1), (3, 2)):
        for interlaced in (False, True):
            pixels = greys(height, width) if height * width > 1 else np.array([[77]])
            yield shown(
                f"{height} by {width}{' interlaced' * interlaced}.png",
                png(pixels, 8, GREY, interlaced=interlaced),
                pixels,
            )


def transparency() -> Iterator[Exhibit]:
    """Yield alpha channels and transparent colours: hidden colours stay hidden, on white whatever bKGD says."""
    alpha = greys(12, 20)
    pixels = colours()
    rgba = np.concatenate([pixels, alpha[..., None]], axis=2)
    grey = np.stack([greys()[::-1], alpha], axis=2)
    yield shown("alpha 8 bit.png", png(rgba, 8, RGBA), over_white(pixels, alpha))
    yield shown("alpha 8 bit interlaced.png", png(rgba, 8, RGBA, interlaced=True), over_white(pixels, alpha))
    yield shown("alpha 16 bit.png", png(rgba.astype(np.int64) * 257, 16, RGBA), over_white(pixels, alpha))
    on_white = over_white(np.repeat(grey[..., :1], 3, axis=2), alpha)
    yield shown("grey alpha 8 bit.png", png(grey, 8, GREY_ALPHA), on_white)
    yield shown("grey alpha 16 bit.png", png(grey.astype(np.int64) * 257, 16, GREY_ALPHA), on_white)
    hidden = np.concatenate([pixels, np.zeros_like(alpha)[..., None]], axis=2)
    yield shown("nothing to be seen.png", png(hidden, 8, RGBA), np.full((12, 20), 255))
    background = chunk(b"bKGD", struct.pack(">HHH", 255, 0, 0))
    yield shown(
        "alpha over red by its own wish.png", png(rgba, 8, RGBA, before=[background]), over_white(pixels, alpha)
    )
    for depth in (1, 2, 4, 8, 16):
        top = 2**depth - 1
        values = np.array([[0, 1, top - 1, top]])
        levels = np.where(values == 1, 255, (values * 255 + top // 2) // top)
        yield shown(
            f"grey {depth} bit, one of them transparent.png",
            png(values, depth, GREY, before=[chunk(b"tRNS", b"\0\1")]),
            levels,
        )
    clear = pixels.copy()
    clear[3, 4] = 255
    for depth, factor in ((8, 1), (16, 256)):
        key = chunk(b"tRNS", struct.pack(">HHH", *(int(value) * factor for value in pixels[3, 4])))
        yield shown(
            f"colour {depth} bit, one of them transparent.png",
            png(pixels.astype(np.int64) * factor, depth, before=[key]),
            clear,
        )
    indices = np.arange(12).reshape(3, 4) % 4
    table = chunk(b"PLTE", TABLE.tobytes())
    for name, alphas in (
        ("one transparent", [0]),
        ("third transparent", [255, 255, 0]),
        ("each another", [0, 64, 128, 255]),
        ("none", []),
    ):
        full = np.array([*alphas, *[255] * (4 - len(alphas))])
        data = png(indices, 2, PALETTE, before=[table, chunk(b"tRNS", bytes(alphas))])
        yield shown(f"palette, {name}.png", data, over_white(TABLE[indices], full[indices]))


def surroundings() -> Iterator[Exhibit]:
    """Yield pictures with chunks that change nothing, with EXIF, with more pictures."""
    pixels = colours()
    for name, one in (
        ("gamma", chunk(b"gAMA", struct.pack(">I", 100_000))),
        ("sRGB", chunk(b"sRGB", b"\0")),
        ("ICC profile", chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(500)))),
        ("broken ICC profile", chunk(b"iCCP", b"x\0\0junk")),
        ("significant bits", chunk(b"sBIT", b"\5\5\5")),
        ("text", chunk(b"tEXt", b"Comment\0hello")),
        ("much text", chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(900_000)))),
        ("international text", chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta/>")),
        ("unknown chunk", chunk(b"liNe", bytes(50))),
        (
            "time and pixel size",
            chunk(b"tIME", bytes([7, 234, 1, 1, 0, 0, 0])) + chunk(b"pHYs", struct.pack(">IIB", 1, 9, 0)),
        ),
        ("suggested palette", chunk(b"PLTE", TABLE.tobytes())),
    ):
        yield shown(f"{name}.png", png(pixels, before=[one]), pixels)
    for orientation in range(1, 9):
        data = png(stored(pixels, orientation), before=[chunk(b"eXIf", exif(orientation))])
        yield shown(f"EXIF orientation {orientation}.png", data, pixels)
    turned = stored(pixels, 6)
    yield shown("EXIF behind the pixels.png", png(turned, after=[chunk(b"eXIf", exif(6))]), pixels)
    yield shown("EXIF that is none.png", png(pixels, before=[chunk(b"eXIf", b"junk" * 9)]), pixels)
    data = png(pixels)
    idat = data.index(b"IDAT") - 4
    body = data[idat + 8 : data.index(b"IEND") - 8]
    parts = b"".join(chunk(b"IDAT", body[k : k + 7]) for k in range(0, len(body), 7))
    yield shown("pixels in pieces.png", data[:idat] + parts + chunk(b"IEND", b""), pixels)
    empty = chunk(b"IDAT", b"")
    yield shown("empty pieces between.png", data[:idat] + empty + parts + chunk(b"IEND", b""), pixels)
    yield shown("junk behind.png", data + bytes(range(256)), pixels)
    yield shown("without its end.png", data[:-12], pixels)
    yield shown("a JPEG behind.png", data + b"\xff\xd8\xff\xe0" + bytes(99), pixels)
    for name, first in (("first frame shown", True), ("first frame not of the animation", False)):
        yield shown(f"animation, {name}.png", _animation(pixels, 255 - pixels, first=first), pixels)
    for ending in ("jpg", "jpeg", "gif", "bmp", "tif", "webp", "pgm"):
        yield shown(f"a PNG named.{ending}", data, pixels)


def _animation(first_frame: UInt8, second_frame: UInt8, *, first: bool) -> bytes:
    """Return an APNG of two frames; unless `first`, the picture itself is not one of them."""
    height, width = first_frame.shape[:2]
    num_frames = 1 + first

    def control(number: int) -> bytes:
        return chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, width, height, 0, 0, 1, 10, 0, 0))

    before = [chunk(b"acTL", struct.pack(">II", num_frames, 0)), *([control(0)] if first else [])]
    later = zlib.compress(_rows(second_frame.astype(np.int64), 8, (0,)))
    after = [control(int(first)), chunk(b"fdAT", struct.pack(">I", 1 + first) + later)]
    return png(first_frame, before=before, after=after)


def damages() -> Iterator[Exhibit]:
    """Yield what was cut, changed or made to harm."""
    data, pixels = png(colours()), colours()
    for percent in (5, 25, 50, 75, 90):
        yield refused(
            f"cut at {percent} percent.png",
            data[: len(data) * percent // 100],
            "cut short PNG" if percent > 9 else "damaged PNG",
        )
    yield refused("only a signature.png", SIGNATURE, "damaged PNG")
    idat = data.index(b"IDAT") - 4
    yield refused("no pixels.png", data[:idat] + chunk(b"IEND", b""), "damaged PNG")
    yield refused("no header.png", SIGNATURE + data[33:], "damaged PNG")
    flipped = bytearray(data)
    flipped[idat + 20] ^= 1
    yield refused("a bit flipped in its pixels.png", bytes(flipped), "damaged PNG")
    yield refused("a wrong check sum.png", data[:-16] + bytes(4) + data[-12:], "damaged PNG")
    yield refused("fewer rows than it says.png", png(pixels, size=(40, 20)), "cut short PNG")
    yield refused("no palette.png", png(greys(), 8, PALETTE), "damaged PNG")
    short = [chunk(b"PLTE", TABLE.tobytes())]
    few = np.array([[0, 3, 200]])
    yield shown(
        "beyond its palette.png",
        png(few, 8, PALETTE, before=short),
        np.concatenate([TABLE[[0, 3]], np.zeros((1, 3))])[None],
    )
    for name, height, width in (("width 0", 4, 0), ("height 0", 0, 4)):
        yield refused(f"{name}.png", png(pixels, size=(height, width)), "damaged PNG")
    for depth, kind in ((3, GREY), (16, PALETTE), (4, RGB), (8, 5)):
        head = SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 20, 12, depth, kind, 0, 0, 0)) + data[33:]
        yield refused(f"depth {depth} of colour type {kind}.png", head, "damaged PNG")
    for side in (60_000, 2**31 - 1):
        yield refused(
            f"{side} by {side} pixels.png",
            png(pixels, size=(side, side)),
            f"it has {side:,} x {side:,} pixels, more than",
        )
    yield refused(
        "50 million and some pixels.png",
        png(greys(), 8, GREY, size=(7072, 7072)),
        "it has 7,072 x 7,072 pixels, more than the 50,000,000 accepted",
    )
    twice = data[:33] + chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, RGB, 0, 0, 0)) + data[33:]
    yield refused("two headers.png", twice, "damaged PNG (it has two headers)")
    late = SIGNATURE + chunk(b"tEXt", b"a\0b") + data[8:]
    yield refused("something before its header.png", late, "damaged PNG (it does not begin with its header)")
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2 * 2**20)))
    yield refused("text that grows.png", png(pixels, before=[text]), "damaged PNG")
    bomb = zlib.compress(bytes(30 * 2**20))
    yield shown(
        "more rows than it says.png", data[:idat] + chunk(b"IDAT", bomb) + chunk(b"IEND", b""), np.zeros((12, 20))
    )
    raw = zlib.compressobj(wbits=-15)
    apple = chunk(b"IDAT", raw.compress(_rows(pixels.astype(np.int64), 8, (0,))) + raw.flush())
    own = SIGNATURE + chunk(b"CgBI", bytes(4)) + data[8:idat] + apple + chunk(b"IEND", b"")
    yield refused("of Apple's own kind (CgBI).png", own, "damaged PNG")
