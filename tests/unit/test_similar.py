"""Near copies are found, and crowds of look-alikes are not taken for copies."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linne.checking.facts import difference_hash
from linne.checking.similar import components, distance_limits, distances, similar_pairs


def pictures(number, seed=0):
    """Smooth random pictures of 32 x 32 levels."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (number, 6, 6))
    ramp = np.linspace(0, 5, 32)
    low, share = np.minimum(ramp.astype(int), 4), ramp - np.minimum(ramp.astype(int), 4)
    rows = coarse[:, low] * (1 - share)[None, :, None] + coarse[:, low + 1] * share[None, :, None]
    return (rows[:, :, low] * (1 - share) + rows[:, :, low + 1] * share).astype(np.float32)


def thumbs(grey):
    return np.rint(grey.reshape(len(grey), 16, 2, 16, 2).mean((2, 4))).clip(0, 255).astype(np.uint8)


def pairs_of(grey, *, mirrored=False):
    pairs = similar_pairs(difference_hash(grey), difference_hash(grey[:, :, ::-1]), thumbs(grey))
    return pairs.images_P2[pairs.mirrored_P == mirrored].tolist()


CHANGES = {
    "brighter": lambda image: image * 0.8 + 50,
    "less contrast": lambda image: image * 0.4 + 60,
    "noisy": lambda image: image + np.random.default_rng(1).normal(0, 6, image.shape),
    "shifted by half a pixel": lambda image: (image + image[:, np.r_[0, 0:31]]) / 2,
    "coarser": lambda image: np.rint(image / 24) * 24,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_among_two_thousand_pictures(change):
    grey = pictures(2000)
    copies = CHANGES[change](grey[:50]).astype(np.float32)
    found = pairs_of(np.concatenate([grey, copies]))
    assert all(other == 2000 + one for one, other in found)
    assert len(found) >= 48  # a hash may change in more bits than are looked at


@pytest.mark.parametrize(("number", "free_bits"), [(4000, 63), (120, 10)], ids=["spread", "crowded"])
def test_every_pair_up_to_three_bits_apart_is_looked_at(number, free_bits):
    rng = np.random.default_rng(2)
    hashes = rng.integers(0, 2**free_bits, number, dtype=np.uint64)
    flips = [sum(1 << int(bit) for bit in rng.choice(64, 3, replace=False)) for _ in range(number)]
    images = rng.integers(0, 256, (number, 16, 16), dtype=np.uint8)
    twice = np.concatenate([hashes, hashes ^ np.array(flips, np.uint64)])
    none = rng.integers(2**63, 2**64 - 1, 2 * number, dtype=np.uint64)  # far from all of them
    found = similar_pairs(twice, none, np.concatenate([images, images]))
    assert found.images_P2.tolist() == [[k, number + k] for k in range(number)]


def test_a_mirrored_copy_is_found_and_said_to_be_mirrored():
    grey = pictures(2000)
    both = np.concatenate([grey, grey[:50, :, ::-1] * 0.9 + 10])
    assert pairs_of(both) == []
    assert pairs_of(both, mirrored=True) == [[k, 2000 + k] for k in range(50)]


def test_a_picture_that_is_its_own_mirror_image_is_no_pair():
    grey = pictures(300)
    assert pairs_of((grey + grey[:, :, ::-1]) / 2, mirrored=True) == []


def test_different_pictures_are_no_pairs():
    assert pairs_of(pictures(3000, seed=4)) == []


def test_in_a_crowd_of_look_alikes_only_what_is_much_nearer_than_the_crowd_is_a_pair():
    """As with handwritten ones: all alike, none a copy but one."""
    base = pictures(1)
    crowd = base + 0.25 * (pictures(3000, seed=7) - 128)
    alone = np.concatenate([base, crowd[:1], pictures(2000, seed=8)])
    assert pairs_of(alone) == [[0, 1]]  # two of them among others are copies
    copy = crowd[5:6] + np.random.default_rng(0).normal(0, 2, crowd[5:6].shape).astype(np.float32)
    assert pairs_of(np.concatenate([crowd, copy])) == [[5, 3000]]


def test_limits_shrink_with_the_number_of_look_alikes():
    different = np.random.default_rng(0).integers(0, 2**63, 500, dtype=np.uint64)
    alone = distance_limits(different, different)
    assert (alone == np.float32(0.35)).all()
    assert distance_limits(np.zeros(5, np.uint64), np.zeros(100, np.uint64)).max() == pytest.approx(
        0.6 * (0.3 / 100) ** 0.25
    )
    # In a set larger than the sample the crowd is estimated: 10,000 equal hashes are 10,000 all the same.
    assert distance_limits(np.zeros(5, np.uint64), np.zeros(10_000, np.uint64)).max() == pytest.approx(
        0.6 * (0.3 / 10_000) ** 0.25
    )


def test_distance_is_that_of_the_correlation_whatever_brightness_and_contrast():
    first, second = pictures(2)
    r = np.corrcoef(first.ravel(), second.ravel())[0, 1]
    pair = [np.rint(each).astype(np.uint8)[None] for each in (first, second)]
    assert distances(*pair)[0] == pytest.approx(np.sqrt(2 - 2 * r), abs=0.01)  # levels are rounded
    assert distances(pair[0], np.rint(first * 0.5 + 20).astype(np.uint8)[None])[0] < 0.02


def test_the_hash_has_a_bit_for_each_rise_and_none_for_an_even_area():
    ramp = np.repeat(np.linspace(0, 255, 32, dtype=np.float32)[None, None], 32, axis=1)
    assert difference_hash(ramp).tolist() == [2**64 - 1]
    assert difference_hash(ramp[:, :, ::-1]).tolist() == [0]
    noise = np.random.default_rng(0).normal(100, 0.3, (20, 32, 32)).astype(np.float32)
    assert difference_hash(noise).tolist() == [0] * 20


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), min_size=1, max_size=40))
def test_groups_are_the_connected_components(pairs):
    expected: list[set[int]] = []
    for one, other in pairs:
        touching = [group for group in expected if group & {one, other}]
        expected = [group for group in expected if group not in touching]
        expected.append(set().union({one, other}, *touching))
    found = components(np.array(pairs, np.int64), 30)
    assert sorted(group.tolist() for group in found) == sorted(sorted(group) for group in expected if len(group) > 1)
