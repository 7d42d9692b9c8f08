"""Which examples are held out, and which fold each is in: pure functions of names, labels, groups and a seed.

Chance comes from sha256 over the seed and a name. So the choice is the same on every machine and in every version,
the order of a listing does not matter, and a file added later moves few others.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from linne.data.source import Ints

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

_ENOUGH = 5
"""A class of this many examples gives at least one to each split that is made from it."""
NEVER = -1
"""The fold of an example that always trains."""


@dataclass(frozen=True, eq=False, slots=True)
class Groups:
    """Examples that must stay together, such as all photos of one patient."""

    names: tuple[str, ...]
    ids_N: Ints
    """Each example's position in `names`."""

    def select(self, chosen_N: Bools) -> Groups:
        """Return the groups of the chosen examples."""
        return Groups(self.names, self.ids_N[chosen_N])


def ranks_of(names: Iterable[str], seed: int) -> NDArray[np.uint64]:
    """Return a number for each name by which to order them: the first 64 bits of sha256(seed, name)."""
    prefix = f"{seed}\0".encode()
    digests = [hashlib.sha256(prefix + _normal(name).encode()).digest() for name in names]
    return np.frombuffer(b"".join(digests), ">u8")[::4].astype(np.uint64)


def _normal(name: str) -> str:
    # NFC, because a copy by macOS may respell a name without changing it.
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def hold_out(ranks_N: NDArray[np.uint64], labels_N: Ints, fraction: float) -> Bools:
    """Return which examples are held out: those that rank first, `fraction` of each class, rounded.

    A file added later moves at most one other across the line. A class keeps at least one example, and gives at least
    one when it has five or more.
    """
    counts_K = np.bincount(labels_N)
    least_K = np.where((counts_K >= _ENOUGH) & (fraction > 0), 1, 0)
    wanted_K = np.minimum(np.maximum(np.rint(counts_K * fraction).astype(np.int64), least_K), counts_K - 1)
    order_N, places_N = _places_in_class(ranks_N, labels_N, counts_K)
    held_N = np.zeros(len(labels_N), np.bool_)
    held_N[order_N] = places_N < wanted_K[labels_N[order_N]]
    return held_N


def deal(ranks_N: NDArray[np.uint64], labels_N: Ints, folds: int) -> Ints:
    """Return the fold of each example, 0 to `folds` - 1: each class in rank order, cut into `folds` equal parts.

    The parts of a class differ by at most one example, and begin one fold later for each class, so that whole folds
    stay nearly equal too. An example added later moves at most one other across each line. The only example of a
    class is in no fold, `NEVER`: a model that has not seen it cannot be asked for it.
    """
    counts_K = np.bincount(labels_N)
    order_N, places_N = _places_in_class(ranks_N, labels_N, counts_K)
    ordered_N = labels_N[order_N]
    folds_N = np.empty(len(labels_N), np.int64)
    folds_N[order_N] = (places_N * folds // counts_K[ordered_N] + ordered_N) % folds
    folds_N[counts_K[labels_N] == 1] = NEVER
    return folds_N


def _places_in_class(ranks_N: NDArray[np.uint64], labels_N: Ints, counts_K: Ints) -> tuple[Ints, Ints]:
    """Return the examples ordered by class and then by rank, and for each its place among those of its class."""
    order_N = np.lexsort((ranks_N, labels_N))
    starts_K = np.cumsum(counts_K) - counts_K
    return order_N, np.arange(len(labels_N)) - starts_K[labels_N[order_N]]


def hold_out_groups(groups: Groups, labels_N: Ints, fraction: float, seed: int) -> Bools:
    """Return which examples are held out: whole groups, so that each class gives as near to `fraction` as they allow.

    Groups are met in the order of sha256(seed, name). One is taken when that brings the classes nearer to what is
    wanted of them: the squares of what is still missing or already too much, each as a share of its class, summed.
    When none does, because all are too large, the one that does least harm is taken. No class loses its last example.
    """
    counts_K = np.bincount(labels_N).astype(np.float64)
    wanted_K = np.where(counts_K >= _ENOUGH, np.maximum(counts_K * fraction, 1), counts_K * fraction)
    held_K = np.zeros_like(counts_K)
    made = list(_in_order(groups, labels_N, seed))

    def harm(classes: Ints, number: Floats) -> float:
        over = held_K[classes] - wanted_K[classes]
        # Added exactly, whatever the order: a tie must fall the same way on every machine.
        return math.fsum((((over + number) ** 2 - over**2) / counts_K[classes] ** 2).tolist())

    taken = []
    for group, classes, number in made:
        if (held_K[classes] + number < counts_K[classes]).all() and harm(classes, number) < 0:
            held_K[classes] += number
            taken.append(group)
    if not taken:
        able = [(harm(c, n), place) for place, (_, c, n) in enumerate(made) if (n < counts_K[c]).all()]
        taken = [made[min(able)[1]][0]] if able else []
    return np.isin(groups.ids_N, taken)


def deal_groups(groups: Groups, labels_N: Ints, folds: int, seed: int) -> Ints:
    """Return the fold of each example, 0 to `folds` - 1, whole groups at a time, the classes as even as they allow.

    Groups are dealt largest first, those of one size in the order of sha256(seed, name), each to the fold that has
    least of its classes so far; the same rule as scikit-learn's StratifiedGroupKFold follows, in plain counts. A class
    that would be in one fold only keeps its first group out of all folds, `NEVER`, so that there is always something
    to learn it from.
    """
    counts_K = np.bincount(labels_N).astype(np.float64)
    made = sorted(_in_order(groups, labels_N, seed), key=lambda one: -one[2].sum())  # stable: ties stay in order
    dealt_FK = np.zeros((folds, len(counts_K)))
    fold_of = {}
    for group, classes, number in made:
        crowding_F = [math.fsum(row) for row in (dealt_FK[:, classes] * number / counts_K[classes] ** 2).tolist()]
        fold = int(np.lexsort((dealt_FK.sum(axis=1), crowding_F))[0])
        dealt_FK[fold, classes] += number
        fold_of[group] = fold
    alone = set(np.flatnonzero((dealt_FK > 0).sum(axis=0) == 1).tolist())
    for group, classes, _ in made:
        mine = alone.intersection(classes.tolist())
        if mine:
            fold_of[group] = NEVER
            alone -= mine
    return np.array([fold_of[group] for group in groups.ids_N.tolist()], np.int64)


def _in_order(groups: Groups, labels_N: Ints, seed: int) -> Iterator[tuple[int, Ints, Floats]]:
    """Yield each group that has examples, by rank: its id, its classes, and how many examples it has of each."""
    num_classes = int(labels_N.max(initial=0)) + 1
    pairs, numbers = np.unique(groups.ids_N * num_classes + labels_N, return_counts=True)
    ids, classes = pairs // num_classes, pairs % num_classes
    present, starts = np.unique(ids, return_index=True)
    ends = np.append(starts[1:], len(ids))
    ranks = ranks_of([groups.names[group] for group in present.tolist()], seed)
    for place in np.argsort(ranks, kind="stable").tolist():
        part = slice(starts[place], ends[place])
        yield int(present[place]), classes[part], numbers[part].astype(np.float64)
