"""A predictor and a split of a source in, an `EvalReport` out."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from linne import metrics
from linne.data.names import counted, same_classes
from linne.data.source import Source, Split
from linne.errors import BundleError, CheckFailed, ImageError, SourceError, suggest
from linne.preprocess import InputSpec
from linne.report import Calibration, CalibrationBin, ClassResult, ConfusedPair, EvalReport, Mistake

if TYPE_CHECKING:
    from linne.inference.predictor import Predictor

UInt8 = NDArray[np.uint8]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

CHUNK_IMAGES = 256
"""Images that go through the model at once; memory does not grow with the split."""
NUM_LISTED = 25
"""Confused pairs and worst mistakes kept in a report."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What the model answered, example by example; N counts the images that could be read."""

    logits_NK: Floats
    """Classes in the bundle's order."""
    labels_N: Ints
    """Positions in the bundle's labels."""
    positions_N: Ints
    """Positions in the split."""
    skipped: tuple[str, ...]
    """Images that could not be read."""


def evaluate(predictor: Predictor, source: Source, split: str = "test") -> tuple[EvalReport, Outcomes]:
    """Return how `predictor` does on a split of `source`, with the answers behind it.

    Classes are matched by name, or by place as `matched_by_place` says: a class that only the bundle knows has no
    examples. Images that cannot be decoded
    are left out and named. Memory stays flat but for one row of logits an example.

    Raises:
        SourceError: no such split, or no image of it can be read.
        BundleError: the source has a class that the bundle does not know.
        CheckFailed: the model answers with values that are not numbers.
    """
    examples = split_of(source, split)
    to_bundle_K = class_mapping(source, predictor.labels)
    logits: list[Floats] = []
    positions: list[int] = []
    skipped: list[str] = []
    for chunk, where, unread in chunks(examples, predictor.bundle.input):
        skipped += unread
        if where:
            logits.append(predictor.logits_of_cropped(chunk))
            positions += where
    if not positions:
        raise SourceError(
            f"none of the {len(examples)} images of split `{split}` can be read; the first is `{skipped[0]}`"
        )
    positions_N = np.array(positions, dtype=np.int64)
    outcomes = Outcomes(
        logits_NK=np.concatenate(logits),
        labels_N=to_bundle_K[examples.labels_N[positions_N]],
        positions_N=positions_N,
        skipped=tuple(skipped),
    )
    return _report(outcomes, predictor, source, examples), outcomes


def split_of(source: Source, name: str) -> Split:
    """Return the split `name` of `source`.

    Raises:
        SourceError: there is no such split, or nothing in it.
    """
    if name not in source.splits:
        there = ", ".join(f"`{split}`" for split in source.splits)
        hint = suggest(name, source.splits)
        raise SourceError(f"`{source.name}` has no split `{name}`; it has {there}", hint=hint)
    if not len(source.splits[name]):
        raise SourceError(f"split `{name}` of `{source.name}` has no examples")
    return source.splits[name]


def matched_by_place(source: Source, labels: tuple[str, ...]) -> str | None:
    """Return a line for people where the source's classes are those of `labels` under other names; None elsewhere.

    ImageNet's are `tench`, or `tench, Tinca tinca`, and its two cranes have a name for each who numbers them.
    """
    known = set(labels)
    unknown = [(ours, theirs) for ours, theirs in zip(source.labels, labels, strict=False) if ours not in known]
    if not unknown or not same_classes(source.labels, labels):
        return None
    ours, theirs = unknown[0]
    renamed = f"{len(unknown):,} of {counted(len(labels), 'class', 'classes')}"
    return f"classes are matched by their place: the bundle has other names for {renamed}, `{theirs}` for `{ours}`"


def class_mapping(source: Source, labels: tuple[str, ...]) -> Ints:
    """Return the bundle's position of each of the source's classes.

    Raises:
        BundleError: the source has a class that the bundle does not know.
    """
    position = {label: k for k, label in enumerate(labels)}
    unknown = [label for label in source.labels if label not in position]
    if unknown and same_classes(source.labels, labels):
        return np.arange(len(labels))
    if unknown:
        others = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        known = ", ".join(f"`{label}`" for label in labels[:10]) + (", ..." if len(labels) > 10 else "")
        raise BundleError(
            f"the bundle does not know the class `{unknown[0]}`{others} of `{source.name}`",
            hint=suggest(unknown[0], labels) or f"its {len(labels)} classes are {known}",
        )
    return np.array([position[label] for label in source.labels], dtype=np.int64)


def chunks(split: Split, spec: InputSpec) -> Iterator[tuple[Sequence[UInt8] | UInt8, list[int], list[str]]]:
    """Yield (images at the model's size, their positions in the split, names of the unreadable), in order."""
    array = split.store.array
    if array is not None and array.shape[1:] == (spec.height, spec.width, spec.channels) and spec.crop_pct == 1:
        for start in range(0, len(split), CHUNK_IMAGES):
            chunk = array[split.indices_N[start : start + CHUNK_IMAGES]]
            yield chunk, list(range(start, start + len(chunk))), []
        return
    images: list[UInt8] = []
    positions: list[int] = []
    skipped: list[str] = []
    for position, pixels in enumerate(_cropped(split, spec)):
        if pixels is None:
            skipped.append(split.example_name(position))
            continue
        images.append(pixels)
        positions.append(position)
        if len(images) == CHUNK_IMAGES:
            yield images, positions, skipped
            images, positions, skipped = [], [], []
    yield images, positions, skipped


def _cropped(split: Split, spec: InputSpec) -> Iterator[UInt8 | None]:
    """Yield each example at the model's size, or None when it cannot be read, decoding a few ahead in threads.

    Decoders release Python's lock, so threads use every core without sending pixels between processes.
    """

    def read(position: int) -> UInt8 | None:
        try:
            return split.cropped(position, spec)
        except ImageError:
            return None

    num_threads = min(16, os.cpu_count() or 1)
    if num_threads == 1 or split.store.array is not None:
        yield from map(read, range(len(split)))
        return
    waiting: deque[Future[UInt8 | None]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        for position in range(len(split)):
            waiting.append(pool.submit(read, position))
            if len(waiting) > 2 * num_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _report(outcomes: Outcomes, predictor: Predictor, source: Source, split: Split) -> EvalReport:
    logits_NK, labels_N, labels = outcomes.logits_NK, outcomes.labels_N, predictor.labels
    num_bad = int((~np.isfinite(logits_NK).all(axis=1)).sum())
    if num_bad:
        raise CheckFailed(
            f"the model's answers to {num_bad} of {len(labels_N)} images are not numbers",
            hint="its weights have diverged; train again with a lower rate: --lr X",
        )
    predicted_N = metrics.predict(logits_NK)
    sure_N = metrics.confidences(logits_NK)
    right_N = predicted_N == labels_N
    confusion_KK = metrics.confusion(predicted_N, labels_N, len(labels))
    per_class = _class_results(metrics.class_scores(predicted_N, labels_N, len(labels)), confusion_KK, labels)
    present = [row for row in per_class if row.count]
    worst = metrics.worst_mistakes(predicted_N, labels_N, sure_N, NUM_LISTED)
    return EvalReport(
        accuracy=metrics.accuracy(predicted_N, labels_N),
        accuracy_interval=metrics.wilson_interval(int(right_N.sum()), len(right_N)),
        num_examples=len(labels_N),
        loss=float(metrics.cross_entropies(logits_NK, labels_N).mean()),
        top_k=metrics.top_k(metrics.ranks(logits_NK, labels_N), len(labels)),
        macro={
            name: sum(getattr(row, name) for row in present) / len(present) for name in ("precision", "recall", "f1")
        },
        per_class=per_class,
        confusion=tuple(map(tuple, confusion_KK.tolist())),
        calibration=_calibration(sure_N, right_N),
        most_confused=tuple(
            ConfusedPair(label=labels[k], predicted=labels[j], count=n, fraction=n / int(confusion_KK[k].sum()))
            for k, j, n in metrics.most_confused(confusion_KK, NUM_LISTED)
        ),
        worst_mistakes=tuple(
            Mistake(
                name=split.example_name(int(outcomes.positions_N[n])),
                label=labels[labels_N[n]],
                predicted=labels[predicted_N[n]],
                probability=float(sure_N[n]),
            )
            for n in worst
        ),
        skipped=outcomes.skipped,
        source=source.name,
        split=split.name,
        bundle=str(predictor.bundle.path),
        labels=labels,
        tta=predictor.tta,
    )


def _class_results(scores: metrics.ClassScores, confusion_KK: Ints, labels: tuple[str, ...]) -> tuple[ClassResult, ...]:
    num_predicted_K = confusion_KK.sum(axis=0)
    return tuple(
        ClassResult(
            label=label,
            precision=float(scores.precision_K[k]),
            recall=float(scores.recall_K[k]),
            f1=float(scores.f1_K[k]),
            accuracy=float(scores.recall_K[k]),
            count=int(scores.count_K[k]),
            num_predicted=int(num_predicted_K[k]),
        )
        for k, label in enumerate(labels)
    )


def _calibration(sure_N: metrics.Doubles, right_N: metrics.Bools) -> Calibration:
    bins = metrics.calibration_bins(sure_N, right_N)
    rows = zip(*(column.tolist() for column in bins), strict=True)
    return Calibration(
        ece=metrics.expected_calibration_error(bins),
        mean_confidence=float(sure_N.mean()),
        bins=tuple(
            CalibrationBin(
                low=low,
                high=high,
                count=count,
                confidence=None if math.isnan(confidence) else confidence,
                accuracy=None if math.isnan(right) else right,
            )
            for low, high, count, confidence, right in rows
        ),
    )
