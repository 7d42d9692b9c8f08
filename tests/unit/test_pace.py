"""How far slow work is, with a clock of this test's own."""

from __future__ import annotations

import numpy as np

from linne.verifying.pace import Pace


def test_slow_work_says_how_far_it_is_every_ten_seconds_and_quick_work_says_nothing():
    said, now = [], [0.0]
    images = np.arange(40, dtype=np.float32).reshape(40, 1)

    def run(piece):
        now[0] += seconds * len(piece)
        return 2 * piece

    seconds = 0.1
    np.testing.assert_array_equal(Pace(said.append, "it", 40, lambda: now[0]).through(run, images, 1), 2 * images)
    assert said == []
    seconds = 4.0
    Pace(said.append, "it", 40, lambda: now[0]).through(run, images, 1)
    assert said[0] == "it: 3 of 40 images, 12.0 s, about 2:28 left"
    assert len(said) == 13
    assert said[-1] == "it: 39 of 40 images, 2:36, about 4.0 s left"


def test_images_are_given_in_the_size_that_is_computed_at_once_or_all_together():
    sizes = []

    def run(piece):
        sizes.append(len(piece))
        return np.zeros((len(piece), 2), np.float32)

    pace = Pace(None, "it", 10)
    assert pace.through(run, [0] * 7, 3).shape == (7, 2)
    assert pace.through(run, [0] * 7, None).shape == (7, 2)
    assert sizes == [3, 3, 1, 7]
