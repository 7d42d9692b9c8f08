"""BMPs and the PNM family: every depth, order of rows and packing, text and numbers, and what is broken in them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from museum.picture import Exhibit, colours, greys, over_white, refused, shown

TABLE = np.random.default_rng(6).integers(0, 256, (256, 3)).astype(np.uint8)


def bmp(
    rows: bytes,
    size: tuple[int, int],
    bits: int,
    *,
    table: Any = (),
    compression: int = 0,
    top_down: bool = False,
    header: int = 40,
    masks: tuple[int, ...] = (),
    num_colours: int | None = None,
) -> bytes:
    """Return a BMP of `size` (height, width) with pixel data `rows`; `header` bytes are 12 for OS/2, 40, 108 or 124."""
    height, width = size
    entries = [
        bytes([b, g, r]) if header == 12 else bytes([b, g, r, 0]) for r, g, b in np.asarray(table, int).reshape(-1, 3)
    ]
    if header == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        high = -height if top_down else height
        colours_used = len(entries) if num_colours is None else num_colours
        info = struct.pack("<IiiHHIIiiII", header, width, high, 1, bits, compression, len(rows), 0, 0, colours_used, 0)
    packed = struct.pack(f"<{len(masks)}I", *masks)
    info += (packed + bytes(header))[: header - 40] if header > 40 else packed
    start = 14 + len(info) + sum(map(len, entries))
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + info + b"".join(entries) + rows


def packed(values: Any, bits: int, *, top_down: bool = False) -> bytes:
    """Return H x W numbers of `bits` (or H x W x bytes) as BMP rows, from the bottom up, each of whole 4 bytes."""
    values = np.asarray(values)
    out = []
    for row in values if top_down else values[::-1]:
        if bits < 8:
            text = "".join(format(int(value), f"0{bits}b") for value in row)
            text += "0" * (-len(text) % 8)
            raw = int(text, 2).to_bytes(len(text) // 8, "big")
        else:
            raw = row.astype({16: "<u2", 32: "<u4"}.get(bits, "u1")).tobytes()
        out.append(raw + bytes(-len(raw) % 4))
    return b"".join(out)


def exhibits() -> Iterator[Exhibit]:
    """Yield all of them."""
    yield from bmps()
    yield from run_length()
    yield from broken_bmps()
    yield from pnms()
    yield from broken_pnms()


def bmps() -> Iterator[Exhibit]:
    """Yield BMPs as they come."""
    pixels = colours(11, 17)
    bgr = pixels[..., ::-1]
    indices = np.arange(11 * 17).reshape(11, 17)
    for bits in (1, 4, 8):
        few, table = indices % 2**bits, TABLE[: 2**bits]
        yield shown(f"palette {bits} bit.bmp", bmp(packed(few, bits), (11, 17), bits, table=table), table[few])
    short = TABLE[:5]
    yield shown("five colours.bmp", bmp(packed(indices % 5, 8), (11, 17), 8, table=short), short[indices % 5])
    grey = np.repeat(np.arange(256)[:, None], 3, axis=1)
    yield shown("grey 8 bit.bmp", bmp(packed(indices, 8), (11, 17), 8, table=grey), indices)
    whole = bmp(packed(bgr, 24), (11, 17), 24)
    yield shown("24 bit.bmp", whole, pixels)
    yield shown("24 bit top down.bmp", bmp(packed(bgr, 24, top_down=True), (11, 17), 24, top_down=True), pixels)
    yield shown("24 bit OS2.bmp", bmp(packed(bgr, 24), (11, 17), 24, header=12), pixels)
    yield shown("8 bit OS2.bmp", bmp(packed(indices, 8), (11, 17), 8, table=TABLE, header=12), TABLE[indices])
    for header in (108, 124):
        yield shown(f"24 bit, header of {header}.bmp", bmp(packed(bgr, 24), (11, 17), 24, header=header), pixels)
    five = (pixels >> 3).astype(np.int64)
    word = five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2]
    levels = five * 255 // 31
    yield shown("16 bit.bmp", bmp(packed(word, 16), (11, 17), 16), levels)
    six = (pixels >> 2).astype(np.int64)
    word = five[..., 0] << 11 | six[..., 1] << 5 | five[..., 2]
    levels = np.stack([levels[..., 0], six[..., 1] * 255 // 63, levels[..., 2]], axis=-1)
    masks = (0xF800, 0x7E0, 0x1F)
    yield shown("16 bit, 6 for green.bmp", bmp(packed(word, 16), (11, 17), 16, compression=3, masks=masks), levels)
    alpha = greys(11, 17)
    four = np.concatenate([bgr, alpha[..., None]], axis=2)
    yield shown("32 bit.bmp", bmp(packed(four, 8), (11, 17), 32), pixels)
    masks = (0xFF0000, 0xFF00, 0xFF)
    yield shown("32 bit with masks.bmp", bmp(packed(four, 8), (11, 17), 32, compression=3, masks=masks), pixels)
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    with_alpha = bmp(packed(four, 8), (11, 17), 32, compression=3, masks=masks, header=108)
    yield shown("32 bit with alpha.bmp", with_alpha, over_white(pixels, alpha))
    for name, size in (("1 by 1", (1, 1)), ("1 by 20000", (1, 20_000)), ("20000 by 1", (20_000, 1))):
        pixel = np.full((*size, 3), 77, np.uint8)
        yield shown(f"{name}.bmp", bmp(packed(pixel, 24), size, 24), pixel)
    yield shown("junk behind.bmp", whole + bytes(999), pixels)
    yield shown("a BMP named.jpg", whole, pixels)


def run_length() -> Iterator[Exhibit]:
    """Yield run-length coded BMPs: runs, pixels as they are, jumps."""
    indices = np.repeat(np.arange(6)[:, None] * 10, 8, axis=1)
    runs = b"".join(bytes([8, row[0], 0, 0]) for row in indices[::-1].tolist()) + b"\0\1"
    yield shown("RLE8.bmp", bmp(runs, (6, 8), 8, table=TABLE, compression=1), TABLE[indices])
    literal = np.arange(48).reshape(6, 8)
    rows = b"".join(b"\0\x08" + bytes(row) + b"\0\0" for row in literal[::-1].tolist()) + b"\0\1"
    yield shown("RLE8 of no runs.bmp", bmp(rows, (6, 8), 8, table=TABLE, compression=1), TABLE[literal])
    nibbles = b"".join(bytes([8, row[0] % 16 << 4 | 5, 0, 0]) for row in indices[::-1].tolist()) + b"\0\1"
    expected = np.where(np.arange(8) % 2, 5, indices % 16)
    yield shown("RLE4.bmp", bmp(nibbles, (6, 8), 4, table=TABLE[:16], compression=2), TABLE[expected])
    jumped = indices.copy()
    jumped[4] = 0
    jumped[3, :2] = 0
    jumps = (
        bytes([8, 50, 0, 0])
        + bytes([0, 2, 2, 1])
        + b"".join(bytes([count, value, 0, 0]) for count, value in ((6, 30), (8, 20), (8, 10), (8, 0)))
    )
    yield shown("RLE8 with a jump.bmp", bmp(jumps + b"\0\1", (6, 8), 8, table=TABLE, compression=1), TABLE[jumped])
    yield refused("RLE8 that ends early.bmp", bmp(runs[:9], (6, 8), 8, table=TABLE, compression=1), "cut short BMP")
    wide = bmp(bytes([1, 1]) + b"\0\0" * 9, (500, 98_000), 8, table=TABLE, compression=1)
    longest = bmp(bytes([1, 1]), (1, 49_000_000), 8, table=TABLE, compression=1)
    words = "it has 49,000,000 x 1 pixels, more than the 100,000 accepted in a row"
    yield refused("RLE8 of one long row.bmp", longest, words)
    yield refused(
        "RLE8 of long rows.bmp",
        wide,
        "it is run-length coded and has 49,000,000 pixels, more than the 10,000,000 accepted",
    )


def broken_bmps() -> Iterator[Exhibit]:
    """Yield BMPs that were cut or changed."""
    pixels = colours(11, 17)
    whole = bmp(packed(pixels[..., ::-1], 24), (11, 17), 24)
    yield refused("cut after 2 bytes.bmp", whole[:2], "damaged BMP")
    yield shown("cut in what fills up its last row.bmp", whole[:-1], pixels)
    for keep in (20, 53, 54, 300, len(whole) - 2):
        yield refused(f"cut after {keep} bytes.bmp", whole[:keep], "cut short BMP")
    yield refused("a text that begins so.bmp", b"BM, as in a text that begins so", "cut short BMP")
    for bits in (0, 2, 3, 64):
        yield refused(f"{bits} bits.bmp", bmp(bytes(999), (11, 17), bits), "damaged BMP")
    for compression, name in ((4, "JPEG"), (5, "PNG"), (9, "nothing known")):
        yield refused(f"with {name} inside.bmp", bmp(whole[54:], (11, 17), 24, compression=compression), "damaged BMP")
    yield refused("width 0.bmp", bmp(bytes(999), (11, 0), 24), "damaged BMP")
    yield refused("width below 0.bmp", bmp(bytes(999), (11, -17), 24), "it has 4,294,967,279 x 11 pixels, more than")
    yield refused(
        "60000 by 60000.bmp", bmp(bytes(999), (60_000, 60_000), 24), "it has 60,000 x 60,000 pixels, more than"
    )
    yield refused("strange masks.bmp", bmp(bytes(999), (11, 17), 32, compression=3, masks=(1, 2, 4)), "damaged BMP")
    missing = bmp(packed(np.arange(11 * 17).reshape(11, 17), 8), (11, 17), 8, table=TABLE[:16])
    beyond = np.where(
        np.arange(187).reshape(11, 17)[..., None] < 16, np.resize(TABLE[:16], (187, 3)).reshape(11, 17, 3), 0
    )
    yield shown("beyond its palette.bmp", missing, beyond)
    far = bytearray(whole)
    far[10:14] = struct.pack("<I", 2**31)
    yield refused("pixels beyond its end.bmp", bytes(far), "cut short BMP")


def pnms() -> Iterator[Exhibit]:
    """Yield PBM, PGM and PPM, as numbers and as text, of any number of levels."""
    pixels, grey = colours(), greys()
    bits = (np.indices((12, 20)).sum(axis=0) % 3 == 0).astype(np.uint8)
    black = 255 * (1 - bits)
    whole = b"P6\n20 12\n255\n" + pixels.tobytes()
    text = " ".join(map(str, pixels.ravel())).encode()
    yield shown("binary.ppm", whole, pixels)
    yield shown("binary.pgm", b"P5\n20 12\n255\n" + grey.tobytes(), grey)
    yield shown("binary.pbm", b"P4\n20 12\n" + np.packbits(bits, axis=1).tobytes(), black)
    yield shown("text.ppm", b"P3\n20 12\n255\n" + text + b"\n", pixels)
    yield shown("text.pgm", b"P2\n20 12\n255\n" + " ".join(map(str, grey.ravel())).encode() + b"\n", grey)
    yield shown("text.pbm", b"P1\n20 12\n" + " ".join(map(str, bits.ravel())).encode() + b"\n", black)
    yield shown("text without spaces.pbm", b"P1\n20 12\n" + "".join(map(str, bits.ravel())).encode(), black)
    yield shown("comments.ppm", b"P6 # a\n#b\n20 # c\n12\n# d\n255\n" + pixels.tobytes(), pixels)
    yield shown("comments between.pgm", b"P2 2 1 # a\n255\n12 # b 13\n 14", [[12, 14]])
    yield shown("other blanks.ppm", b"P6\r20\t12\r255\n" + pixels.tobytes(), pixels)
    for top in (1, 3, 15, 100, 254):
        values = grey.astype(np.int64) * top // 255
        levels = np.rint(values * 255 / top)
        yield shown(f"levels to {top}.pgm", b"P5 20 12 %d\n" % top + values.astype(np.uint8).tobytes(), levels)
    for top in (256, 1023, 4095, 65534, 65535):
        values = grey.astype(np.int64) * top // 255
        levels = np.rint(values * 255 / top)
        yield shown(f"levels to {top}.pgm", b"P5 20 12 %d\n" % top + values.astype(">u2").tobytes(), levels)
        text = " ".join(map(str, values.ravel())).encode()
        yield shown(f"text, levels to {top}.pgm", b"P2 20 12 %d\n" % top + text, levels)
        values = pixels.astype(np.int64) * top // 255
        levels = np.rint(values * 255 / top)
        yield shown(f"levels to {top}.ppm", b"P6 20 12 %d\n" % top + values.astype(">u2").tobytes(), levels)
    yield shown("1 by 1.pgm", b"P5 1 1 255\n\x4d", [[77]])
    yield shown("two pictures.ppm", whole + whole, pixels)
    yield shown("a PPM named.jpg", whole, pixels)


def broken_pnms() -> Iterator[Exhibit]:
    """Yield what was cut or changed, and the relatives that are not read."""
    whole = b"P6\n20 12\n255\n" + colours().tobytes()
    for keep in (5, 9, 13, 400, len(whole) - 1):
        yield refused(f"cut after {keep} bytes.ppm", whole[:keep], "cut short PPM" if keep > 12 else "damaged PPM")
    yield refused("cut text.pgm", b"P2 2 2 255\n1 2 3", "cut short PPM")
    yield refused("cut levels to 15.pgm", b"P5 9 9 15\n" + bytes(80), "cut short PPM")
    yield refused("a letter among numbers.pgm", b"P2 2 1 255\n1 x", "damaged PPM")
    yield refused("more than its levels.pgm", b"P2 2 1 15\n1 16", "damaged PPM")
    yield refused("below 0.pgm", b"P2 2 1 15\n1 -1", "damaged PPM")
    yield refused("a two among bits.pbm", b"P1 2 1 1 2", "damaged PPM")
    for top in (b"0", b"-5", b"65536", b"99999999999", b"x"):
        yield refused(f"levels to {top.decode()}.pgm", b"P5 1 1 " + top + b"\n\0\0", "damaged PPM")
    yield refused("width 0.ppm", b"P6 0 12 255\n", "damaged PPM")
    yield refused("width below 0.ppm", b"P6 -20 12 255\n" + bytes(999), "damaged PPM")
    yield refused("60000 by 60000.ppm", b"P6 60000 60000 255\n" + bytes(99), "it has 60,000 x 60,000 pixels, more than")
    yield refused("49 million pixels of text.pbm", b"P1 7000 7000\n" + b"10" * 99, "cut short PPM")
    known = "it holds no image format known here; expected JPEG"
    yield refused(
        "a PAM.pam.ppm",
        b"P7\nWIDTH 2\nHEIGHT 1\nDEPTH 3\nMAXVAL 255\nENDHDR\n" + bytes(6),
        known,
    )
    yield refused("floating point.pfm.ppm", b"Pf\n2 1\n-1.0\n" + struct.pack("<2f", 0, 1), known)
