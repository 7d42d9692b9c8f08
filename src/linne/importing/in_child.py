"""What the processes that export models of other libraries have in common: refusals, sizes, outputs, pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from linne.preprocess import Floats


class Refused(Exception):
    """What is wrong with a model, in words that go after its name, and what to do about it."""

    def __init__(self, why: str, hint: str | None = None) -> None:
        super().__init__(why)
        self.hint = hint


def images_like(sizes: Sequence[int]) -> Floats:
    """Return two images of `sizes`, drawn at random: one of pixels of 0 to 1, one of 0 to 255."""
    images = np.random.default_rng(0).random((2, *sizes), dtype=np.float32)
    images[1] *= 255
    return images


def one_image(shape: Sequence[int | None], height: int, width: int) -> list[int]:
    """Return the shape of one image, where the model leaves height and width open those that were said.

    Args:
        shape: of the model's input, the batch first.
        height: 0 where nobody said it; so with `width`.

    Raises:
        Refused: no image has this shape, or a size is open and nobody said it.
    """
    sizes = list(shape[1:])
    if len(sizes) not in (2, 3):
        seen = " x ".join("?" if size is None else str(size) for size in shape) or "unknown"
        raise Refused(f"takes input of shape {seen}, expected a batch of images")
    first = 0 if len(sizes) == 2 or sizes[2] in (1, 3) else 1
    for place, (name, said) in enumerate((("height", height), ("width", width)), start=first):
        sizes[place] = sizes[place] or said
        if not sizes[place]:
            raise Refused(
                f"takes images of any {name}",
                "use --preprocess height=224 --preprocess width=224, or what it was trained with",
            )
    whole = [size for size in sizes if size]
    if len(whole) != len(sizes):
        raise Refused("takes images of any number of channels, expected 1 or 3")
    return whole


def one_output(names: Sequence[str], typed: str) -> int:
    """Return the place of the one output there is, or of the one `typed`.

    Raises:
        Refused: there are several and none is typed, or there is no such.
    """
    listed = ", ".join(f"`{name}`" for name in names)
    if typed and typed not in names:
        raise Refused(f"has no output `{typed}`", f"it has {listed}")
    if not typed and len(names) != 1:
        raise Refused(f"has {len(names)} outputs", f"use --output-name with one of {listed}")
    return names.index(typed) if typed else 0
