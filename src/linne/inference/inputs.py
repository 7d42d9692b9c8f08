"""From what a user names on the command line to pictures, in order."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from linne.errors import LinneError

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))
MAX_STDIN_BYTES = 256 * 2**20

NamedImage = Path | tuple[str, bytes]
"""A file, or a name and the bytes of a picture."""


def find_images(inputs: Sequence[str | Path]) -> Iterator[NamedImage]:
    """Yield what `inputs` name: files as they are, folders' pictures, glob matches, `-` for one picture on stdin.

    A file that does not exist is yielded too, so that it becomes an error row in its place.

    Raises:
        LinneError: there is no input, or a folder or pattern without a picture.
    """
    if not inputs:
        raise LinneError(
            "no picture to predict", hint="name files, folders, patterns such as 'photos/*.jpg', or - for stdin"
        )
    # Everything is named before the first picture is read: a wrong pattern should not cost an hour.
    named: list[Iterator[NamedImage] | list[NamedImage]] = [_find(text) for text in map(str, inputs)]
    return (image for group in named for image in group)


def _find(text: str) -> Iterator[NamedImage] | list[NamedImage]:
    if text == "-":
        return _read_stdin()
    path = Path(text)
    if path.is_dir():
        found: list[NamedImage] = [file for file in sorted(path.rglob("*")) if _is_picture(file, path)]
        if not found:
            raise LinneError(f"the folder `{text}` holds no picture ({', '.join(sorted(IMAGE_SUFFIXES))})")
        return found
    if not path.exists() and glob.has_magic(text):
        matches: list[NamedImage] = [Path(match) for match in sorted(glob.glob(text, recursive=True))]
        matches = [match for match in matches if isinstance(match, Path) and match.is_file()]
        if not matches:
            raise LinneError(f"no file matches `{text}`")
        return matches
    return [path]


def _is_picture(file: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return not hidden and file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()


def _read_stdin() -> Iterator[NamedImage]:
    data = sys.stdin.buffer.read(MAX_STDIN_BYTES + 1)
    if len(data) > MAX_STDIN_BYTES:
        raise LinneError(f"stdin holds more than {MAX_STDIN_BYTES // 2**20} MiB, expected one picture")
    yield "-", data
