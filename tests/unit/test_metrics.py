from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from linne import metrics

EXACT = {"rel": 1e-9, "abs": 1e-9}


def random_case(seed, num_examples=200, num_classes=7, scale=3.0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, scale, (num_examples, num_classes)).astype(np.float32)
    return logits, rng.integers(0, num_classes, num_examples)


@pytest.mark.parametrize(("num_examples", "num_classes"), [(1, 2), (50, 2), (200, 7), (500, 120)])
def test_accuracy_loss_and_top_k_agree_with_scikit_learn(num_examples, num_classes):
    logits, labels = random_case(num_examples, num_examples, num_classes)
    predicted = metrics.predict(logits)
    probabilities = np.exp(logits.astype(np.float64))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    classes = np.arange(num_classes)

    assert metrics.accuracy(predicted, labels) == pytest.approx(sk.accuracy_score(labels, predicted), **EXACT)
    loss = metrics.cross_entropies(logits, labels).mean()
    assert loss == pytest.approx(sk.log_loss(labels, probabilities, labels=classes), **EXACT)
    assert metrics.confidences(logits) == pytest.approx(probabilities.max(axis=1), **EXACT)
    for k, value in metrics.top_k(metrics.ranks(logits, labels), num_classes).items():
        expected = sk.top_k_accuracy_score(labels, logits, k=int(k), labels=classes)
        assert value == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize(("num_examples", "num_classes"), [(1, 2), (60, 2), (200, 7), (40, 90)])
def test_class_scores_and_confusion_agree_with_scikit_learn_even_for_absent_classes(num_examples, num_classes):
    logits, labels = random_case(num_classes, num_examples, num_classes)
    predicted = metrics.predict(logits)
    expected = sk.classification_report(
        labels, predicted, labels=np.arange(num_classes), zero_division=0.0, output_dict=True
    )
    scores = metrics.class_scores(predicted, labels, num_classes)
    counts = metrics.confusion(predicted, labels, num_classes)

    for k in range(num_classes):
        assert scores.precision_K[k] == pytest.approx(expected[str(k)]["precision"], **EXACT)
        assert scores.recall_K[k] == pytest.approx(expected[str(k)]["recall"], **EXACT)
        assert scores.f1_K[k] == pytest.approx(expected[str(k)]["f1-score"], **EXACT)
        assert scores.count_K[k] == expected[str(k)]["support"]
    for true in range(num_classes):
        for guess in range(num_classes):
            assert counts[true, guess] == np.sum((labels == true) & (predicted == guess))


def test_scores_worked_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 1, 1, 0, 1])
    scores = metrics.class_scores(predicted, labels, 4)
    assert scores.precision_K == pytest.approx([2 / 3, 1 / 3, 0, 0], **EXACT)
    assert scores.recall_K == pytest.approx([2 / 3, 1 / 2, 0, 0], **EXACT)
    assert scores.f1_K == pytest.approx([2 / 3, 0.4, 0, 0], **EXACT)
    assert scores.count_K.tolist() == [3, 2, 1, 0]
    assert metrics.confusion(predicted, labels, 4).tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0] * 4]


def test_the_wilson_interval_gives_the_published_values():
    # Newcombe, "Two-sided confidence intervals for the single proportion", Stat. Med. 17 (1998), table I, method 3.
    assert metrics.wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert metrics.wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert metrics.wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert metrics.wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@pytest.mark.parametrize("num_examples", [1, 2, 10, 1000])
def test_the_wilson_interval_holds_the_fraction_and_stays_between_0_and_1(num_examples):
    for num_right in range(num_examples + 1):
        low, high = metrics.wilson_interval(num_right, num_examples)
        assert 0 <= low <= num_right / num_examples <= high <= 1
        assert low < high


def test_the_wilson_interval_ends_solve_its_equation():
    for num_right, num_examples in [(3, 10), (442, 450), (9_321, 10_000)]:
        fraction = num_right / num_examples
        for end in metrics.wilson_interval(num_right, num_examples):
            deviations = abs(fraction - end) / math.sqrt(end * (1 - end) / num_examples)
            assert deviations == pytest.approx(metrics.Z_95, rel=1e-9)


@pytest.mark.parametrize(("num_right", "num_examples"), [(0, 0), (3, 2), (-1, 4)])
def test_an_interval_of_no_fraction_is_refused(num_right, num_examples):
    with pytest.raises(ValueError, match=f"{num_right} right of {num_examples} examples is no fraction"):
        metrics.wilson_interval(num_right, num_examples)


def test_extreme_logits_give_finite_losses():
    logits = np.array([[1e4, -1e4], [1e4, -1e4], [-1e4, 1e4 - 1]], dtype=np.float32)
    losses = metrics.cross_entropies(logits, np.array([0, 1, 1]))
    assert losses.tolist() == [0.0, 2e4, 0.0]
    assert metrics.confidences(logits).tolist() == [1.0, 1.0, 1.0]


def test_logits_shifted_by_a_constant_give_the_same_loss():
    logits, labels = random_case(3, scale=1.0)
    logits = logits.astype(np.float64)
    shifted = metrics.cross_entropies(logits + 1e4, labels)
    assert shifted == pytest.approx(metrics.cross_entropies(logits, labels), abs=1e-9)


def test_a_tie_goes_to_the_first_class_in_every_metric():
    logits = np.zeros((4, 4), dtype=np.float32)
    labels = np.array([0, 1, 2, 3])
    assert metrics.predict(logits).tolist() == [0, 0, 0, 0]
    assert metrics.ranks(logits, labels).tolist() == [0, 1, 2, 3]
    assert metrics.top_k(metrics.ranks(logits, labels), 4) == {"3": 0.75}
    assert metrics.cross_entropies(logits, labels) == pytest.approx([math.log(4)] * 4, **EXACT)


def test_rank_0_is_the_predicted_class():
    logits, labels = random_case(11)
    logits = np.round(logits)  # many ties
    assert ((metrics.ranks(logits, labels) == 0) == (metrics.predict(logits) == labels)).all()


@pytest.mark.parametrize(("num_classes", "keys"), [(2, []), (3, []), (4, ["3"]), (5, ["3"]), (6, ["3", "5"])])
def test_top_k_leaves_out_what_holds_every_class(num_classes, keys):
    logits, labels = random_case(0, 20, num_classes)
    assert list(metrics.top_k(metrics.ranks(logits, labels), num_classes)) == keys


def test_everything_wrong_is_zero_and_nothing_breaks():
    labels = np.array([0, 1, 0, 1])
    predicted = 1 - labels
    scores = metrics.class_scores(predicted, labels, 2)
    assert metrics.accuracy(predicted, labels) == 0.0
    assert scores.f1_K.tolist() == scores.precision_K.tolist() == scores.recall_K.tolist() == [0.0, 0.0]
    assert metrics.worst_mistakes(predicted, labels, np.array([0.6, 0.9, 0.7, 0.9]), 3).tolist() == [1, 3, 2]


def test_calibration_worked_by_hand():
    sure = np.array([0.95, 0.95, 0.55, 0.55])
    right = np.array([True, True, True, False])
    bins = metrics.calibration_bins(sure, right)
    # 0.95 lies in (14/15, 1], 0.55 in (8/15, 9/15]
    assert bins.count_B.nonzero()[0].tolist() == [8, 14]
    assert bins.accuracy_B[[8, 14]].tolist() == [0.5, 1.0]
    assert bins.confidence_B[[8, 14]] == pytest.approx([0.55, 0.95], **EXACT)
    assert metrics.expected_calibration_error(bins) == pytest.approx(0.5 * 0.05 + 0.5 * 0.05, **EXACT)
    assert np.isnan(bins.accuracy_B[0])


def test_calibration_agrees_with_the_definition_example_by_example():
    rng = np.random.default_rng(5)
    sure = rng.uniform(0.1, 1, 2000)
    right = rng.uniform(size=2000) < sure**2
    expected = 0.0
    for b in range(15):
        inside = (sure > b / 15) & (sure <= (b + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    bins = metrics.calibration_bins(sure, right)
    assert metrics.expected_calibration_error(bins) == pytest.approx(expected, **EXACT)
    assert bins.count_B.sum() == 2000


def test_a_confidence_on_an_edge_belongs_to_the_lower_bin():
    bins = metrics.calibration_bins(np.array([0.2, 0.4, 1.0]), np.array([True, True, True]), num_bins=5)
    assert bins.count_B.tolist() == [1, 1, 0, 0, 1]


def test_the_most_confused_pairs_come_by_count_then_by_share():
    counts = np.array([[10, 2, 0], [2, 1, 0], [1, 3, 5]])
    assert metrics.most_confused(counts, 10) == [(2, 1, 3), (1, 0, 2), (0, 1, 2), (2, 0, 1)]
    assert metrics.most_confused(counts, 1) == [(2, 1, 3)]
    assert metrics.most_confused(np.diag([3, 4]), 10) == []


def test_blocks_of_rows_give_what_the_whole_gives():
    num_classes = metrics.BLOCK_VALUES // 3
    logits, labels = random_case(1, 8, num_classes)
    whole = logits.astype(np.float64)
    expected = np.log(np.exp(whole).sum(axis=1)) - whole[np.arange(8), labels]
    assert metrics.cross_entropies(logits, labels) == pytest.approx(expected, **EXACT)
    assert metrics.ranks(logits, labels).tolist() == [
        (row > row[k]).sum() for row, k in zip(logits, labels, strict=True)
    ]


@pytest.mark.parametrize(("answers", "labels"), [([], []), ([1], []), ([1, 0], [1])])
def test_answers_that_do_not_match_the_labels_are_refused(answers, labels):
    with pytest.raises(ValueError, match=f"{len(answers)} answers for {len(labels)} labels"):
        metrics.accuracy(np.array(answers, dtype=np.int64), np.array(labels, dtype=np.int64))
