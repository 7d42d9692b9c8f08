"""From what a user names on the command line to images, in order."""

from __future__ import annotations

import glob
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from linne.data.names import printable
from linne.data.sources.walk import IMAGE_SUFFIXES, walk
from linne.errors import LinneError

MAX_STDIN_BYTES = 256 * 2**20
MAX_URL_BYTES = 64 * 2**20

NamedImage = Path | tuple[str, bytes]
"""A file, or a name and the bytes of an image."""


def find_images(inputs: Sequence[str | Path]) -> Iterator[NamedImage]:
    """Yield what `inputs` name: files, folders' images, glob matches, addresses, `-` for one image on stdin.

    A file that does not exist is yielded too, so that it becomes an error row in its place.

    Raises:
        LinneError: there is no input, or a folder or pattern without an image.
    """
    if not inputs:
        raise LinneError(
            "no image to predict", hint="name files, folders, patterns such as 'photos/*.jpg', or - for stdin"
        )
    # Everything is named before the first image is read: a wrong pattern should not cost an hour.
    named: list[Iterator[NamedImage] | list[NamedImage]] = [_find(text) for text in map(str, inputs)]
    return (image for group in named for image in group)


def _find(text: str) -> Iterator[NamedImage] | list[NamedImage]:
    if text == "-":
        return _read_stdin()
    if text.startswith(("https://", "http://")):
        return [_fetched(text)]
    path = Path(text)
    if path.is_dir():
        found: list[NamedImage] = [path / name for name, _ in walk(os.path.realpath(path), "").images]
        if not found:
            raise LinneError(f"the folder `{printable(path)}` holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
        return found
    if not path.exists() and glob.has_magic(text):
        matches: list[NamedImage] = [Path(match) for match in sorted(glob.glob(text, recursive=True))]
        matches = [match for match in matches if isinstance(match, Path) and match.is_file()]
        if not matches:
            raise LinneError(f"no file matches `{printable(text)}`")
        return matches
    return [path]


def _fetched(url: str) -> tuple[str, bytes]:
    """Return the image at an address. Typing it is asking for it; nothing is kept.

    Raises:
        SourceError: it cannot be had, or is larger than an image.
    """
    from linne.download import fetch, is_offline  # takes longer to import than a small network to answer

    with tempfile.TemporaryDirectory() as folder:
        path = fetch([url], Path(folder) / "image", max_bytes=MAX_URL_BYTES, offline=is_offline())
        return url, path.read_bytes()


def _read_stdin() -> Iterator[NamedImage]:
    data = sys.stdin.buffer.read(MAX_STDIN_BYTES + 1)
    if len(data) > MAX_STDIN_BYTES:
        raise LinneError(f"stdin holds more than {MAX_STDIN_BYTES // 2**20} MiB, expected one image")
    yield "-", data
