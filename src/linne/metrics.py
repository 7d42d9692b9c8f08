"""Pure functions from logits and labels to numbers; scikit-learn's where it has the metric.

Arrays carry their axes: N examples, K classes, B bins. The predicted class is the first of the largest logits, as
in `argmax`, so that a tie is decided the same way here, in the predictor and in every table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

NUM_BINS = 15
"""Guo et al. 2017 report 15 bins."""
Z_95 = 1.959963984540054
"""The standard normal distribution holds 95 % within this many deviations of its mean."""
BLOCK_VALUES = 2**20
"""Logits handled at once, in double precision: ImageNet's 50,000 x 1,000 would otherwise need copies of 400 MB."""


class ClassScores(NamedTuple):
    """One value a class. Where nothing is there to divide by, the score is 0."""

    precision_K: Doubles
    recall_K: Doubles
    f1_K: Doubles
    count_K: Ints


class CalibrationBins(NamedTuple):
    """Examples by how sure the model was: bin b holds low < confidence <= high. Means of empty bins are NaN."""

    low_B: Doubles
    high_B: Doubles
    count_B: Ints
    confidence_B: Doubles
    accuracy_B: Doubles


def predict(logits_NK: Logits) -> Ints:
    """Return the class with the largest logit, the first of them on a tie, one an example."""
    predicted_N: Ints = logits_NK.argmax(axis=1).astype(np.int64)
    return predicted_N


def accuracy(predicted_N: Ints, labels_N: Ints) -> float:
    """Return the fraction of examples whose predicted class is their label."""
    _check(predicted_N, labels_N)
    return float((predicted_N == labels_N).mean())


def wilson_interval(num_right: int, num_examples: int) -> tuple[float, float]:
    """Return the 95 % score interval (low, high) of a fraction.

    It stays inside 0-1 and does not shrink to nothing when all or none are right, as the textbook p +- 1.96 s does.
    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927), 209-212.
    """
    if not 0 <= num_right <= num_examples or num_examples == 0:
        raise ValueError(f"{num_right} right of {num_examples} examples is no fraction")
    fraction, z2_per_n = num_right / num_examples, Z_95**2 / num_examples
    middle = fraction + z2_per_n / 2
    half = math.sqrt(fraction * (1 - fraction) * z2_per_n + (z2_per_n / 2) ** 2)
    low = (middle - half) / (1 + z2_per_n) if num_right > 0 else 0.0
    high = (middle + half) / (1 + z2_per_n) if num_right < num_examples else 1.0
    return max(low, 0.0), min(high, 1.0)


def paired_interval(num_lost: int, num_won: int, num_examples: int) -> tuple[float, float]:
    """Return the 95 % interval (low, high) of what a second classifier loses of the accuracy of a first.

    Args:
        num_lost: examples that only the first has right.
        num_won: examples that only the second has right.

    Wald's interval for matched pairs with a half added to each of the four counts, which keeps its promise for few
    examples and for no difference at all. A. Agresti and Y. Min, "Simple improved confidence intervals for comparing
    matched proportions", Statistics in Medicine 24 (2005), 729-740.
    """
    if min(num_lost, num_won) < 0 or num_examples < 1 or num_lost + num_won > num_examples:
        raise ValueError(f"{num_lost} lost and {num_won} won of {num_examples} examples is no comparison")
    lost, won, total = num_lost + 0.5, num_won + 0.5, num_examples + 2
    middle = (lost - won) / total
    half = Z_95 * math.sqrt(lost + won - (lost - won) ** 2 / total) / total
    return max(middle - half, -1.0), min(middle + half, 1.0)


def cross_entropies(logits_NK: Logits, labels_N: Ints) -> Doubles:
    """Return -log of the softmax probability of each example's label, in nats.

    In double precision through log-sum-exp, so that logits of +-1e4 neither overflow nor lose the small ones.
    """
    _check(logits_NK, labels_N)
    losses_N = np.empty(len(labels_N))
    for rows in _blocks(logits_NK):
        shifted = _shifted(logits_NK[rows])
        own = np.take_along_axis(shifted, labels_N[rows, None], axis=1)[:, 0]
        losses_N[rows] = np.log(np.exp(shifted).sum(axis=1)) - own
    return losses_N


def softmax(logits_NK: Logits) -> Doubles:
    """Return probabilities in double precision, rows summing to 1; NaN where a logit is not finite."""
    with np.errstate(invalid="ignore"):
        powers_NK = np.exp(logits_NK.astype(np.float64) - logits_NK.max(axis=1, keepdims=True))
        probabilities_NK: Doubles = powers_NK / powers_NK.sum(axis=1, keepdims=True)
    return probabilities_NK


def confidences(logits_NK: Logits) -> Doubles:
    """Return the softmax probability of each example's predicted class."""
    sure_N = np.empty(len(logits_NK))
    for rows in _blocks(logits_NK):
        sure_N[rows] = 1.0 / np.exp(_shifted(logits_NK[rows])).sum(axis=1)
    return sure_N


def ranks(logits_NK: Logits, labels_N: Ints) -> Ints:
    """Return how many classes are placed before each example's label; 0 is a right answer.

    Of classes with equal logits the first in order is placed first, so that rank 0 means what `predict` returns.
    """
    _check(logits_NK, labels_N)
    ranks_N = np.empty(len(labels_N), dtype=np.int64)
    classes_K = np.arange(logits_NK.shape[1])
    for rows in _blocks(logits_NK):
        block, label = logits_NK[rows], labels_N[rows, None]
        own = np.take_along_axis(block, label, axis=1)
        ranks_N[rows] = ((block > own) | ((block == own) & (classes_K < label))).sum(axis=1)
    return ranks_N


def top_k(ranks_N: Ints, num_classes: int, ks: tuple[int, ...] = (3, 5)) -> dict[str, float]:
    """Return {"5": the fraction whose label is among the first 5}, without the `ks` that hold every class."""
    return {str(k): float((ranks_N < k).mean()) for k in ks if k < num_classes}


def confusion(predicted_N: Ints, labels_N: Ints, num_classes: int) -> Ints:
    """Return counts K x K: row = label, column = predicted class (scikit-learn's `confusion_matrix`)."""
    from sklearn.metrics import confusion_matrix

    _check(predicted_N, labels_N)
    counts_KK: Ints = confusion_matrix(labels_N, predicted_N, labels=np.arange(num_classes)).astype(np.int64)
    return counts_KK


def class_scores(predicted_N: Ints, labels_N: Ints, num_classes: int) -> ClassScores:
    """Return precision, recall, F1 and number of examples of every class, from scikit-learn.

    A score with nothing to divide by is 0: precision of a class never predicted, recall of a class without examples.
    Recall is what others call the accuracy of a class: the share of its own examples that got its name.
    """
    from sklearn.metrics import precision_recall_fscore_support

    _check(predicted_N, labels_N)
    precision_K, recall_K, f1_K, count_K = precision_recall_fscore_support(
        labels_N, predicted_N, labels=np.arange(num_classes), zero_division=0.0
    )
    return ClassScores(precision_K, recall_K, f1_K, count_K.astype(np.int64))


def calibration_bins(confidences_N: Doubles, right_N: Bools, num_bins: int = NUM_BINS) -> CalibrationBins:
    """Return `num_bins` equally wide bins of confidence with their mean confidence and share of right answers."""
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    bin_N = np.digitize(confidences_N, edges[1:-1], right=True)
    count_B = np.bincount(bin_N, minlength=num_bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin is the NaN we promise
        confidence_B = np.bincount(bin_N, weights=confidences_N, minlength=num_bins) / count_B
        accuracy_B = np.bincount(bin_N, weights=right_N.astype(np.float64), minlength=num_bins) / count_B
    return CalibrationBins(edges[:-1], edges[1:], count_B.astype(np.int64), confidence_B, accuracy_B)


def expected_calibration_error(bins: CalibrationBins) -> float:
    """Return the mean distance between confidence and accuracy over bins, weighted by their examples.

    C. Guo et al., "On calibration of modern neural networks", ICML 2017, equation 3.
    """
    used = bins.count_B > 0
    gaps = np.abs(bins.accuracy_B[used] - bins.confidence_B[used])
    return float((gaps * bins.count_B[used]).sum() / bins.count_B.sum())


def most_confused(confusion_KK: Ints, limit: int) -> list[tuple[int, int, int]]:
    """Return up to `limit` (label, predicted class, count) of wrong answers, the most frequent first.

    Equal counts are ordered by their share of the label's examples, then by class order.
    """
    wrong_KK = confusion_KK.copy()
    np.fill_diagonal(wrong_KK, 0)
    label_P, predicted_P = np.nonzero(wrong_KK)
    count_P = wrong_KK[label_P, predicted_P]
    share_P = count_P / confusion_KK.sum(axis=1)[label_P]
    order = np.lexsort((predicted_P, label_P, -share_P, -count_P))[:limit]
    return [(int(label_P[i]), int(predicted_P[i]), int(count_P[i])) for i in order]


def worst_mistakes(predicted_N: Ints, labels_N: Ints, confidences_N: Doubles, limit: int) -> Ints:
    """Return up to `limit` positions of wrong answers, the surest first."""
    wrong = np.flatnonzero(predicted_N != labels_N)
    order = np.argsort(-confidences_N[wrong], kind="stable")
    return wrong[order[:limit]].astype(np.int64)


def _shifted(logits_NK: Logits) -> Doubles:
    """Return logits in double precision with the largest of each row at 0: softmax is unchanged, exp is safe."""
    logits = logits_NK.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return logits


def _blocks(logits_NK: Logits) -> Iterator[slice]:
    step = max(1, BLOCK_VALUES // max(1, logits_NK.shape[1]))
    for start in range(0, len(logits_NK), step):
        yield slice(start, start + step)


def _check(scores_N: NDArray[Any], labels_N: Ints) -> None:
    if len(labels_N) == 0 or len(scores_N) != len(labels_N):
        raise ValueError(f"{len(scores_N)} answers for {len(labels_N)} labels; equal numbers above 0 expected")
