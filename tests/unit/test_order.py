"""What an epoch draws, held against the definitions of balanced sampling and repeated augmentation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linne.data.loading.order import balanced, cut, epoch_batches, permutation
from linne.recipe import DataConfig

SIZES = (600, 90, 7, 0, 3)
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(len(SIZES)), SIZES))
COUNT = len(LABELS)


def draws_of(epoch: int, labels_N: np.ndarray = LABELS, seed: int = 4, **data) -> list[np.ndarray]:
    return epoch_batches(seed, epoch, labels_N, DataConfig(source="x", batch_size=32, **data))


def test_without_either_an_epoch_is_the_permutation_cut_into_batches():
    for ours, plain in zip(draws_of(2), cut(permutation(4, 2, COUNT), 32), strict=True):
        assert ours.tolist() == plain.tolist()


@pytest.mark.parametrize(("balance", "power"), [("class", 0.0), ("root", 0.5)])
def test_a_class_is_drawn_in_proportion_to_a_power_of_its_size(balance, power):
    weights = np.array([size**power if size else 0 for size in SIZES])
    expected = COUNT * weights / weights.sum()
    parts = []
    for epoch in range(200):
        draws = np.concatenate(draws_of(epoch, balance=balance))
        assert len(draws) == len(set(draws.tolist())) == COUNT
        counts = np.bincount(LABELS[draws % COUNT], minlength=len(SIZES))
        assert np.abs(counts - expected).max() < 1
        parts.append(counts)
    # The mean of 200 numbers rounded up or down at random: a deviation of at most 0.5 / sqrt(200) = 0.035 each.
    assert np.abs(np.mean(parts, axis=0) - expected).max() < 0.15


def test_all_images_of_a_class_are_drawn_once_before_one_is_drawn_again():
    draws = np.concatenate(draws_of(0, balance="class"))
    for k, size in enumerate(SIZES):
        times = np.bincount(draws[LABELS[draws % COUNT] == k] % COUNT, minlength=COUNT)[k == LABELS]
        assert len(times) == size
        if size:
            assert times.max() - times.min() <= 1
    copies = {}
    for draw in draws.tolist():
        copies.setdefault(draw % COUNT, []).append(draw // COUNT)
    assert all(sorted(numbers) == list(range(len(numbers))) for numbers in copies.values())


def test_images_of_a_large_class_take_turns_from_epoch_to_epoch():
    seen = np.zeros(COUNT)
    for epoch in range(40):
        seen[np.concatenate(draws_of(epoch, balance="class")) % COUNT] += 1
    large = seen[LABELS == 0]
    share = COUNT / 4 / SIZES[0]
    assert large.min() > 0
    # Of 40 epochs each image has Binomial(40, share) turns: five deviations.
    assert np.abs(large - 40 * share).max() < 5 * np.sqrt(40 * share * (1 - share))


@given(st.integers(0, 2**62), st.integers(0, 500), st.lists(st.integers(0, 9), min_size=1, max_size=300))
def test_what_is_drawn_is_a_function_of_seed_epoch_and_labels(seed, epoch, labels):
    labels_N = np.array(labels)
    first, again = (balanced(seed, epoch, labels_N, power=0.0) for _ in range(2))
    assert first.tolist() == again.tolist()
    assert len(first) == len(labels)
    assert set(labels_N[first % len(labels)]) <= set(labels)


def test_epochs_and_seeds_draw_in_other_orders():
    base = np.concatenate(draws_of(0, balance="class")).tolist()
    assert np.concatenate(draws_of(1, balance="class")).tolist() != base
    assert np.concatenate(draws_of(0, balance="class", seed=5)).tolist() != base


@pytest.mark.parametrize("balance", [None, "class"])
@pytest.mark.parametrize("repeats", [2, 3, 7, 50])
def test_an_image_is_there_as_often_as_asked_and_its_copies_are_all_different(repeats, balance):
    batches, plain = draws_of(3, repeats=repeats, balance=balance), draws_of(3, balance=balance)
    assert list(map(len, batches)) == list(map(len, plain))
    drawn = np.concatenate(batches)
    assert len(set(drawn.tolist())) == COUNT
    if balance is not None:
        return
    seen = set()
    for batch in batches:
        positions, times = np.unique(batch % COUNT, return_counts=True)
        assert len(positions) == -(-len(batch) // repeats)
        assert times.max() <= repeats
        assert times.sum() == len(batch)
        assert not seen & set(positions.tolist())
        seen |= set(positions.tolist())
        if 3 * repeats < len(batch):
            assert (batch[1:] % COUNT != batch[:-1] % COUNT).all()


def test_repeats_see_the_images_of_the_permutation_in_its_order():
    batches = draws_of(3, repeats=4)
    firsts = np.concatenate([batch[batch < COUNT] for batch in batches])
    assert firsts.tolist() == permutation(4, 3, COUNT)[: len(firsts)].tolist()
