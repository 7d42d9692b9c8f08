"""GIFs and WebPs: frames that are smaller than the canvas, transparency, animations, and what is broken in them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from museum.picture import Exhibit, UInt8, colours, exif, greys, over_white, refused, saved, shown, smooth, stored

TABLE = np.random.default_rng(5).integers(0, 256, (256, 3)).astype(np.uint8)
INDICES = np.arange(12 * 20).reshape(12, 20)
TRAILER = b";"


def gif(
    *blocks: bytes,
    size: tuple[int, int] = (12, 20),
    table: Any = TABLE,
    background: int = 0,
    version: bytes = b"GIF89a",
) -> bytes:
    """Return a GIF with a canvas of `size` (height, width) and these blocks."""
    bits = (len(table) - 1).bit_length() if len(table) else 0
    flags = 0x80 | bits - 1 if bits else 0
    screen = struct.pack("<HHBBB", size[1], size[0], flags, background, 0)
    return version + screen + np.asarray(table, np.uint8).tobytes() + b"".join(blocks) + TRAILER


def image(
    indices: Any, *, at: tuple[int, int] = (0, 0), table: Any = (), interlaced: bool = False, size: Any = None
) -> bytes:
    """Return a frame of palette `indices` whose upper left corner is `at` (row, column)."""
    indices = np.asarray(indices)
    height, width = size or indices.shape
    bits = (len(table) - 1).bit_length() if len(table) else 0
    flags = (0x80 | bits - 1 if bits else 0) | 0x40 * interlaced
    if interlaced:
        indices = np.concatenate([indices[0::8], indices[4::8], indices[2::4], indices[1::2]])
    descriptor = b"," + struct.pack("<HHHHB", at[1], at[0], width, height, flags)
    return descriptor + np.asarray(table, np.uint8).tobytes() + lzw(indices.ravel().tolist())


def lzw(values: Sequence[int]) -> bytes:
    """Return codes of 9 bits, never a word of two: a clear code comes before the codes would grow."""
    codes: list[int] = []
    for start in range(0, len(values), 250):
        codes += [256, *values[start : start + 250]]
    codes.append(257)
    number = sum(code << 9 * k for k, code in enumerate(codes))
    data = number.to_bytes(-(-9 * len(codes) // 8), "little")
    blocks = [data[k : k + 255] for k in range(0, len(data), 255)]
    return b"\x08" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def control(disposal: int = 0, transparent: int | None = None, delay: int = 5) -> bytes:
    """Return a graphic control extension."""
    flags = disposal << 2 | (transparent is not None)
    return b"!\xf9\x04" + struct.pack("<BHB", flags, delay, transparent or 0) + b"\0"


def exhibits() -> Iterator[Exhibit]:
    """Yield all of them."""
    yield from stills()
    yield from animations()
    yield from broken_gifs()
    yield from webps()


def on_canvas(frame: Any, at: tuple[int, int], outside: Any) -> UInt8:
    """Return `frame` on a canvas of 12 x 20 of colour `outside`."""
    canvas = np.empty((12, 20, 3), np.uint8)
    canvas[:] = outside
    canvas[at[0] : at[0] + len(frame), at[1] : at[1] + len(frame[0])] = frame
    return canvas


def stills() -> Iterator[Exhibit]:
    """Yield pictures of one frame."""
    seen = TABLE[INDICES]
    yield shown("a frame.gif", gif(image(INDICES)), seen)
    yield shown("GIF87a.gif", gif(image(INDICES), version=b"GIF87a"), seen)
    yield shown("interlaced.gif", gif(image(INDICES, interlaced=True)), seen)
    yield shown("its own colours.gif", gif(image(INDICES, table=TABLE[::-1])), TABLE[::-1][INDICES])
    yield shown("only its own colours.gif", gif(image(INDICES, table=TABLE), table=()), seen)
    grey = np.repeat(np.arange(256)[:, None], 3, axis=1)
    yield shown("grey colours.gif", gif(image(INDICES), table=grey), INDICES)
    yield shown("two colours.gif", gif(image(INDICES % 2), table=TABLE[:2]), TABLE[INDICES % 2])
    clear = seen.copy()
    clear[INDICES == 7] = 255
    yield shown("transparent.gif", gif(control(transparent=7), image(INDICES)), clear)
    yield shown("transparent colour that is not used.gif", gif(control(transparent=255), image(INDICES)), seen)
    yield shown("all transparent.gif", gif(control(transparent=3), image(np.full((12, 20), 3))), np.full((12, 20), 255))
    extras = b"!\xfe\x05hello\0" + b"!\xff\x0bNETSCAPE2.0\x03\1\0\0\0" + b"!\x01\x0c" + bytes(12) + b"\x02hi\0"
    yield shown("comments and extensions.gif", gif(extras, image(INDICES)), seen)
    small = INDICES[:5, :8]
    at = (3, 6)
    yield shown(
        "a small frame, transparent.gif",
        gif(control(transparent=200), image(small, at=at)),
        on_canvas(TABLE[small], at, 255),
    )
    yield shown(
        "a small frame on a background.gif",
        gif(image(small, at=at), background=9),
        on_canvas(TABLE[small], at, 255),
    )
    yield shown("a frame larger than the canvas.gif", gif(image(INDICES), size=(6, 8)), seen)
    yield shown("1 by 1.gif", gif(image([[5]]), size=(1, 1)), TABLE[[[5]]])
    yield shown(
        "1 by 20000.gif",
        gif(image(INDICES.reshape(1, -1).repeat(84, 1)[:, :20_000]), size=(1, 20_000)),
        TABLE[INDICES.reshape(1, -1).repeat(84, 1)[:, :20_000]],
    )
    yield shown("without its end.gif", gif(image(INDICES))[:-1], seen)
    yield shown("junk behind.gif", gif(image(INDICES)) + bytes(range(256)), seen)
    for ending in ("jpg", "png", "webp"):
        yield shown(f"a GIF named.{ending}", gif(image(INDICES)), seen)


def animations() -> Iterator[Exhibit]:
    """Yield animations: the first frame counts, whatever the later ones do to it."""
    seen = TABLE[INDICES]
    later = image(255 - INDICES[:4, :4], at=(2, 2))
    for disposal in range(4):
        data = gif(control(disposal), image(INDICES), control(disposal, transparent=9), later)
        yield shown(f"disposal {disposal}.gif", data, seen)
    yield shown(
        "endless.gif", gif(b"!\xff\x0bNETSCAPE2.0\x03\1\0\0\0", control(), image(INDICES), control(), later), seen
    )
    yield shown(
        "a later frame beyond the canvas.gif",
        gif(control(), image(INDICES), control(), image(INDICES, at=(50, 60))),
        seen,
    )
    clear = seen.copy()
    clear[INDICES == 0] = 255
    yield shown("transparent first frame.gif", gif(control(2, transparent=0), image(INDICES), control(), later), clear)
    half = gif(control(), image(INDICES), control(), later)
    yield shown("cut in its second frame.gif", half[:-20], seen)
    yield shown("hundred frames.gif", gif(control(), image(INDICES), *[control() + later] * 99), seen)


def broken_gifs() -> Iterator[Exhibit]:
    """Yield what was cut, changed or made to harm."""
    data = gif(image(INDICES))
    for keep in (6, 9, 300, 785, 800, 950, len(data) - 9):
        yield refused(f"cut after {keep} bytes.gif", data[:keep], "cut short GIF" if keep > 787 else "damaged GIF")
    yield refused("no frame.gif", gif(), "damaged GIF")
    yield refused("only a comment.gif", gif(b"!\xfe\x05hello\0"), "damaged GIF")
    yield refused("fewer pixels than it says.gif", gif(image(INDICES, size=(30, 20)), size=(30, 20)), "cut short GIF")
    yield shown("more pixels than it says.gif", gif(image(INDICES, size=(6, 20)), size=(6, 20)), TABLE[INDICES[:6]])
    yield refused("a frame of no width.gif", gif(image(INDICES, size=(12, 0))), "damaged GIF")
    nothing = gif(image(INDICES), table=(), background=3)
    yield shown("no colours at all.gif", nothing, INDICES)
    yield refused("codes wider than it can be.gif", data.replace(b"\x08\xff", b"\x0d\xff"), "damaged GIF")
    yield refused(
        "60000 by 60000 canvas.gif",
        gif(image(INDICES), size=(60_000, 60_000)),
        "it has 60,000 x 60,000 pixels, more than",
    )
    yield refused(
        "60000 by 60000 frame.gif",
        gif(image(INDICES, size=(60_000, 60_000))),
        "it has 60,000 x 60,000 pixels, more than",
    )
    yield refused(
        "a frame far out.gif", gif(image(INDICES, at=(65_000, 65_000))), "it has 65,020 x 65,012 pixels, more than"
    )


def webps() -> Iterator[Exhibit]:
    """Yield WebPs of every kind."""
    pixels, alpha = colours(), greys()
    whole = saved(pixels, "WEBP", lossless=True)
    yield shown("lossless.webp", whole, pixels)
    yield shown("lossy.webp", saved(smooth(), "WEBP", quality=90), smooth(), within=4.0)
    rgba = np.concatenate([pixels, alpha[..., None]], axis=2)
    yield shown("lossless with alpha.webp", saved(rgba, "WEBP", lossless=True, exact=True), over_white(pixels, alpha))
    soft = np.concatenate([smooth(), np.full((48, 64, 1), 128, np.uint8)], axis=2)
    yield shown(
        "lossy with alpha.webp",
        saved(soft, "WEBP", quality=90),
        over_white(smooth(), np.full((48, 64), 128)),
        within=3.0,
    )
    yield shown("grey.webp", saved(alpha, "WEBP", lossless=True), alpha)
    frames = [Image.fromarray(255 - pixels)] * 2
    moving = saved(pixels, "WEBP", lossless=True, save_all=True, append_images=frames)
    yield shown("animation.webp", moving, pixels)
    yield shown("with an ICC profile.webp", saved(pixels, "WEBP", lossless=True, icc_profile=bytes(500)), pixels)
    for orientation in range(1, 9):
        data = saved(stored(pixels, orientation), "WEBP", lossless=True, exif=exif(orientation))
        yield shown(f"EXIF orientation {orientation}.webp", data, pixels)
    yield shown("EXIF that is none.webp", saved(pixels, "WEBP", lossless=True, exif=b"junk" * 9), pixels)
    yield shown("1 by 1.webp", saved(pixels[:1, :1], "WEBP", lossless=True), pixels[:1, :1])
    long = np.repeat(pixels[:1], 800, axis=1)
    yield shown("1 by 16000.webp", saved(long, "WEBP", lossless=True), long)
    yield shown("junk behind.webp", whole + bytes(range(200)), pixels)
    yield shown("a WebP named.jpg", whole, pixels)
    for name, data in (("lossless", whole), ("lossy", saved(smooth(), "WEBP", quality=90)), ("animated", moving)):
        for percent in (40, 60, 90):
            yield refused(f"{name} cut at {percent} percent.webp", data[: len(data) * percent // 100], "damaged WEBP")
    yield refused("only a head.webp", whole[:12], "damaged WEBP")
    extended = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (59_999).to_bytes(3, "little") * 2
    huge = b"RIFF" + struct.pack("<I", 4 + len(extended) + 100) + b"WEBP" + extended + bytes(100)
    yield refused("60000 by 60000 canvas.webp", huge, "it has 60,000 x 60,000 pixels, more than")
    yield refused("a size of its own (RIFF).webp", whole[:4] + struct.pack("<I", 20) + whole[8:], "damaged WEBP")
