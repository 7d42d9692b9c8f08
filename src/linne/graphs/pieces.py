"""Batches of any size through a graph that takes one size only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from linne.preprocess import Floats


def run_in_pieces(run: Callable[[Floats], Floats], images: Floats, size: int) -> Floats:
    """Return what `run` gives for pieces of `size` images each, the last filled up with zeros, without theirs.

    No images are one piece as well: what comes of none has a shape.
    """
    pieces = [images[start : start + size] for start in range(0, max(len(images), 1), size)]
    missing = size - len(pieces[-1])
    pieces[-1] = np.concatenate([pieces[-1], np.zeros((missing, *images.shape[1:]), images.dtype)])
    return np.concatenate([run(piece) for piece in pieces])[: len(images)]
