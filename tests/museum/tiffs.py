"""TIFFs: every way to lay out and pack pixels, what they may mean, several pages, and what is broken in them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from museum.picture import Exhibit, colours, exif, greys, over_white, refused, saved, shown, smooth, stored

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
OFFSETS, ORIENTATION, SAMPLES, ROWS, COUNTS, PLANAR = 273, 274, 277, 278, 279, 284
PREDICTOR, COLOUR_MAP, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS = 317, 320, 322, 323, 324, 325
EXTRA, SAMPLE_FORMAT = 338, 339
SHORT, LONG, LONG8 = 3, 4, 16


def tiff(
    parts: Sequence[bytes],
    size: tuple[int, int],
    bits: Sequence[int] = (8,),
    photometric: int = 1,
    *,
    tags: Mapping[int, Sequence[int]] | None = None,
    order: str = "<",
    big: bool = False,
    tiles: tuple[int, int] | None = None,
    rows: int | None = None,
    pages: int = 1,
) -> bytes:
    """Return a TIFF of `size` (height, width) whose strips or tiles are `parts`; tags stand behind the pixels."""
    height, width = size
    data = bytearray((b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42))
    data += struct.pack(order + ("HHQ" if big else "I"), *((8, 0, 0) if big else (0,)))
    starts = []
    for part in parts:
        starts.append(len(data))
        data += part + bytes(len(part) % 2)
    counts = [len(part) for part in parts]
    fields = {
        WIDTH: [width],
        HEIGHT: [height],
        BITS: bits,
        COMPRESSION: [1],
        PHOTOMETRIC: [photometric],
        SAMPLES: [len(bits)],
    }
    if tiles:
        fields |= {TILE_HEIGHT: [tiles[0]], TILE_WIDTH: [tiles[1]], TILE_OFFSETS: starts, TILE_COUNTS: counts}
    else:
        fields |= {OFFSETS: starts, COUNTS: counts, ROWS: [rows or height]}
    fields |= dict(tags or {})
    where = 8 if big else 4
    for _ in range(pages):
        data[where : where + (8 if big else 4)] = struct.pack(order + ("Q" if big else "I"), len(data))
        where = _directory(data, fields, order, big)
    return bytes(data)


def _directory(data: bytearray, fields: Mapping[int, Sequence[int]], order: str, big: bool) -> int:
    """Add a directory of tags to `data`, its long values behind it; return where the next one's place is stated."""
    inline, pointer, entry = (8, "Q", "HHQ") if big else (4, "I", "HHI")
    start = len(data)
    head = struct.pack(order + ("Q" if big else "H"), len(fields))
    entries, far = b"", b""
    far_start = start + len(head) + len(fields) * (4 + 2 * inline) + inline
    for tag, values in sorted(fields.items()):
        kind = LONG if tag in (OFFSETS, COUNTS, TILE_OFFSETS, TILE_COUNTS, WIDTH, HEIGHT) else SHORT
        raw = struct.pack(f"{order}{len(values)}{'I' if kind == LONG else 'H'}", *values)
        if len(raw) > inline:
            place, far = struct.pack(order + pointer, far_start + len(far)), far + raw
        else:
            place = raw + bytes(inline - len(raw))
        entries += struct.pack(order + entry, tag, kind, len(values)) + place
    data += head + entries + bytes(inline) + far
    return start + len(head) + len(entries)


def raw(values: Any, bits: int = 8, order: str = "<") -> bytes:
    """Return rows of numbers of `bits`, each row in whole bytes."""
    values = np.asarray(values)
    if bits in (8, 16, 32):
        return values.astype(f"{order}u{bits // 8}").tobytes()
    out = []
    for row in values.reshape(len(values), -1):
        text = "".join(format(int(value), f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        out.append(int(text, 2).to_bytes(len(text) // 8, "big"))
    return b"".join(out)


RGB8 = (8, 8, 8)


def exhibits() -> Iterator[Exhibit]:
    """Yield all of them."""
    yield from layouts()
    yield from depths()
    yield from meanings()
    yield from packings()
    yield from surroundings()
    yield from damages()


def layouts() -> Iterator[Exhibit]:
    """Yield strips, tiles and planes, in both orders of bytes, small and big."""
    pixels = colours()
    one = [raw(pixels)]
    for order, name in (("<", "little"), (">", "big")):
        yield shown(f"{name}-endian.tif", tiff(one, (12, 20), RGB8, 2, order=order), pixels)
    yield shown("BigTIFF.tif", tiff(one, (12, 20), RGB8, 2, big=True), pixels)
    strange = tiff(one, (12, 20), RGB8, 2, order=">", big=True)
    yield refused("big-endian BigTIFF.tif", strange, "it holds a big-endian BigTIFF; expected JPEG")
    for rows in (1, 5, 12):
        strips = [raw(pixels[k : k + rows]) for k in range(0, 12, rows)]
        yield shown(f"strips of {rows}.tif", tiff(strips, (12, 20), RGB8, 2, rows=rows), pixels)
    square = np.zeros((16, 32, 3), np.uint8)
    square[:12, :20] = pixels
    tiles = [raw(square[:, k : k + 16]) for k in (0, 16)]
    yield shown("tiles.tif", tiff(tiles, (12, 20), RGB8, 2, tiles=(16, 16)), pixels)
    planes = [raw(pixels[..., k]) for k in range(3)]
    yield shown("planes.tif", tiff(planes, (12, 20), RGB8, 2, tags={PLANAR: [2]}), pixels)
    yield shown("pages.tif", tiff(one, (12, 20), RGB8, 2, pages=3), pixels)
    stack = saved(Image.fromarray(pixels), "TIFF", save_all=True, append_images=[Image.fromarray(255 - pixels)] * 3)
    yield shown("pages of their own.tif", stack, pixels)
    yield shown("1 by 1.tif", tiff([b"\x4d"], (1, 1)), [[77]])
    long = greys(1, 20_000)
    yield shown("1 by 20000.tif", tiff([raw(long)], (1, 20_000)), long)


def depths() -> Iterator[Exhibit]:
    """Yield every number of bits, black and white either way, and numbers that state no range."""
    grey = greys()
    for bits in (1, 2, 4, 8):
        top = 2**bits - 1
        values = grey.astype(np.int64) * top // 255
        levels = values * 255 // top
        yield shown(f"grey {bits} bit.tif", tiff([raw(values, bits)], (12, 20), (bits,)), levels)
        yield shown(f"grey {bits} bit, white is 0.tif", tiff([raw(values, bits)], (12, 20), (bits,), 0), 255 - levels)
        table = np.stack([np.arange(top + 1) * 9 % 256, 255 - np.arange(top + 1), np.arange(top + 1) // 2])
        tags = {COLOUR_MAP: (table * 257).ravel().tolist()}
        yield shown(
            f"palette {bits} bit.tif", tiff([raw(values, bits)], (12, 20), (bits,), 3, tags=tags), table.T[values]
        )
    deep = grey.astype(np.int64) * 257
    for order, name in (("<", "little"), (">", "big")):
        yield shown(f"grey 16 bit {name}-endian.tif", tiff([raw(deep, 16, order)], (12, 20), (16,), order=order), grey)
    yield shown("grey 16 bit, white is 0.tif", tiff([raw(deep, 16)], (12, 20), (16,), 0), 255 - grey)
    twelve = grey.astype(np.int64) * 4095 // 255
    yield shown("grey 12 bit.tif", tiff([raw(twelve, 12)], (12, 20), (12,)), np.rint(twelve * 255 / 4095))
    deep = colours().astype(np.int64) * 256 + 77
    for order, name in (("<", "little"), (">", "big")):
        data = tiff([raw(deep, 16, order)], (12, 20), (16, 16, 16), 2, order=order)
        yield shown(f"colour 16 bit {name}-endian.tif", data, colours())
    reals = np.linspace(0, 1, 240, dtype=np.float32).reshape(12, 20)
    real = {SAMPLE_FORMAT: [3]}
    yield shown("numbers from 0 to 1.tif", tiff([reals.tobytes()], (12, 20), (32,), tags=real), np.rint(reals * 255))
    yield shown(
        "numbers from 0 to 1, white is 0.tif",
        tiff([reals.tobytes()], (12, 20), (32,), 0, tags=real),
        np.rint((1 - reals) * 255),
    )
    said = "its pixels are floating-point numbers from 0 to 255, expected 0 to 1"
    yield refused("numbers from 0 to 255.tif", tiff([(reals * 255).tobytes()], (12, 20), (32,), tags=real), said)
    said = "its pixels are floating-point numbers from nan to nan, expected 0 to 1"
    yield refused(
        "not a number.tif", tiff([np.full((12, 20), np.nan, np.float32).tobytes()], (12, 20), (32,), tags=real), said
    )
    said = "its pixels are 32-bit integers, whose range no file states"
    yield refused("32-bit integers.tif", tiff([raw(grey, 32)], (12, 20), (32,)), said)
    yield refused(
        "32-bit integers below 0.tif", tiff([raw(grey, 32)], (12, 20), (32,), tags={SAMPLE_FORMAT: [2]}), said
    )
    yield refused(
        "16-bit integers below 0.tif",
        tiff([raw(grey, 16)], (12, 20), (16,), tags={SAMPLE_FORMAT: [2]}),
        said,
    )
    yield refused("64-bit numbers.tif", tiff([bytes(8 * 240)], (12, 20), (64,), tags=real), "damaged TIFF")


def meanings() -> Iterator[Exhibit]:
    """Yield what samples can stand for."""
    pixels, alpha = colours(), greys()
    four = raw(np.concatenate([pixels, alpha[..., None]], axis=2))
    bits = (8, 8, 8, 8)
    yield shown("alpha.tif", tiff([four], (12, 20), bits, 2, tags={EXTRA: [2]}), over_white(pixels, alpha))
    yield shown("alpha not said to be.tif", tiff([four], (12, 20), bits, 2), over_white(pixels, alpha))
    yield shown("a fourth sample of no meaning.tif", tiff([four], (12, 20), bits, 2, tags={EXTRA: [0]}), pixels)
    solid = np.where(alpha[..., None] >= 128, pixels, 0)
    through = np.where(alpha >= 128, 255, 0)
    four = raw(np.concatenate([solid, through[..., None]], axis=2))
    multiplied = tiff([four], (12, 20), bits, 2, tags={EXTRA: [1]})
    yield shown("colours multiplied by alpha.tif", multiplied, over_white(solid, through))
    two = raw(np.stack([alpha[::-1], alpha], axis=2))
    on_white = over_white(np.repeat(alpha[::-1, :, None], 3, axis=2), alpha)
    yield shown("grey and alpha.tif", tiff([two], (12, 20), (8, 8), 1, tags={EXTRA: [2]}), on_white)
    inks = np.concatenate([pixels, alpha[..., None]], axis=2).astype(np.int64)
    from museum.jpegs import cmyk

    yield shown("CMYK.tif", tiff([raw(inks)], (12, 20), bits, 5), cmyk(inks))
    yield shown("CMYK 16 bit.tif", tiff([raw(inks * 256, 16)], (12, 20), (16,) * 4, 5), cmyk(inks))
    from museum.jpeg_writer import to_rgb

    ycc = np.stack([alpha, np.full((12, 20), 100), np.full((12, 20), 150)], axis=2)
    yield shown(
        "YCbCr.tif", tiff([raw(ycc)], (12, 20), RGB8, 6, tags={530: [1, 1]}), to_rgb(alpha, 100, 150), within=1.0
    )
    white = np.stack([np.full((12, 20), 255), *[np.zeros((12, 20))] * 2], axis=2)
    yield shown("Lab white.tif", tiff([raw(white)], (12, 20), RGB8, 8), np.full((12, 20), 255), within=1.0)


def packings() -> Iterator[Exhibit]:
    """Yield each compression."""
    pixels = colours()
    for name in ("packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "lzma", "zstd"):
        try:
            data = saved(pixels, "TIFF", compression=name)
        except (OSError, ValueError):
            continue  # this Pillow was built without
        yield shown(f"packed by {name}.tif", data, pixels)
    yield shown("packed by jpeg.tif", saved(smooth(), "TIFF", compression="jpeg", quality=95), smooth(), within=3.0)
    bits = np.indices((12, 20)).sum(axis=0) % 3 == 0
    for name in ("group3", "group4", "tiff_ccitt"):
        yield shown(f"packed by {name}.tif", saved(bits, "TIFF", compression=name), bits * 255)
    differences = np.diff(pixels.astype(np.int64), axis=1, prepend=0) % 256
    packed = [zlib.compress(raw(differences))]
    yield shown(
        "differences, deflated.tif", tiff(packed, (12, 20), RGB8, 2, tags={COMPRESSION: [8], PREDICTOR: [2]}), pixels
    )
    flipped = bytes(int(format(byte, "08b")[::-1], 2) for byte in raw(greys()))
    yield shown("bits the other way round.tif", tiff([flipped], (12, 20), tags={FILL_ORDER: [2]}), greys())
    for number, name in ((6, "old JPEG"), (34712, "JPEG 2000"), (99, "nothing known")):
        yield refused(
            f"packed by {name}.tif",
            tiff([raw(pixels)], (12, 20), RGB8, 2, tags={COMPRESSION: [number]}),
            "damaged TIFF",
        )


def surroundings() -> Iterator[Exhibit]:
    """Yield all orientations, and tags that change nothing."""
    pixels = colours()
    for orientation in range(1, 9):
        kept = stored(pixels, orientation)
        data = tiff([raw(kept)], (kept.shape[0], kept.shape[1]), RGB8, 2, tags={ORIENTATION: [orientation]})
        yield shown(f"orientation {orientation}.tif", data, pixels)
    for orientation in (0, 9):
        data = tiff([raw(pixels)], (12, 20), RGB8, 2, tags={ORIENTATION: [orientation]})
        yield shown(f"orientation {orientation}, which is none.tif", data, pixels)
    packed = saved(stored(pixels, 6), "TIFF", compression="tiff_lzw", exif=exif(6))
    yield shown("orientation 6, packed.tif", packed, pixels)
    yield shown("with an ICC profile.tif", saved(pixels, "TIFF", icc_profile=bytes(500)), pixels)
    whole = tiff([raw(pixels)], (12, 20), RGB8, 2)
    yield shown(
        "unknown tags.tif", tiff([raw(pixels)], (12, 20), RGB8, 2, tags={40_000: [1, 2, 3], 65_000: [5]}), pixels
    )
    yield shown("junk behind.tif", whole + bytes(300), pixels)
    for ending in ("jpg", "png", "bmp"):
        yield shown(f"a TIFF named.{ending}", whole, pixels)


def damages() -> Iterator[Exhibit]:
    """Yield what was cut, changed or made to harm."""
    pixels = colours()
    whole = tiff([raw(pixels)], (12, 20), RGB8, 2)
    for keep in (4, 8, 400, 735, len(whole) - 30):
        yield refused(f"cut after {keep} bytes.tif", whole[:keep], "cut short TIFF")
    first = saved(pixels, "TIFF", compression="tiff_lzw")
    yield refused("tags cut off.tif", first[:-40], "cut short TIFF")
    for name, size, word in (
        ("fewer rows than it says", (40, 20), "cut short TIFF"),
        ("60000 by 60000", (60_000, 60_000), "it has 60,000 x 60,000 pixels, more than"),
    ):
        yield refused(f"{name}.tif", tiff([raw(pixels)], size, RGB8, 2), word)
    short = tiff([zlib.compress(raw(pixels[:6]))], (12, 20), RGB8, 2, tags={COMPRESSION: [8]})
    yield refused("fewer rows than it says, deflated.tif", short, "damaged TIFF")
    junk = tiff([bytes(range(200))], (12, 20), RGB8, 2, tags={COMPRESSION: [8]})
    yield refused("junk for deflated pixels.tif", junk, "damaged TIFF")
    yield refused("no directory.tif", whole[:4] + bytes(4) + whole[8:], "cut short TIFF")
    loop = bytearray(tiff([raw(pixels)], (12, 20), RGB8, 2))
    start = struct.unpack_from("<I", loop, 4)[0]
    num_tags = struct.unpack_from("<H", loop, start)[0]
    loop[start + 2 + 12 * num_tags : start + 6 + 12 * num_tags] = struct.pack("<I", start)
    yield shown("a next page that is itself.tif", bytes(loop), pixels)
    yield refused(
        "pixels beyond its end.tif", tiff([raw(pixels)], (12, 20), RGB8, 2, tags={OFFSETS: [2**31]}), "cut short TIFF"
    )
    yield refused("no size.tif", tiff([raw(pixels)], (0, 20), RGB8, 2), "damaged TIFF")
    yield refused("bits of no kind.tif", tiff([raw(pixels)], (12, 20), (7, 3, 11), 2), "damaged TIFF")
    far = {COLOUR_MAP: list(range(768))}
    odd = bytearray(tiff([raw(greys())], (12, 20), (8,), 3, tags=far))
    start = odd.index(struct.pack("<HHI", COLOUR_MAP, SHORT, 768))
    odd[start + 2 : start + 8] = struct.pack("<HI", LONG, 384)
    yield refused("colours of another kind of number.tif", bytes(odd), "damaged TIFF")
    yield refused("tiles of no size.tif", tiff([raw(pixels)], (12, 20), RGB8, 2, tiles=(0, 0)), "damaged TIFF")
    yield refused("samples by the thousand.tif", tiff([raw(pixels)], (12, 20), (8,) * 2000, 2), "damaged TIFF")
