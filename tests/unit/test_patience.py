"""Early stopping by its definition: so many epochs without a higher accuracy than ever before."""

from __future__ import annotations

import json

import pytest

from linne.training.patience import Patience

ACCURACIES = [0.5, 0.6, 0.6, 0.55, 0.7, 0.7, 0.69, 0.65, 0.8]


def last_epoch(most: int) -> int | None:
    """Return the epoch that ends training, from 1, by the definition; None for none."""
    for epoch in range(1, len(ACCURACIES) + 1):
        so_far = ACCURACIES[:epoch]
        if epoch - (so_far.index(max(so_far)) + 1) >= most:
            return epoch
    return None


@pytest.mark.parametrize(("most", "expected"), [(1, 3), (2, 4), (3, 8), (4, None)])
def test_patience_is_over_after_so_many_epochs_without_a_higher_accuracy(most, expected):
    patience, ended = Patience(most), None
    for epoch, accuracy in enumerate(ACCURACIES, 1):
        patience.update(accuracy)
        if patience.is_over and ended is None:
            ended = epoch
    assert ended == expected == last_epoch(most)


def test_patience_goes_on_from_its_state():
    first, second = Patience(3), Patience(3)
    for accuracy in ACCURACIES[:6]:
        first.update(accuracy)
    second.load(json.loads(json.dumps(first.state())))
    for accuracy in ACCURACIES[6:]:
        first.update(accuracy)
        second.update(accuracy)
        assert first.num_worse == second.num_worse


def test_patience_that_is_prolonged_is_not_over():
    first, longer = Patience(1), Patience(4)
    for accuracy in (0.5, 0.5):
        first.update(accuracy)
    longer.load(first.state())
    assert first.is_over
    assert not longer.is_over
