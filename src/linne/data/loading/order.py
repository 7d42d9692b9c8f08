"""Which examples an epoch sees, in which batches: pure functions of seed, epoch and labels.

An epoch is made of draws. Draw d of N examples is example d % N, and d // N says which of its copies: an example
that is seen more than once in an epoch is augmented in another way each time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from linne.recipe import DataConfig

Ints = NDArray[np.int64]


def epoch_batches(seed: int, epoch: int, labels_N: Ints, data: DataConfig) -> list[Ints]:
    """Return the draws of each batch of an epoch, as many in all as there are examples."""
    if data.balance is None:
        order_N = permutation(seed, epoch, len(labels_N))
    else:
        order_N = balanced(seed, epoch, labels_N, power=0.0 if data.balance == "class" else 0.5)
    batches = cut(order_N, data.batch_size)
    return batches if data.repeats is None else repeated(batches, data.repeats, len(labels_N))


def permutation(seed: int, epoch: int, count: int) -> Ints:
    """Return the order of `count` examples in an epoch: a pure function of its arguments."""
    return _generator(seed, epoch).permutation(count)


def balanced(seed: int, epoch: int, labels_N: Ints, *, power: float) -> Ints:
    """Return N draws in which a class of n examples has a part in proportion to n ** `power`.

    All examples of a class are drawn once before one is drawn again; which of them are drawn more often than others
    changes from epoch to epoch. The parts are rounded so that they are exact in the mean over epochs.
    """
    random, count = _generator(seed, epoch), len(labels_N)
    sizes_K = np.bincount(labels_N)
    weights_K = np.where(sizes_K > 0, sizes_K.astype(np.float64) ** power, 0.0)
    bounds_K = np.floor(np.cumsum(weights_K) / weights_K.sum() * count + random.random()).astype(np.int64)
    bounds_K[-1] = count
    draws = []
    classes = np.split(np.argsort(labels_N, kind="stable"), np.cumsum(sizes_K)[:-1])
    for members_M, wanted in zip(classes, np.diff(bounds_K, prepend=0).tolist(), strict=True):
        for copy, first in enumerate(range(0, wanted, max(len(members_M), 1))):
            draws.append(random.permutation(members_M)[: wanted - first] + copy * count)
    return random.permutation(np.concatenate(draws))


def repeated(batches: list[Ints], repeats: int, count: int) -> list[Ints]:
    """Return batches of the same sizes in which each image is there `repeats` times (Hoffer et al. 2019).

    They see the first of the images in `batches`, in their order; copies stand as far apart as they can, so that
    mixup takes another image as the neighbour.
    """
    order_N, start, made = np.concatenate(batches), 0, []
    for size in map(len, batches):
        different = -(-size // repeats)
        draws_D = order_N[start : start + different]
        copies = draws_D // count * repeats + np.arange(repeats)[:, None]
        made.append((draws_D % count + copies * count).reshape(-1)[:size])
        start += different
    return made


def cut(order_N: Ints, batch_size: int) -> list[Ints]:
    """Return `order_N` in the fewest batches of at most `batch_size`, which differ in size by at most one.

    A batch of one image, from which batch norm cannot learn, is put to another, unless `batch_size` is 1.
    """
    return np.array_split(order_N, count_batches(len(order_N), batch_size))


def count_batches(num_examples: int, batch_size: int) -> int:
    """Return how many batches `cut` makes; asked for at every step, so nothing is cut for it."""
    num_batches = max(1, -(-num_examples // batch_size))
    if batch_size > 1 and num_examples < 2 * num_batches:
        return max(1, num_examples // 2)
    return num_batches


def _generator(seed: int, epoch: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, epoch]))
