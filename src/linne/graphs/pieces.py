"""Batches of any size through a graph that takes one size only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linne.preprocess import Floats


def pieces_of(images: NDArray[Any], size: int) -> list[NDArray[Any]]:
    """Return `images` in pieces of `size`; what the last one lacks is zeros. No images are one piece of zeros."""
    pieces = [images[start : start + size] for start in range(0, max(len(images), 1), size)]
    missing = size - len(pieces[-1])
    if missing:
        pieces[-1] = np.concatenate([pieces[-1], np.zeros((missing, *images.shape[1:]), images.dtype)])
    return pieces


def run_in_pieces(run: Callable[[NDArray[Any]], Floats], images: NDArray[Any], size: int) -> Floats:
    """Return what `run` answers to `images`, one row each, given `size` of them at a time."""
    return np.concatenate([run(piece) for piece in pieces_of(images, size)])[: len(images)]
