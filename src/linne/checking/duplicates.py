"""Copies among the images: the same file, or nearly the same picture, under two labels, across splits, or repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from linne.checking.facts import THUMB_SIDE, Facts, small
from linne.checking.report import NOTE, STOP, WARNING, Finding, Group
from linne.checking.similar import Pairs, components, distances, similar_pairs
from linne.data.names import counted
from linne.data.source import Ints, UInt8
from linne.errors import ImageError

BLANK = 2.0
"""Brightness deviations below this are one even colour: all such images are alike, none is a copy."""
STOP_SHARE, STOP_SHARE_NEAR = 0.01, 0.05
"""Copies among train of more than this share of val or test stop: the score could be that much too high."""
_FINER = 1.3
"""How much further apart copies are at 32 pixels than at 16; in CIFAR-10, 9 of 10 less."""
_OTHER_COLOURS = 1.0
_BLOCK = 2048
_ADVICE = {
    "conflict": "one label is wrong, or both are meant: look at them, then mend the labels or leave the images out",
    "leak": "a model that has seen the answers scores too well: leave the training copies out",
    "repeat": "they count double in training; harmless unless there are many",
    "near-conflict": "look at them: where it is the same picture, one label is wrong",
    "near-leak": "if it is the same picture re-encoded, cut, mirrored or recoloured, leave the training copies out; "
    "photographs of one series belong in one split (`--group-by`)",
    "near-repeat": "they count as several in training; a split by chance would put some in test",
}


def exact_groups(facts: Facts) -> list[Ints]:
    """Return the groups of images with the same content."""
    readable = np.flatnonzero(facts.rows_N["readable"])
    _, codes = np.unique(facts.rows_N["digest"][readable], return_inverse=True)
    order = readable[np.argsort(codes, kind="stable")]
    cuts = np.flatnonzero(np.diff(np.sort(codes))) + 1
    return sorted((group for group in np.split(order, cuts) if len(group) > 1), key=lambda group: int(group[0]))


def near_groups(facts: Facts, exact: Sequence[Ints], channels: int, num_threads: int) -> list[Ints]:
    """Return the groups of images that are nearly the same picture, copies of the same content included."""
    rows_N = facts.rows_N
    first = rows_N["readable"] & (rows_N["deviation"] >= BLANK)
    first &= np.minimum(rows_N["height"], rows_N["width"]) >= THUMB_SIDE  # 8 x 8 pixels are too few to tell
    for group in exact:
        first[group[1:]] = False
    kept = np.flatnonzero(first)
    if len(kept) < 2:
        return []
    pairs = similar_pairs(rows_N["hash"][kept], rows_N["mirror"][kept], rows_N["thumb"][kept])
    pairs = replace(pairs, images_P2=kept[pairs.images_P2])
    images_P2 = pairs.images_P2[_alike(facts, pairs, channels, num_threads)]
    joined = [np.stack([np.full(len(group) - 1, group[0]), group[1:]], axis=1) for group in exact]
    digests = rows_N["digest"]
    groups = components(np.concatenate([images_P2, *joined]), len(facts))
    return sorted(
        (group for group in groups if (digests[group] != digests[group[0]]).any()), key=lambda group: int(group[0])
    )


def _alike(facts: Facts, pairs: Pairs, channels: int, num_threads: int) -> NDArray[np.bool_]:
    """Return which pairs hold on the pixels, decoded again: shape at twice the detail, and colour.

    Mirrored ones only where both have one label: an arrow to the left is no copy of one to the right.
    """
    labels_P2 = facts.labels_N[pairs.images_P2]
    alike_P = np.asarray(~pairs.mirrored_P | (labels_P2[:, 0] == labels_P2[:, 1]))

    def read(n: int) -> UInt8 | None:
        try:
            return small(facts.split(n), int(facts.positions_N[n]), channels)
        except ImageError:  # it was there a minute ago
            return None

    chosen = np.flatnonzero(alike_P)
    with ThreadPoolExecutor(num_threads) as pool:
        for start in range(0, len(chosen), _BLOCK):
            block = chosen[start : start + _BLOCK].tolist()
            numbers = np.unique(pairs.images_P2[block]).tolist()
            images = dict(zip(numbers, pool.map(read, numbers), strict=True))
            for place in block:
                first, second = (images[n] for n in pairs.images_P2[place].tolist())
                if second is not None and pairs.mirrored_P[place]:
                    second = second[:, ::-1]
                alike_P[place] = (
                    first is not None and second is not None and _same(first, second, pairs.limits_P[place])
                )
    return alike_P


def _same(first_HWC: UInt8, second_HWC: UInt8, limit: float) -> bool:
    grey = [np.rint(image.mean(2)).astype(np.uint8)[None] for image in (first_HWC, second_HWC)]
    if distances(*grey)[0] > _FINER * limit:
        return False
    return bool(distances(first_HWC[None], second_HWC[None])[0] <= _OTHER_COLOURS)


def findings(
    facts: Facts, exact: Sequence[Ints], near: Sequence[Ints], group_of: Callable[[Ints], Group]
) -> Iterator[Finding]:
    """Yield what copies there are, conflicting labels first. Each group is in one finding only: the first it fits."""
    for prefix, groups in (("", exact), ("near-", near)):
        conflicts, leaks, repeats = _sorted(facts, groups)
        same = "the same image" if not prefix else "nearly the same image"
        if conflicts:
            share = sum(map(len, conflicts)) / len(facts)
            title = f"{same} with different labels: {counted(len(conflicts), 'case')}"
            severity = STOP if share > STOP_SHARE and not prefix else WARNING
            yield Finding(
                f"{prefix}conflict", severity, title, _ADVICE[f"{prefix}conflict"], tuple(map(group_of, conflicts))
            )
        if leaks:
            worst, told = _leaked(facts, leaks)
            title = f"{same} in more than one split: {told}"
            severity = STOP if worst > (STOP_SHARE_NEAR if prefix else STOP_SHARE) else WARNING
            yield Finding(f"{prefix}leak", severity, title, _ADVICE[f"{prefix}leak"], tuple(map(group_of, leaks)))
        if repeats:
            number = sum(len(group) - 1 for group in repeats)
            title = f"{same} again in the same split: {counted(number, 'image')}"
            severity = WARNING if number / len(facts) > STOP_SHARE else NOTE
            yield Finding(f"{prefix}repeat", severity, title, _ADVICE[f"{prefix}repeat"], tuple(map(group_of, repeats)))


def _sorted(facts: Facts, groups: Sequence[Ints]) -> tuple[list[Ints], list[Ints], list[Ints]]:
    """Return the groups with several labels, of the rest those in several splits, and those in one."""
    conflicts, leaks, repeats = [], [], []
    for group in groups:
        labels_N, split_N = facts.labels_N[group], facts.split_N[group]
        if (labels_N != labels_N[0]).any():
            conflicts.append(group)
        elif (split_N != split_N[0]).any():
            leaks.append(group)
        else:
            repeats.append(group)
    return conflicts, leaks, repeats


def _leaked(facts: Facts, leaks: Sequence[Ints]) -> tuple[float, str]:
    """Return the largest share of val or test that another split has too, and the shares in words."""
    worst, told = 0.0, []
    involved = facts.split_N[np.concatenate(leaks)]
    for number, split in enumerate(facts.splits):
        count = int((involved == number).sum())
        if split.name != "train" and count:
            share = count / len(split)
            worst = max(worst, share)
            told.append(f"{counted(count, 'image')} of {split.name} ({share:.1%})".replace("%", " %"))
    return worst, ", ".join(told)


def better_left_out(facts: Facts, exact: Sequence[Ints], near: Sequence[Ints]) -> dict[int, str]:
    """Return which images to leave out, and why, so that no copy judges what it taught.

    Of copies under different labels all; of other copies all but one, kept in test before val before train. Of near
    copies in several splits those in train, and in val where one is in test; those within a split stay.
    """
    rank_of = np.array([("train", "val", "test").index(split.name) for split in facts.splits])
    out: dict[int, str] = {}
    for group in exact:
        labels_N = facts.labels_N[group]
        kept = group[np.argmax(rank_of[facts.split_N[group]])]
        conflicting = (labels_N != labels_N[0]).any()
        for n in group.tolist():
            if conflicting:
                other = next(m for m in group.tolist() if facts.labels_N[m] != facts.labels_N[n])
                out[n] = f"same image as {facts.name(other)}, which has another label"
            elif n != kept:
                out[n] = f"same image as {facts.name(int(kept))} in {facts.split(int(kept)).name}"
    for group in near:
        rank = rank_of[facts.split_N[group]]
        judge = int(group[np.argmax(rank)])
        for n in group[rank < rank.max()].tolist():
            out.setdefault(n, f"nearly the same image as {facts.name(judge)} in {facts.split(judge).name}")
    return out
