"""Which examples train, validate and test, and the fingerprint of the outcome."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from linne.data import index
from linne.data.draw import Bools, Groups, deal, deal_groups, hold_out, hold_out_groups, ranks_of
from linne.data.groups import find_groups
from linne.data.names import counted, listed
from linne.data.source import Ints, Split
from linne.errors import RecipeError, SourceError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Examples:
    """What an opener finds: labelled examples, in the splits that the files themselves define."""

    labels: tuple[str, ...]
    given: Mapping[str, Split]
    """`val` and `test` only where the publisher or the user made them; `train`, but in a list to evaluate on."""
    channels: int
    image_size: tuple[int, int]
    same_size: bool
    identities: Callable[[Sequence[Split]], list[bytes]]
    """For each split, bytes that change when one of its images does."""
    test_fraction: float | None = None
    """The share that a named set fixes for itself; None leaves it to the recipe."""
    notes: tuple[str, ...] = ()
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What a list says of its examples besides: a value for each example of the store."""
    index: str = ""
    """Identity of the index (`linne.data.index`) that `identities` wholly hangs on; empty where it reads the files.

    Splits are kept under it, so whoever changes `given` empties it.
    """


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitPlan:
    """How splits are made where the files do not define them."""

    val_fraction: float | None = 0.1
    """Share of train held out to choose the epoch, or None for no val split."""
    test_fraction: float = 0.15
    """Share of train held out for the final test where the files have neither test nor val."""
    seed: int = 0
    """Decides, with an example's name or its group's, whether it is held out."""
    group_by: str | None = None
    """A column of a list, or a regular expression with one group over names: what it gives alike stays together."""
    folds: int | None = None
    """Cut train into this many folds; val is one of them."""
    fold: int | None = None
    """Which, 1 to `folds`."""

    def __post_init__(self) -> None:
        for option in ("val_fraction", "test_fraction"):
            fraction = getattr(self, option)
            if fraction is not None and not 0 < fraction < 1:
                raise RecipeError(f"{option} is {fraction:g}, expected more than 0 and less than 1")
        if self.folds is None and self.fold is None:
            return
        if self.folds is None or self.fold is None:
            raise RecipeError(
                f"folds is {_shown(self.folds)} and fold is {_shown(self.fold)}; expected both or neither",
                hint="`--set data.folds=5 --set data.fold=1` trains on four fifths and validates on the first; "
                "`linne train SOURCE --folds 5` does all of them, one after the other",
            )
        if self.folds < 2:
            raise RecipeError(f"folds is {self.folds}, expected 2 or more")
        if not 1 <= self.fold <= self.folds:
            raise RecipeError(f"fold is {self.fold}, expected 1 to {self.folds}")
        if self.val_fraction is None:
            raise RecipeError("val_fraction is none with folds, which make a val split", hint="leave one of them out")


def _shown(value: int | None) -> str:
    return "none" if value is None else str(value)


@dataclass(frozen=True, eq=False, slots=True)
class Divided:
    """Examples in their final splits."""

    splits: dict[str, Split]
    notes: tuple[str, ...]
    """One line for each decision."""
    fingerprint: str


def divide(examples: Examples, plan: SplitPlan) -> Divided:
    """Return the splits, those the files lack made from train.

    Without val and test: `test_fraction` of train becomes test, then `val_fraction` of what is left becomes val, or
    one fold of it. With test only: val is made. With val only: nothing is made, the user has said what trains.

    Raises:
        SourceError: the source has a val split and folds are asked for, or a group is in two of its own splits.
        RecipeError: `group_by` fits neither a column nor the names.
    """
    key = _key(examples, plan)
    had, damage = index.load(key) if key else (None, [])
    if had is not None:
        return Divided(_cut(examples.given, had.arrays["place"]), tuple(had.facts["notes"]), had.facts["fingerprint"])
    place_N, notes = _places(examples, plan)
    splits = _cut(examples.given, place_N)
    found = fingerprint(examples, splits, examples.labels)
    if key:
        facts = {"notes": notes, "fingerprint": found}
        index.save(key, index.Index(facts, {"place": place_N}), watched=(), started_ns=0)
    return Divided(splits, (*notes, *damage), found)


def _key(examples: Examples, plan: SplitPlan) -> str:
    """Return what the outcome hangs on, or nothing where only the files can tell."""
    if not examples.index:
        return ""
    given = [
        (name, len(split), *(zlib.crc32(np.ascontiguousarray(a).data) for a in (split.indices_N, split.labels_N)))
        for name, split in examples.given.items()
    ]
    digest = hashlib.sha256(repr((examples.labels, examples.test_fraction, given)).encode())
    return f"splits 1\0{examples.index}\0{digest.hexdigest()}\0{plan!r}"


def _cut(given: Mapping[str, Split], place_N: NDArray[np.int8]) -> dict[str, Split]:
    """Return the final splits; `place_N` says for each example of the files' train its position in `SPLITS`."""
    splits = dict(given)
    for place, name in enumerate(SPLITS):
        chosen_N = place_N == place
        if chosen_N.any() or (name == "train" and name in given):
            splits[name] = select(given["train"], chosen_N, name)
    return {name: splits[name] for name in SPLITS if name in splits}


def _places(examples: Examples, plan: SplitPlan) -> tuple[NDArray[np.int8], list[str]]:
    """Return for each example of the files' train its place in `SPLITS`, and a note for each decision."""
    given = examples.given
    if "train" not in given:
        return np.zeros(0, np.int8), []
    if plan.folds is not None and "val" in given:
        raise SourceError(
            f"folds={plan.folds} would make a val split, and this source has its own",
            hint="leave out folds, or put the validation images among the training images",
        )
    notes = []
    if "val" in given and "test" not in given:
        notes.append(
            "no test split: the files define train and val only, so nothing was taken out of train to make one"
        )
    pool = _pool(examples, plan)
    place_N = np.zeros(len(given["train"]), np.int8)
    if "val" not in given and "test" not in given:
        fraction = plan.test_fraction if examples.test_fraction is None else examples.test_fraction
        notes += _take(pool, place_N, "test", fraction, examples.labels)
    if plan.folds is not None and plan.fold is not None:
        notes += _take_fold(pool, place_N, plan.fold, plan.folds, examples.labels)
    elif "val" not in given and plan.val_fraction is not None:
        notes += _take(pool, place_N, "val", plan.val_fraction, examples.labels)
    return place_N, notes


@dataclass(frozen=True, eq=False, slots=True)
class _Pool:
    """What the files give to train with, to draw other splits from."""

    labels_N: Ints
    seed: int
    ranks_N: NDArray[np.uint64] | None
    groups: Groups | None
    """One of the two is there."""

    def hold_out(self, left_N: Bools, fraction: float) -> Bools:
        """Return which of the examples that are left are held out."""
        if self.groups is not None:
            return hold_out_groups(self.groups.select(left_N), self.labels_N[left_N], fraction, self.seed)
        assert self.ranks_N is not None
        return hold_out(self.ranks_N[left_N], self.labels_N[left_N], fraction)

    def deal(self, left_N: Bools, folds: int) -> Ints:
        """Return the fold of each of the examples that are left, 0 to `folds` - 1."""
        if self.groups is not None:
            return deal_groups(self.groups.select(left_N), self.labels_N[left_N], folds, self.seed)
        assert self.ranks_N is not None
        return deal(self.ranks_N[left_N], self.labels_N[left_N], folds)

    def say(self, chosen_N: Bools, left_N: Bools) -> str:
        """Return how many of the examples that are left were chosen, in words."""
        text = f"{chosen_N.sum():,} of {counted(int(left_N.sum()), 'example')}"
        if self.groups is None:
            return text
        chosen, left = (len(np.unique(self.groups.ids_N[of])) for of in (chosen_N, left_N))
        return f"{text} and {chosen:,} of {counted(left, 'group')}"

    @property
    def how(self) -> str:
        """How they were chosen, in words."""
        return f"(chosen by {'name' if self.groups is None else 'group'} and split_seed {self.seed})"


def _pool(examples: Examples, plan: SplitPlan) -> _Pool:
    train = examples.given["train"]
    if plan.group_by is not None:
        return _Pool(train.labels_N, plan.seed, None, find_groups(examples.given, examples.columns, plan.group_by))
    names = (train.example_name(position) for position in range(len(train)))
    return _Pool(train.labels_N, plan.seed, ranks_of(names, plan.seed), None)


def _take(pool: _Pool, place_N: NDArray[np.int8], name: str, fraction: float, labels: Sequence[str]) -> list[str]:
    """Give `fraction` of what trains in `place_N` to the split `name`, and return what to say about it."""
    left_N = place_N == 0
    chosen_N = left_N.copy()
    chosen_N[left_N] = pool.hold_out(left_N, fraction)
    if not chosen_N.any():
        if pool.groups is None:
            return [f"no {name} split: {counted(int(left_N.sum()), 'example')} in train are too few to hold any out"]
        groups = counted(len(np.unique(pool.groups.ids_N[left_N])), "group")
        return [f"no {name} split: {groups} in train: each holds all examples of some class"]
    place_N[chosen_N] = SPLITS.index(name)
    near = "" if pool.groups is None else "near "
    said = f"{name}: {pool.say(chosen_N, left_N)} held out of train, {near}{fraction:g} of each class {pool.how}"
    return [said, *_without(pool, chosen_N, name, labels)]


def _take_fold(pool: _Pool, place_N: NDArray[np.int8], fold: int, folds: int, labels: Sequence[str]) -> list[str]:
    """Give one fold of what trains in `place_N` to val, and return what to say about it."""
    left_N = place_N == 0
    chosen_N = left_N.copy()
    chosen_N[left_N] = pool.deal(left_N, folds) == fold - 1
    if not chosen_N.any():
        what = "example" if pool.groups is None else "group"
        raise SourceError(f"fold {fold} of {folds} is empty: train has too few {what}s", hint="ask for fewer folds")
    place_N[chosen_N] = SPLITS.index("val")
    said = f"val: fold {fold} of {folds}, {pool.say(chosen_N, left_N)} in train {pool.how}"
    return [said, *_without(pool, chosen_N, "val", labels)]


def _without(pool: _Pool, chosen_N: Bools, name: str, labels: Sequence[str]) -> list[str]:
    counts_K = np.bincount(pool.labels_N[chosen_N], minlength=len(labels))
    without = [label for label, count in zip(labels, counts_K, strict=True) if count == 0]
    why = "too few images to hold one out" if pool.groups is None else "too few groups to hold one out"
    return [f"{name} has no example of {listed(without)}: {why}"] if without else []


def select(split: Split, chosen_N: Bools, name: str) -> Split:
    """Return the chosen examples of `split`, in its order and store, as a split called `name`."""
    positions = np.flatnonzero(chosen_N)
    return Split(name, split.store, split.indices_N.take(positions), split.labels_N.take(positions))


def fingerprint(examples: Examples, splits: Mapping[str, Split], labels: Sequence[str]) -> str:
    """Return a sha256 that changes when an image, its label or its split does."""
    ordered = [splits[name] for name in sorted(splits)]
    digest = hashlib.sha256(repr(tuple(labels)).encode())
    for split, identity in zip(ordered, examples.identities(ordered), strict=True):
        for part in (split.name.encode(), identity, split.labels_N.astype("<i8").tobytes()):
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()
