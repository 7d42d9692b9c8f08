"""A batch that is too large for the memory is computed in parts, whose gradients add up to those of the whole."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from linne.data.loading.augment_mix import Mixture
from linne.data.loading.loader import Batch
from linne.device import Device
from linne.errors import LinneError, OutOfMemory

_OUT_OF_MEMORY = (
    "out of memory",  # CUDA, HIP, MPS, XPU and NPU
    "can't allocate memory",  # the CPU under Linux and macOS
    "not enough memory",  # the CPU under Windows, and DirectML
    "could not allocate tensor",  # DirectML
    "alloc_failed",  # cuBLAS and cuDNN, which allocate outside of torch
)
"""What errors say, in small letters: torch has a class for it from 2.5 on, and not every backend raises that."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of any backend says that memory is short."""
    if isinstance(error, MemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in said for words in _OUT_OF_MEMORY)


def parts_of(batch: Batch, largest: int | None) -> Iterator[Batch]:
    """Yield `batch` in as few parts of nearly one size as hold at most `largest` images each.

    All processes that share a batch make as many parts: they exchange gradients after each.
    """
    count = len(batch.labels_N)
    most = max(count, batch.most_in_one)
    if largest is None or most <= largest:
        yield batch
        return
    num_parts = math.ceil(most / largest)
    edges = [count * number // num_parts for number in range(num_parts + 1)]
    for start, stop in itertools.pairwise(edges):
        part, mixture = slice(start, stop), batch.mixture
        if mixture is not None:
            mixture = Mixture(mixture.labels_N[part], mixture.shares_N[part])
        images_NCHW, labels_N = batch.images_NCHW[part], batch.labels_N[part]
        views_NCHW = tuple(view_NCHW[part] for view_NCHW in batch.views_NCHW)
        yield replace(batch, images_NCHW=images_NCHW, labels_N=labels_N, mixture=mixture, views_NCHW=views_NCHW)


def smaller(largest: int | None, count: int, least: int) -> int | None:
    """Return half of what was computed at once of `count` images; None where that is less than `least`."""
    half = math.ceil(min(largest or count, count) / 2)
    return half if least <= half < min(largest or count, count) else None


def fitting(
    compute: Callable[[int | None], torch.Tensor],
    largest: int | None,
    count: int,
    device: Device,
    least: int,
    *,
    together: bool = False,
) -> tuple[torch.Tensor, int | None]:
    """Return what `compute(largest)` gives, with `largest` halved as often as memory is short, and that number.

    `compute` has to leave nothing behind when it raises. Works by what errors say, so on every device. What several
    processes compute `together` none can try again alone: the others wait for it in the middle of an exchange.

    Raises:
        OutOfMemory: fewer images may fit, but they are computed together.
        LinneError: `least` images are still too many.
    """
    while True:
        try:
            return compute(largest), largest
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            said = str(error).partition("\n")[0][:200]
        # Outside of the handler: the traceback holds the tensors of the pass that failed.
        half = smaller(largest, count, least)
        problem = f"`{device.address}` is out of memory with {min(largest or count, count)} images at once: {said}"
        if half is None:
            hint = "use smaller images (--set data.height=... data.width=...) or a smaller model"
            raise LinneError(problem, hint=hint)
        if together:
            raise OutOfMemory(problem, micro_batch=half)
        largest = half
        device.release_memory()
