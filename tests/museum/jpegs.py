"""JPEGs: every coding, colour space and sampling, what surrounds the picture, and what is broken in it."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from museum.jpeg_writer import (
    AC_TABLE,
    DC_TABLE,
    EOI,
    JFIF,
    SOI,
    adobe,
    blocks_of,
    frame,
    jpeg,
    lossless,
    scan_header,
    segment,
    to_rgb,
)
from museum.picture import Exhibit, UInt8, colours, exif, greys, refused, saved, shown, smooth, stored

LUMA = np.array([[16, 80, 200], [255, 0, 128]])
BLUE, RED = np.array([[128, 100, 30], [128, 128, 240]]), np.array([[128, 160, 200], [128, 128, 20]])
COLOUR = np.kron(to_rgb(LUMA, BLUE, RED), np.ones((8, 8, 1), np.uint8))
GREY = blocks_of(LUMA)
YCC = [LUMA, BLUE, RED]

ARITHMETIC = {
    "arithmetic grey": "/8kACwgAEAAYAQERAP/MAAYAEBAF/9oACAEBAAA/AP8A0G2otPdC4bj/2Q==",
    "arithmetic": "/8kAEQgAEAAYAwERAAIRAAMRAP/MAAoAEBAFARARBf/aAAwDAQACEQMRAD8A/wDQKN8ISIq+JtAgH+eD/gzzHvEfmGhA/9k=",
    "arithmetic progressive": ""
    "/8oAEQgAEAAYAwERAAIRAAMRAP/MAAYAEAEQ/9oADAMBAAIQAxAAAAH/AKCuaJIN9CXB2Q7pByO8LtzkGij/zAAEEAX/2gAIAQEA"
    "AQUCwP/MAAQRBf/aAAgBAwEBPwHA/8wABBEF/9oACAECAQE/AcD/zAAEEAX/2gAIAQEABj8CwP/MAAQQBf/aAAgBAQABPyHA/9oA"
    "DAMBAAIAAwAAABBMIED/zAAEEQX/2gAIAQMBAT8QwP/MAAQRBf/aAAgBAgEBPxDA/8wABBAF/9oACAEBAAE/EMD/2Q==",
}
"""The frames and scans of `jpeg([LUMA])` and `jpeg(YCC)` as `jpegtran -arithmetic` of libjpeg-turbo 2.1.5 has them."""


def exhibits() -> Iterator[Exhibit]:
    """Yield all of them."""
    yield from codings()
    yield from colour_spaces()
    yield from surroundings()
    yield from damages()


def codings() -> Iterator[Exhibit]:
    """Yield one picture in each way to code it."""
    yield shown("baseline.jpg", jpeg(YCC), COLOUR)
    yield shown("grey.jpg", jpeg([LUMA]), GREY)
    yield shown("extended.jpg", jpeg(YCC, sof=0xC1), COLOUR)
    yield shown("progressive.jpg", jpeg(YCC, sof=0xC2), COLOUR)
    yield shown("progressive grey.jpg", jpeg([LUMA], sof=0xC2), GREY)
    yield shown("one scan a component.jpg", jpeg(YCC, interleaved=False), COLOUR)
    yield shown("restart after each MCU.jpg", jpeg(YCC, restart=1), COLOUR)
    yield shown("restart after two MCUs.jpg", jpeg([LUMA], restart=2), GREY)
    yield shown("16-bit quantisation table.jpg", jpeg([LUMA], sof=0xC1, wide_table=True), GREY)
    for name, coded in ARITHMETIC.items():
        before = jpeg(YCC)[: jpeg(YCC).index(b"\xff\xc0")]
        yield shown(f"{name}.jpg", before + base64.b64decode(coded), GREY if "grey" in name else COLOUR)
    yield shown("lossless.jpg", lossless([greys()]), greys())
    yield shown("lossless colour.jpg", lossless(np.moveaxis(colours(), 2, 0)), colours())
    # Reduced, these two would be written beyond the memory that was made for them.
    yield shown("lossless and large.jpg", lossless([greys(64, 96)]), greys(64, 96))
    large = lossless(np.moveaxis(smooth(), 2, 0), head=adobe(0))
    yield shown("lossless and large, colour.jpg", large, smooth())
    yield refused("12 bits.jpg", jpeg([LUMA * 16], sof=0xC1, precision=12), "damaged JPEG (cannot handle 12-bit")
    yield refused(
        "lossless 16 bits.jpg",
        lossless([greys().astype(int) * 257], precision=16),
        "damaged JPEG (cannot handle 16-bit",
    )
    yield refused("hierarchical.jpg", jpeg(YCC, sof=0xC5), "damaged JPEG")
    yield refused("lossless hierarchical.jpg", jpeg(YCC, sof=0xC7), "damaged JPEG")
    yield refused("JPEG-LS.jpg", jpeg(YCC, sof=0xF7), "damaged JPEG")
    sampled = np.repeat(np.repeat(LUMA, 2, 0), 2, 1)
    for name, v, h in (("4 2 0", 2, 2), ("4 2 2", 1, 2), ("4 4 0", 2, 1), ("4 1 1", 1, 4), ("4 1 0", 2, 4)):
        luma = np.repeat(np.repeat(LUMA, v, 0), h, 1)
        chroma = [np.full_like(LUMA, value) for value in (90, 170)]
        expected = np.kron(to_rgb(luma, 90, 170), np.ones((8, 8, 1), np.uint8))
        yield shown(f"sampled {name}.jpg", jpeg([luma, *chroma], sampling=[(v, h), (1, 1), (1, 1)]), expected)
    yield shown("grey with sampling factors.jpg", jpeg([sampled], sampling=[(2, 2)]), blocks_of(sampled))
    yield refused(
        "sampled 3 to 2.jpg",
        jpeg([LUMA[:, :3], LUMA[:, :2], LUMA[:, :2]], sampling=[(1, 3), (1, 2), (1, 2)]),
        "damaged JPEG",
    )
    yield shown("no multiple of 8.jpg", jpeg(YCC, size=(11, 21)), COLOUR[:11, :21])
    yield shown("1 by 1.jpg", jpeg([LUMA[:1, :1]], size=(1, 1)), GREY[:1, :1])
    yield shown("1 by 20000.jpg", jpeg([np.tile(LUMA[:1, :2], 1250)], size=(1, 20_000)), np.tile(GREY[:1, :16], 1250))
    yield shown(
        "20000 by 1.jpg", jpeg([np.tile(LUMA[:, :1], (1250, 1))], size=(20_000, 1)), np.tile(GREY[:, :1], (1250, 1))
    )
    for quality, within in ((95, 3.0), (30, 6.0), (1, 40.0)):
        yield shown(f"quality {quality}.jpg", saved(smooth(), "JPEG", quality=quality), smooth(), within)


def _nk(ink: Any, key: Any) -> UInt8:
    """Return (255 - ink)(255 - key) / 255, rounded as Pillow does."""
    product = (255 - np.asarray(ink, np.int64)) * (255 - np.asarray(key, np.int64)) + 128
    return (((product >> 8) + product) >> 8).astype(np.uint8)


def cmyk(inks: Any) -> UInt8:
    """Return RGB of CMYK by (1 - C)(1 - K)."""
    inks = np.asarray(inks)
    return np.stack([_nk(inks[..., k], inks[..., 3]) for k in range(3)], axis=-1)


def colour_spaces() -> Iterator[Exhibit]:
    """Yield what the markers and the numbers of the components say about colour."""
    wide = np.ones((8, 8, 1), np.uint8)
    plain = np.kron(np.stack(YCC, axis=-1).astype(np.uint8), wide)
    yield shown("no marker, components 1 2 3.jpg", jpeg(YCC, head=b""), COLOUR)
    yield shown("no marker, components 0 1 2.jpg", jpeg(YCC, head=b"", ids=b"\0\1\2"), COLOUR)
    yield shown("no marker, components R G B.jpg", jpeg(YCC, head=b"", ids=b"RGB"), plain)
    yield shown("Adobe RGB.jpg", jpeg(YCC, head=adobe(0)), plain)
    yield shown("Adobe YCbCr.jpg", jpeg(YCC, head=adobe(1)), COLOUR)
    yield shown("Adobe unknown transform.jpg", jpeg(YCC, head=adobe(7)), COLOUR)
    yield shown("JFIF and Adobe RGB.jpg", jpeg(YCC, head=JFIF + adobe(0)), COLOUR)
    inks = [*YCC, np.array([[0, 40, 255], [90, 200, 10]])]
    stack = np.kron(np.stack(inks, axis=-1).astype(np.uint8), wide)
    turned = [255 - ink for ink in inks]
    yield shown("CMYK with Adobe.jpg", jpeg(turned, head=adobe(0)), cmyk(stack))
    yield shown("CMYK without Adobe.jpg", jpeg(turned, head=b""), cmyk(stack))
    yield shown("CMYK progressive.jpg", jpeg(turned, head=adobe(0), sof=0xC2), cmyk(stack))
    ycck = [*YCC, 255 - inks[3]]
    inner = np.concatenate([COLOUR, stack[..., 3:]], axis=-1)
    yield shown("YCCK.jpg", jpeg(ycck, head=adobe(2)), cmyk(inner))
    yield refused("two components.jpg", jpeg(YCC[:2], head=b""), "damaged JPEG (cannot handle 2-layer")
    yield refused(
        "five components.jpg",
        jpeg([*YCC, *YCC[:2]], head=b"", ids=b"\1\2\3\4\5"),
        "damaged JPEG (cannot handle 5-layer",
    )


def surroundings() -> Iterator[Exhibit]:
    """Yield pictures with all that cameras, programs and transfers put around them."""
    plain = jpeg(YCC)
    body = plain.removeprefix(SOI)

    def with_segments(*segments: bytes) -> bytes:
        return SOI + b"".join(segments) + body

    for orientation in range(1, 9):
        pixels = stored(COLOUR, orientation)[::8, ::8].astype(np.int64)
        data = jpeg(np.moveaxis(pixels, 2, 0), head=adobe(0) + segment(0xE1, b"Exif\0\0" + exif(orientation)))
        yield shown(f"EXIF orientation {orientation}.jpg", data, COLOUR)
    little = jpeg(
        np.moveaxis(stored(COLOUR, 6)[::8, ::8], 2, 0), head=adobe(0) + segment(0xE1, b"Exif\0\0" + exif(6, "<"))
    )
    yield shown("EXIF little-endian.jpg", little, COLOUR)
    for name, block in (
        ("orientation 0", exif(0)),
        ("orientation 9", exif(9)),
        ("orientation 65535", exif(65535)),
        ("cut", exif(6)[:12]),
        ("pointing nowhere", b"MM\0*\xff\xff\xff\xff" + bytes(30)),
        ("pointing to itself", b"MM\0*\0\0\0\0" + bytes(30)),
        ("of 65535 tags", b"MM\0*\0\0\0\x08\xff\xff" + bytes(600)),
        ("of no order", b"XX\0*\0\0\0\x08\0\0"),
        ("empty", b""),
    ):
        yield shown(f"EXIF {name}.jpg", with_segments(segment(0xE1, b"Exif\0\0" + block)), COLOUR)
    thumbnail = exif(1) + saved(255 - COLOUR, "JPEG")
    yield shown("thumbnail in EXIF.jpg", with_segments(segment(0xE1, b"Exif\0\0" + thumbnail)), COLOUR)
    rgb_thumbnail = segment(0xE0, b"JFIF\0" + struct.pack(">HBHHBB", 0x0102, 0, 1, 1, 4, 4) + bytes(48))
    yield shown("thumbnail in JFIF.jpg", jpeg(YCC, head=rgb_thumbnail), COLOUR)
    two = with_segments(segment(0xE1, b"Exif\0\0" + exif(1)), segment(0xE1, b"Exif\0\0" + exif(6)))
    yield shown("two EXIF blocks.jpg", two, np.ascontiguousarray(np.rot90(COLOUR, 3)))
    yield shown(
        "XMP with another orientation.jpg",
        with_segments(
            segment(
                0xE1,
                b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation='6'/></x:xmpmeta>",
            )
        ),
        COLOUR,
    )
    yield shown("ICC profile.jpg", with_segments(segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(3000))), COLOUR)
    yield shown("half of an ICC profile.jpg", with_segments(segment(0xE2, b"ICC_PROFILE\0\2\2" + bytes(99))), COLOUR)
    yield shown(
        "Photoshop resources.jpg", with_segments(segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04" + bytes(20))), COLOUR
    )
    yield shown(
        "comments of every kind.jpg",
        with_segments(segment(0xFE, b"\xff\xd8\xff\xda\xff\xd9"), segment(0xFE, b"")),
        COLOUR,
    )
    yield shown("many metadata.jpg", with_segments(*[segment(0xE1, bytes(60_000))] * 9), COLOUR)
    yield shown("padding before markers.jpg", SOI + b"\xff" * 9 + body, COLOUR)
    second = jpeg([255 - LUMA])
    index = segment(0xE2, b"MPF\0MM\0*\0\0\0\x08\0\1\xb0\1\0\4\0\0\0\1\0\0\0\2\0\0\0\0")
    yield shown("two pictures (MPO).jpg", with_segments(index) + second, COLOUR)
    yield shown("two pictures (MPO).mpo.jpg", with_segments(index) + second + second, COLOUR)
    yield shown("junk behind.jpg", plain + bytes(range(256)) * 9, COLOUR)
    yield shown("a video behind (motion photo).jpg", plain + b"\0\0\0\x18ftypmp42" + b"\xff\xda\x12" * 300, COLOUR)
    yield shown("a zip behind.jpg", plain + b"PK\3\4" + bytes(60), COLOUR)
    for ending in ("png", "gif", "bmp", "webp", "tiff", "ppm"):
        yield shown(f"a JPEG named.{ending}", plain, COLOUR)


def damages() -> Iterator[Exhibit]:
    """Yield what was cut, changed or made to harm."""
    plain, large = jpeg(YCC), saved(smooth(), "JPEG", progressive=True)
    for name, data in (("baseline", plain), ("progressive", large)):
        for percent in (5, 30, 60, 90):
            yield refused(f"{name} cut at {percent} percent.jpg", data[: len(data) * percent // 100], "cut short JPEG")
        yield refused(f"{name} without its last byte.jpg", data[:-1], "cut short JPEG")
        yield refused(f"{name} without its end.jpg", data[:-2], "cut short JPEG")
    yield refused("only a start.jpg", SOI, "it holds no image format known here; expected JPEG")
    yield refused("only start and end.jpg", SOI + EOI, "damaged JPEG")
    yield refused("a start and zeros.jpg", SOI + b"\xff" + bytes(100), "damaged JPEG")
    yield refused("no frame.jpg", SOI + JFIF + scan_header(b"\1") + bytes(9) + EOI, "damaged JPEG")
    yield refused("no scan.jpg", SOI + JFIF + frame(0xC0, 8, (8, 8), [(1, 1)], b"\1") + EOI, "damaged JPEG")
    tables = segment(0xDB, bytes([0]) + bytes([8] * 64))
    yield refused("no quantisation table.jpg", plain.replace(tables, b""), "damaged JPEG")
    usual = saved(smooth(), "JPEG", quality=95)
    first = usual.index(b"\xff\xc4")
    motion = usual[:first] + usual[usual.index(b"\xff\xda") :]
    yield shown("no Huffman tables (a frame of Motion JPEG).jpg", motion, smooth(), within=3.0)
    yield refused(
        "other Huffman tables missing.jpg", plain.replace(DC_TABLE, b"").replace(AC_TABLE, b""), "cut short JPEG"
    )
    yield refused("height 0 (DNL).jpg", jpeg([LUMA], size=(0, 24)), "damaged JPEG")
    yield refused("width 0.jpg", jpeg([LUMA], size=(16, 0)), "damaged JPEG")
    yield refused(
        "65500 by 65500 pixels.jpg",
        jpeg([LUMA], size=(65_500, 65_500)),
        "it has 65,500 x 65,500 pixels, more than the 50,000,000 accepted",
    )
    yield refused(
        "larger than its data.jpg", jpeg([LUMA], size=(640, 640)), "cut short JPEG (premature end of data segment)"
    )
    scan = scan_header(b"\1", 0, 0) + bytes([0, 0, 0, 0])
    bomb = jpeg([LUMA], sof=0xC2).removesuffix(EOI) + scan * 1000 + EOI
    yield refused(
        "a thousand scans.jpg", bomb, "it has 1,002 scans, expected at most 100: such JPEGs are made to take long"
    )
    yield refused(
        "scans behind a comment that says it ends.jpg",
        jpeg([LUMA], sof=0xC2).removesuffix(EOI) + segment(0xFE, EOI) + scan * 1000 + EOI,
        "it has 1,002 scans, expected at most 100: such JPEGs are made to take long",
    )
    heavy = jpeg([LUMA], sof=0xC2, size=(7000, 7000)).removesuffix(EOI) + scan * 20 + EOI
    yield refused(
        "scans of many pixels.jpg", heavy, "it has 22 scans of 49,000,000 pixels, expected at most 1,000,000,000 in all"
    )
    restarted = jpeg([LUMA], restart=1)
    yield refused(
        "a restart is missing.jpg",
        restarted.replace(b"\xff\xd1", b"\xff\xd3"),
        "damaged JPEG (found marker 0xd3 instead of RST1)",
    )
    yield shown("some bytes too many before its end.jpg", plain.removesuffix(EOI) + bytes(40) + EOI, COLOUR)
    yield refused("not a number of bits.jpg", jpeg([LUMA], precision=9), "damaged JPEG (cannot handle 9-bit")
    yield refused("second start.jpg", SOI + plain, "damaged JPEG")
