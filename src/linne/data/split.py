"""Which examples train, validate and test, and the fingerprint of the outcome."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from linne.data.names import counted, listed
from linne.data.source import Ints, Split

SPLITS = ("train", "val", "test")
_ENOUGH = 5
"""A class of this many examples gives at least one to each split that is made from it."""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Examples:
    """What an opener finds: labelled examples, in the splits that the files themselves define."""

    labels: tuple[str, ...]
    given: Mapping[str, Split]
    """`train` always; `val` and `test` only where the publisher or the user made them."""
    channels: int
    image_size: tuple[int, int]
    same_size: bool
    identities: Callable[[Sequence[Split]], list[bytes]]
    """For each split, bytes that change when one of its images does."""
    test_fraction: float | None = None
    """The share that a named set fixes for itself; None leaves it to the recipe."""
    notes: tuple[str, ...] = ()


def divide(
    examples: Examples, val_fraction: float | None, test_fraction: float, seed: int
) -> tuple[dict[str, Split], list[str]]:
    """Return the splits, those the files lack made from train, and a note for each decision.

    Without val and test: `test_fraction` of train becomes test, then `val_fraction` of what is left becomes val.
    With test only: val is made. With val only: nothing is made, the user has said what trains. A `val_fraction` of
    None makes no val.
    """
    splits, notes = dict(examples.given), []
    if "val" in splits and "test" not in splits:
        notes.append(
            "no test split: the files define train and val only, so nothing was taken out of train to make one"
        )
    if "val" not in splits and "test" not in splits:
        fraction = test_fraction if examples.test_fraction is None else examples.test_fraction
        notes += _take(splits, "test", fraction, seed, examples.labels)
    if "val" not in splits and val_fraction is not None:
        notes += _take(splits, "val", val_fraction, seed, examples.labels)
    return {name: splits[name] for name in SPLITS if name in splits}, notes


def _take(splits: dict[str, Split], name: str, fraction: float, seed: int, labels: Sequence[str]) -> list[str]:
    """Move `fraction` of `splits["train"]` to a new split `name`, and return what to say about it."""
    train = splits["train"]
    names = [train.example_name(position) for position in range(len(train))]
    held_N = hold_out(names, train.labels_N, fraction, seed)
    if not held_N.any():
        return [f"no {name} split: {counted(len(train), 'example')} in train are too few to hold any out"]
    splits["train"], splits[name] = select(train, ~held_N, "train"), select(train, held_N, name)
    notes = [
        f"{name}: {held_N.sum():,} of {counted(len(train), 'example')} held out of train, {fraction:g} of each class "
        f"(chosen by name and split_seed {seed})"
    ]
    counts_K = np.bincount(train.labels_N[held_N], minlength=len(labels))
    without = [label for label, count in zip(labels, counts_K, strict=True) if count == 0]
    if without:
        notes.append(f"{name} has no example of {listed(without)}: too few images to hold one out")
    return notes


def hold_out(names: Sequence[str], labels_N: Ints, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Return which examples are held out: `fraction` of each class, rounded.

    Within a class the examples are ordered by sha256(seed, name) and the first are taken, so that a file added
    later moves at most one other across the line, and neither library versions nor the order of a listing matter.
    A class keeps at least one example, and gives at least one when it has five or more.
    """
    digests = [_order(seed, name) for name in names]
    held_N = np.zeros(len(names), np.bool_)
    for label in np.unique(labels_N):
        positions = sorted(np.flatnonzero(labels_N == label), key=digests.__getitem__)
        least = 1 if len(positions) >= _ENOUGH and fraction > 0 else 0
        num_held = min(max(round(len(positions) * fraction), least), len(positions) - 1)
        held_N[positions[:num_held]] = True
    return held_N


def _order(seed: int, name: str) -> bytes:
    # NFC, because a copy by macOS may respell a name without changing it.
    return hashlib.sha256(f"{seed}\0{unicodedata.normalize('NFC', name)}".encode()).digest()


def select(split: Split, chosen_N: NDArray[np.bool_], name: str) -> Split:
    """Return the chosen examples of `split`, in its order and store, as a split called `name`."""
    return Split(name, split.store, split.indices_N[chosen_N], split.labels_N[chosen_N])


def fingerprint(examples: Examples, splits: Mapping[str, Split], labels: Sequence[str]) -> str:
    """Return a sha256 that changes when an image, its label or its split does."""
    ordered = [splits[name] for name in sorted(splits)]
    digest = hashlib.sha256(repr(tuple(labels)).encode())
    for split, identity in zip(ordered, examples.identities(ordered), strict=True):
        for part in (split.name.encode(), identity, split.labels_N.astype("<i8").tobytes()):
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()
