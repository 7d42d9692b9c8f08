"""What bytes become pixels, which, and what is said of the others."""

import io
import os
import random
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from linne.data.images.decode import MAX_BYTES, decode, decode_file, peek_file
from linne.errors import ImageError

LOSSLESS = {"PNG": {}, "BMP": {}, "TIFF": {}, "PPM": {}, "WEBP": {"lossless": True}}


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def scene(height=48, width=64):
    """A smooth colour picture with some grain: JPEG hurts it little, and no side is like another."""
    y, x = np.mgrid[:height, :width]
    grain = np.random.default_rng(0).integers(0, 12, (height, width, 3))
    return (np.stack([x * 3, y * 4, 255 - (x + y) * 2], axis=-1) + grain).clip(0, 255).astype(np.uint8)


PIXELS = scene()
PICTURE = Image.fromarray(PIXELS)


def refusal(data, channels=3):
    with pytest.raises(ImageError) as caught:
        decode(data, channels)
    assert "\n" not in caught.value.message
    return caught.value.message


# What the pixels are


@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_lossless_file_decodes_to_the_pixels_that_were_saved(kind):
    data = encoded(PICTURE, kind, **LOSSLESS[kind])
    assert np.array_equal(decode(data, 3), PIXELS)
    assert np.array_equal(decode(data, 1)[..., 0], np.asarray(PICTURE.convert("L")))


def test_decoded_pixels_belong_to_the_caller():
    pixels = decode(encoded(PICTURE, "PNG"), 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous


def test_only_one_or_three_channels_can_be_asked_for():
    with pytest.raises(ValueError, match="channels is 4, expected 1 or 3"):
        decode(encoded(PICTURE, "PNG"), 4)


def test_grey_becomes_three_equal_channels():
    grey = PICTURE.convert("L")
    pixels = decode(encoded(grey, "PNG"), 3)
    assert np.array_equal(pixels, np.repeat(np.asarray(grey)[..., None], 3, axis=2))
    assert np.array_equal(decode(encoded(grey, "PNG"), 1)[..., 0], np.asarray(grey))


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("TIFF", {"compression": "group4"}), ("PPM", {}), ("BMP", {})]
)
def test_one_bit_images_become_black_and_white(kind, options):
    bits = PICTURE.convert("1")
    expected = np.asarray(bits).astype(np.uint8) * 255
    assert np.array_equal(decode(encoded(bits, kind, **options), 1)[..., 0], expected)


def test_a_palette_is_looked_up():
    palette = PICTURE.quantize(64)
    assert np.array_equal(decode(encoded(palette, "PNG"), 3), np.asarray(palette.convert("RGB")))
    assert np.array_equal(decode(encoded(palette, "GIF"), 3), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_composited_on_white_so_hidden_colour_stays_hidden(kind):
    rgba = np.zeros((4, 6, 4), np.uint8)
    rgba[..., 0] = 255
    rgba[:, 2:4, 3] = 128
    rgba[:, 4:, 3] = 255
    pixels = decode(
        encoded(Image.fromarray(rgba), kind, **LOSSLESS[kind], **({"exact": True} if kind == "WEBP" else {})), 3
    )
    assert (pixels[:, :2] == 255).all(), "transparent red is white"
    assert (pixels[:, 2:4] == (255, 127, 127)).all(), "half of it is half-way"
    assert (pixels[:, 4:] == (255, 0, 0)).all()


def test_grey_with_alpha_is_composited_on_white():
    grey_alpha = np.zeros((2, 3, 2), np.uint8)
    grey_alpha[:, 1, 1], grey_alpha[:, 2, 1] = 128, 255
    for channels in (1, 3):
        pixels = decode(encoded(Image.fromarray(grey_alpha, "LA"), "PNG"), channels)
        assert pixels[0, :, 0].tolist() == [255, 127, 0]


@pytest.mark.parametrize("transparency", [0, b"\x00\x80"])
def test_palette_transparency_is_composited_on_white(transparency):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 0, 0, 0, 0, 255])
    pixels = decode(encoded(image, "PNG", transparency=transparency), 3)[0].tolist()
    assert pixels == [[255, 255, 255], [0, 0, 0] if transparency == 0 else [127, 127, 127], [0, 0, 255]]


def test_a_transparent_gif_colour_is_white():
    image = Image.fromarray(np.array([[0, 1, 2, 1]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 128, 0, 0, 0, 255])
    assert decode(encoded(image, "GIF", transparency=1), 3)[0].tolist() == [
        [255, 0, 0],
        [255, 255, 255],
        [0, 0, 255],
        [255, 255, 255],
    ]


def png(depth, colour_type, width, height, rows, *chunks):
    """Write a PNG byte by byte, for what Pillow cannot save."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *(chunk(*c) for c in chunks),
            chunk(b"IDAT", body),
            chunk(b"IEND", b""),
        )
    )


@pytest.mark.parametrize(
    ("depth", "colour_type", "row", "transparent", "expected"),
    [
        (8, 0, bytes([10, 200]), struct.pack(">H", 10), [[255] * 3, [200] * 3]),
        (2, 0, bytes([0b01100000]), struct.pack(">H", 1), [[255] * 3, [170] * 3]),
        (8, 2, bytes([1, 2, 3, 9, 9, 9]), struct.pack(">HHH", 1, 2, 3), [[255] * 3, [9] * 3]),
        (
            16,
            2,
            struct.pack(">6H", 0x1200, 0, 0, 0x3400, 0, 0),
            struct.pack(">HHH", 0x1200, 0, 0),
            [[255] * 3, [0x34, 0, 0]],
        ),
        (16, 0, struct.pack(">2H", 0x1200, 257 * 9), struct.pack(">H", 0x1200), [[255] * 3, [9] * 3]),
    ],
    ids=["grey 8", "grey 2", "rgb 8", "rgb 16", "grey 16"],
)
def test_the_transparent_colour_of_a_png_is_white_at_every_depth(depth, colour_type, row, transparent, expected):
    data = png(depth, colour_type, 2, 1, [row], (b"tRNS", transparent))
    assert decode(data, 3)[0].tolist() == expected


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_the_colours_it_was_made_from(kind):
    data = encoded(PICTURE.convert("CMYK"), kind, **({"quality": 95} if kind == "JPEG" else {}))
    error = np.abs(decode(data, 3).astype(int) - PIXELS).mean(axis=(0, 1))
    assert (error < 3).all(), error


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled_not_clipped(kind):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    levels = decode(encoded(Image.fromarray(ramp), kind), 1).ravel().astype(int)
    assert (np.diff(levels) >= 0).all()
    assert (levels[0], levels[-1]) == (0, 255)
    assert np.abs(levels - np.arange(65536) / 257).max() <= 0.5, "rounded to the nearest level"


def test_big_endian_sixteen_bit_tiff_is_read_in_its_own_order():
    values = np.array([[0, 257, 256 * 255, 65535]], ">u2")
    image = Image.frombytes("I;16B", (4, 1), values.tobytes())
    assert decode(encoded(image, "TIFF"), 1)[0, :, 0].tolist() == [0, 1, 254, 255]


def test_sixteen_bit_colour_is_within_a_level():
    values = np.random.default_rng(0).integers(0, 65536, (1, 500, 3)).astype(">u2")
    pixels = decode(png(16, 2, 500, 1, [values.tobytes()]), 3)
    assert np.abs(pixels - values / 257).max() <= 1


def test_floating_point_images_from_0_to_1_are_scaled():
    values = np.array([[0, 0.25, 0.5, 1]], np.float32)
    assert decode(encoded(Image.fromarray(values), "TIFF"), 1)[0, :, 0].tolist() == [0, 64, 128, 255]


@pytest.mark.parametrize(
    ("value", "said"), [(255.0, "from 0 to 255"), (-0.5, "from -0.5 to 0"), (np.nan, "from nan to nan")]
)
def test_floating_point_images_of_another_range_are_refused_rather_than_guessed(value, said):
    data = encoded(Image.fromarray(np.array([[0, value]], np.float32)), "TIFF")
    with pytest.raises(ImageError) as caught:
        decode(data, 3)
    assert (
        caught.value.message == f"`image` cannot be read: its pixels are floating-point numbers {said}, expected 0 to 1"
    )
    assert caught.value.hint == "save it with 8 or 16 bits a channel"


def test_a_tiff_of_32_bit_integers_is_refused_because_no_range_is_stated():
    data = encoded(Image.fromarray(np.array([[0, 70000]], np.int32)), "TIFF")
    assert refusal(data) == "`image` cannot be read: its pixels are 32-bit integers, whose range no file states"


# Which way up


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_all_eight_exif_orientations_show_the_same_upright_picture(kind, orientation, tmp_path):
    stored_from_upright = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    stored = PICTURE.transpose(turns[stored_from_upright[orientation]]) if orientation > 1 else PICTURE
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else LOSSLESS[kind]))
    pixels = decode(data, 3).astype(int)
    assert pixels.shape == PIXELS.shape
    assert np.abs(pixels - PIXELS).mean() < (4 if kind == "JPEG" else 1e-9), "JPEG: loss; the others: equal"
    (tmp_path / "turned").write_bytes(data)
    header = peek_file(tmp_path / "turned")
    assert (header.height, header.width) in (
        [PIXELS.shape[:2], PIXELS.shape[1::-1]] if kind == "WEBP" else [PIXELS.shape[:2]]
    )


def test_jpeg_orientation_agrees_with_pillow_to_the_pixel():
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(PICTURE, "JPEG", exif=exif)
        assert np.array_equal(decode(data, 3), np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0junk" * 9]
)
def test_damaged_exif_changes_nothing_and_warns_of_nothing(exif):
    plain = encoded(PICTURE, "JPEG")
    assert np.array_equal(decode(encoded(PICTURE, "JPEG", exif=exif), 3), decode(plain, 3))


def test_an_impossible_orientation_means_upright():
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x0112, 3, 1, 9, 0) + bytes(4)
    assert decode(encoded(PICTURE, "JPEG", exif=exif), 3).shape == PIXELS.shape


def test_jpeg_metadata_of_any_amount_does_not_change_the_pixels():
    plain = encoded(PICTURE, "JPEG")
    padded = plain[:2] + b"\xff" * 5 + b"\xff\xe1" + struct.pack(">H", 60_002) + bytes(60_000)
    padded += b"\xff\xfe\x00\x09comment" + b"\xff\xe2\x00\x08MPF\0!!" + plain[2:]
    assert np.array_equal(decode(padded, 3), decode(plain, 3))


# Which frame


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_its_first_frame(kind):
    later = [Image.new("RGB", PICTURE.size, colour) for colour in ("red", "blue")]
    first = PICTURE.quantize(64).convert("RGB") if kind == "GIF" else PICTURE
    data = encoded(first, kind, save_all=True, append_images=later, **LOSSLESS.get(kind, {}))
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert np.array_equal(decode(data, 3), np.asarray(first))


# What is refused


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html>not found</html>", "it holds HTML; expected JPEG, PNG, GIF, BMP, WebP, TIFF or PPM"),
        (b"\n <HTML>", "it holds HTML; expected"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it holds PostScript; expected"),
        (b"\xc5\xd0\xd3\xc6" + bytes(30), "it holds PostScript; expected"),
        (b"%PDF-1.7", "it holds a PDF document; expected"),
        (b"<?xml version='1.0'?><svg/>", "it holds SVG; expected"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "it holds HEIC; expected"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "it holds AVIF; expected"),
        (b"PK\x03\x04", "it holds a zip archive; expected"),
        (b"8BPS\0\x01", "it holds a Photoshop document; expected"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "it holds a Git LFS pointer, not the file it stands for; expected",
        ),
        (b"hello, world\n", "it holds text; expected"),
        (bytes(64), "it holds no image format known here; expected"),
        (b"BM, as in a text that begins so", "cut short BMP"),
    ],
)
def test_what_is_no_image_is_named_for_what_it_is(data, said):
    assert refusal(data).startswith(f"`image` cannot be read: {said}")


def test_a_refusal_says_what_to_do():
    with pytest.raises(ImageError) as caught:
        decode(b"<html>", 3)
    assert caught.value.hint == "convert it to JPEG or PNG, or take it out of the folder"


@pytest.mark.parametrize("suffix", ["jpg", "gif", "html", "eps"])
def test_a_file_is_known_by_its_content_whatever_it_is_called(tmp_path, suffix):
    file = tmp_path / f"image.{suffix}"
    file.write_bytes(encoded(PICTURE, "PNG"))
    assert np.array_equal(decode_file(file, 3), PIXELS)


def test_postscript_named_png_is_refused_and_starts_no_program(tmp_path, python):
    (tmp_path / "drawing.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    )
    code = """
import sys
started = []
sys.addaudithook(lambda event, args: started.append(event) if event in STARTS else None)
STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"}
from linne.data.images.decode import decode_file
try:
    decode_file(sys.argv[1], 3, name="drawing.png")
except Exception as error:
    print(type(error).__name__, error)
print(started, "PIL.EpsImagePlugin" in sys.modules)
"""
    ended = python("-c", code, tmp_path / "drawing.png")
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == [
        "ImageError `drawing.png` cannot be read: it holds PostScript; expected JPEG, PNG, GIF, BMP, WebP, TIFF or PPM",
        "[] False",
    ]


def bombs():
    """Headers that state 60,000 x 60,000 pixels, with next to nothing behind them."""
    side = 60_000
    jpeg = bytearray(encoded(PICTURE, "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    bmp = bytearray(encoded(PICTURE, "BMP"))
    bmp[18:26] = struct.pack("<ii", side, side)
    tiff = bytearray(encoded(PICTURE, "TIFF"))
    for tag, kind, size in ((256, 4, side), (257, 4, side)):
        entry = next(i for i in range(8, len(tiff)) if tiff[i : i + 2] == struct.pack("<H", tag))
        tiff[entry : entry + 12] = struct.pack("<HHII", tag, kind, 1, size)
    gif = bytearray(encoded(PICTURE.quantize(8), "GIF"))
    gif_screen = bytes(gif[:6]) + struct.pack("<HH", side, side) + bytes(gif[10:])
    descriptor = gif.index(b",\0\0\0\0")
    gif[descriptor + 5 : descriptor + 9] = struct.pack("<HH", side, side)
    extended = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (side - 1).to_bytes(3, "little") * 2
    webp = b"RIFF" + struct.pack("<I", 4 + len(extended) + 100) + b"WEBP" + extended + bytes(100)
    return {
        "PNG": png(8, 2, side, side, [b""]),
        "JPEG": bytes(jpeg),
        "BMP": bytes(bmp),
        "TIFF": bytes(tiff),
        "GIF screen": gif_screen,
        "GIF frame": bytes(gif),
        "WEBP": webp,
        "PPM": b"P6 60000 60000 255\n" + bytes(100),
    }


@pytest.mark.parametrize("kind", bombs())
def test_a_bomb_is_refused_by_its_header(kind, tmp_path):
    data = bombs()[kind]
    assert refusal(data) == "`image` cannot be read: it has 60,000 x 60,000 pixels, more than the 50,000,000 accepted"
    (tmp_path / "bomb").write_bytes(data)
    if kind != "WEBP":
        with pytest.raises(ImageError, match="60,000 x 60,000 pixels"):
            peek_file(tmp_path / "bomb")


def test_between_fifty_and_ninety_megapixels_is_refused_too():
    assert "it has 7,100 x 7,100 pixels, more than the 50,000,000 accepted" in refusal(png(1, 0, 7100, 7100, [b""]))


@pytest.mark.parametrize(
    ("kind", "place", "filling"),
    [
        ("GIF", 13, bytes(8 * 2**20)),
        ("GIF", 13, b"!\xfe\1x\0" * 10**6),
        ("GIF", 13, b"!\xfe" + b"\1x" * 10**6 + b"\0"),
        ("PNG", 33, b"\0\0\0\0abCd\xc1\x63\x8e\x5e" * 5 * 10**5),
    ],
)
def test_a_file_with_hundreds_of_thousands_of_empty_parts_is_refused_at_once(kind, place, filling):
    data = encoded(Image.new("1", (4, 4)), kind)
    if kind == "GIF":
        place += 3 << (data[10] & 7) + 1
    start = time.perf_counter()
    with pytest.raises(ImageError, match=f"more than 100,000 parts: such {kind}s are made to take long"):
        decode(data[:place] + filling + data[place:], 3)
    assert time.perf_counter() - start < 0.5, "one to three seconds, and a minute for 256 MiB, if all were walked"


def test_a_file_of_more_than_256_mib_is_refused_before_it_is_read(tmp_path):
    with open(tmp_path / "big.png", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ImageError, match=r"`big` cannot be read: it has 268,435,457 bytes, more than the 268,435,456"):
        decode_file(tmp_path / "big.png", 3, name="big")


def outcome(data):
    """Return the pixels, or the text of the refusal."""
    try:
        return decode(data, 3)
    except ImageError as refused:
        return refused.message


def samples():
    """One small file of each way to store an image, by name."""
    grainy = Image.fromarray(scene(24, 32))
    frames = {"save_all": True, "append_images": [grainy.rotate(9), grainy.rotate(50)]}
    return {
        "JPEG": encoded(grainy, "JPEG"),
        "progressive JPEG": encoded(grainy, "JPEG", progressive=True),
        "JPEG with EXIF": encoded(grainy, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0"),
        "PNG": encoded(grainy, "PNG"),
        "palette PNG": encoded(grainy.quantize(16), "PNG", transparency=3),
        "APNG": encoded(grainy, "PNG", **frames),
        "GIF": encoded(grainy.quantize(16), "GIF"),
        "animated GIF": encoded(grainy.quantize(16), "GIF", **frames),
        "BMP": encoded(grainy, "BMP"),
        "WEBP": encoded(grainy, "WEBP"),
        "lossless WEBP": encoded(grainy, "WEBP", lossless=True),
        "animated WEBP": encoded(grainy, "WEBP", **frames),
        "TIFF": encoded(grainy, "TIFF"),
        "LZW TIFF": encoded(grainy, "TIFF", compression="tiff_lzw"),
        "deflate TIFF": encoded(grainy, "TIFF", compression="tiff_adobe_deflate"),
        "PPM": encoded(grainy, "PPM"),
    }


@pytest.mark.parametrize("kind", samples())
def test_a_file_cut_anywhere_is_refused_or_whole_never_half(kind):
    data = samples()[kind]
    whole = decode(data, 3)
    lengths = np.linspace(0, len(data) - 1, 100).astype(int).tolist()
    outcomes = [outcome(data[:length]) for length in lengths]
    assert all(isinstance(o, str) or np.array_equal(o, whole) for o in outcomes)
    assert sum(isinstance(o, str) for o in outcomes) >= 10, "an animation is whole once its first frame is"


@pytest.mark.parametrize(("kind", "said"), [("progressive JPEG", "cut short JPEG (image file is truncated (")])
def test_a_cut_file_is_said_to_be_cut(kind, said):
    data = samples()[kind]
    assert refusal(data[: len(data) * 2 // 3]).startswith(f"`image` cannot be read: {said}")


def test_a_tiff_whose_tags_are_cut_off_is_refused_rather_than_read_by_defaults():
    assert (
        refusal(samples()["LZW TIFF"][:-40]) == "`image` cannot be read: cut short TIFF (its tags lie beyond its end)"
    )


def mutated(data, rng):
    bytes_ = bytearray(data)
    for _ in range(rng.choice((1, 3, 20))):
        position = rng.randrange(len(bytes_) if rng.random() < 0.6 else min(64, len(bytes_)))
        action = rng.randrange(4)
        if action == 0:
            bytes_[position] = rng.randrange(256)
        elif action == 1:
            bytes_[position] ^= 1 << rng.randrange(8)
        elif action == 2 and len(bytes_) > 100:
            del bytes_[position : position + rng.randrange(1, 40)]
        else:
            bytes_[position:position] = rng.randbytes(rng.randrange(1, 20))
    return bytes(bytes_)


def test_two_thousand_damaged_files_give_pixels_or_one_line_of_refusal():
    rng, files, num_refused = random.Random(0), list(samples().values()), 0
    for k in range(2000):
        pixels = outcome(mutated(files[k % len(files)], rng))
        if isinstance(pixels, str):
            num_refused += 1
            assert pixels.startswith("`image` cannot be read: ")
            assert pixels.isprintable()
        else:
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 3
            assert pixels.shape[2] == 3
    assert 200 < num_refused < 2000


# Files


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "no such file or directory"),
        (lambda path: path.mkdir(), "it is a folder"),
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: os.mkfifo(path), "it is not a regular file"),
    ],
    ids=["missing", "folder", "empty", "named pipe"],
)
def test_a_file_that_is_no_image_file_is_refused_by_name(make, said, tmp_path):
    path = tmp_path / "one.jpg"
    if said == "it is not a regular file" and not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    make(path)
    for read in (lambda: decode_file(path, 3), lambda: peek_file(path)):
        with pytest.raises(ImageError) as caught:
            read()
        assert caught.value.message == f"`{path}` cannot be read: {said}"


def test_a_name_is_shown_on_one_line_whatever_is_in_it(tmp_path):
    with pytest.raises(ImageError) as caught:
        decode_file(tmp_path / "a\nb\x1b[31m\udcff.jpg", 3)
    assert "a\\nb\\x1b[31m\\udcff.jpg` cannot be read" in caught.value.message


def test_a_path_with_a_nul_is_refused():
    with pytest.raises(ImageError, match=r"`a\\x00b` cannot be read: embedded null byte"):
        decode_file("a\0b", 3)


@pytest.mark.parametrize(
    ("image", "kind", "grey"),
    [
        (PICTURE, "JPEG", False),
        (PICTURE.convert("L"), "JPEG", True),
        (PICTURE.convert("L"), "PNG", True),
        (PICTURE.convert("LA"), "PNG", True),
        (PICTURE.convert("L"), "GIF", True),
        (PICTURE.quantize(9), "GIF", False),
        (PICTURE.convert("1"), "TIFF", True),
        (PICTURE, "TIFF", False),
        (PICTURE, "WEBP", False),
        (PICTURE, "PPM", False),
    ],
)
def test_a_peek_tells_size_and_colour_without_decoding(image, kind, grey, tmp_path):
    data = encoded(image, kind)
    if kind != "TIFF":  # its tags may lie behind the pixels
        data = data[: max(len(data) // 2, 700)]
    (tmp_path / "image").write_bytes(data)
    header = peek_file(tmp_path / "image")
    assert (header.height, header.width, header.grey) == (48, 64, grey)


def test_threads_decode_at_once_and_leave_pillow_as_it_was():
    settings = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    files = [*samples().values(), *bombs().values()] * 4
    with ThreadPoolExecutor(8) as pool:
        for together, alone in zip(pool.map(outcome, files), map(outcome, files), strict=True):
            assert np.array_equal(together, alone)
    assert settings == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


def test_a_million_rows_of_one_pixel_are_refused_from_the_header():
    tags = ((256, 4, 1), (257, 4, 8_323_073), (258, 3, 8), (262, 3, 1), (273, 4, 8), (278, 4, 1), (279, 4, 4))
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(8)
    assert "1 x 8,323,073 pixels, more than the 100,000 accepted in a row" in refusal(data)
