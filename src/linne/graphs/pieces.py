"""Batches of images cut to the size that a graph with a fixed batch takes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from linne.preprocess import Floats


def pieces_of(images: Floats, size: int) -> list[Floats]:
    """Return `images` in pieces of `size`; what the last one lacks is zeros."""
    pieces = [images[start : start + size] for start in range(0, len(images), size)]
    missing = size - len(pieces[-1])
    if missing:
        pieces[-1] = np.concatenate([pieces[-1], np.zeros((missing, *images.shape[1:]), images.dtype)])
    return pieces


def run_in_pieces(run: Callable[[Floats], Floats], images: Floats, size: int) -> Floats:
    """Return what `run` answers to `images`, one row each, given `size` of them at a time."""
    return np.concatenate([run(piece) for piece in pieces_of(images, size)])[: len(images)]
