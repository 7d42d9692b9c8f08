"""What a network sees of images, as files: resized and cut to its size, before mean and deviation."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from linne.errors import LinneError
from linne.preprocess import UInt8


class SeenImages:
    """A new folder of PNG files, numbered in the order of the images."""

    def __init__(self, folder: Path) -> None:
        """Make the folder.

        Raises:
            LinneError: it is there and holds something, or cannot be made.
        """
        self._folder = folder
        self._count = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            taken = any(folder.iterdir())
        except OSError as error:
            raise LinneError(f"the folder `{folder}` cannot be made: {error.strerror}") from error
        if taken:
            raise LinneError(f"the folder `{folder}` holds files already, which stay", hint="name another folder")

    def add(self, name: str, pixels_HWC: UInt8) -> None:
        """Write what is seen of the image `name`."""
        self._count += 1
        stem = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in Path(name).stem)[:60]
        image = Image.fromarray(pixels_HWC.squeeze(-1) if pixels_HWC.shape[2] == 1 else pixels_HWC)
        image.save(self._folder / f"{self._count:05}-{stem}.png")
