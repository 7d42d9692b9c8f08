"""What is no image that is read here, though it is named like one: formats left out, documents, programs, nothing."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Iterator

from museum.picture import Exhibit, refused

EXPECTED = "expected JPEG, PNG, GIF, BMP, WebP, TIFF or PPM"


def exhibits() -> Iterator[Exhibit]:
    """Yield all of them."""
    yield refused("zero bytes.jpg", b"", "the file is empty")
    for name, what, data in _contents():
        yield refused(f"{name}.jpg", data, f"it holds {what}; {EXPECTED}")


def _contents() -> Iterator[tuple[str, str, bytes]]:
    """Yield a name, what it is said to hold, and the bytes."""
    for name, data in (
        ("a page not found", b"<!DOCTYPE html>\n<html><body>404</body></html>"),
        ("a page in capitals", b"\r\n\t<HTML><HEAD></HEAD></HTML>"),
        ("a page with a mark", b"<html lang='de'>"),
    ):
        yield name, "HTML", data
    yield "a drawing", "SVG", b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>"
    yield "a drawing without a head", "SVG", b"<svg width='9' height='9'></svg>"
    yield "PostScript", "PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"
    yield "PostScript with a preview", "PostScript", b"\xc5\xd0\xd3\xc6" + bytes(60)
    yield "a document", "a PDF document", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.jpg", b"a")
    yield "an archive", "a zip archive", stream.getvalue()
    yield "packed", "a gzip archive", gzip.compress(b"\xff\xd8\xff", mtime=0)
    yield "layers", "a Photoshop document", b"8BPS\0\1" + bytes(20)
    yield "an icon", "an icon", b"\0\0\1\0\1\0\x10\x10" + bytes(40)
    for brand, what in ((b"avif", "AVIF"), (b"avis", "AVIF"), (b"heic", "HEIC"), (b"heix", "HEIC"), (b"mif1", "HEIC")):
        yield f"brand {brand.decode()}", what, b"\0\0\0\x18ftyp" + brand + bytes(16)
    yield "a film", "a video", b"\0\0\0\x18ftypisom" + bytes(16)
    yield "JPEG 2000", "JPEG 2000", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40)
    yield "a JPEG 2000 codestream", "JPEG 2000", b"\xff\x4f\xff\x51" + bytes(40)
    yield "JPEG XL", "JPEG XL", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40)
    yield "a JPEG XL codestream", "JPEG XL", b"\xff\x0a" + bytes(40)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
    yield "a Git LFS pointer", "a Git LFS pointer, not the file it stands for", pointer
    for name, data in (
        ("a text", b"hello, world\n"),
        ("a list", b"path,label\ncat/1.jpg,cat\n"),
        ("a link of Windows", b"[InternetShortcut]\r\nURL=https://example.org/1.jpg\r\n"),
        ("the word JPEG", b"JPEG"),
        ("the word GIF88a", b"GIF88a" + b" " * 30),
    ):
        yield name, "text", data
    for name, data in (
        ("zeros", bytes(500)),
        ("noise", bytes((k * k * 7 + 13) % 256 for k in range(500))),
        ("one byte", b"\xff"),
        ("a program of Linux", b"\x7fELF\2\1\1" + bytes(60)),
        ("a program of Windows", b"MZ\x90\0" + bytes(60)),
        ("a sound", b"RIFF\x24\0\0\0WAVEfmt " + bytes(20)),
        ("a film of old", b"RIFF\x24\0\0\0AVI LIST" + bytes(20)),
        ("a Radiance picture", b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n\xff"),
        ("a pickle", b"\x80\4\x95\5\0\0\0\0\0\0\0]\x94."),
        ("an array", b"\x93NUMPY\1\0v\0" + bytes(60)),
        ("the resource fork of a Mac", b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(60)),
        ("a Targa picture", bytes([0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 24, 0, 1, 2, 3])),
        ("a picture in UTF-16", "<html>".encode("utf-16")),
    ):
        yield name, "no image format known here", data
