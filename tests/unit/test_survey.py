"""The first look at a set: the same numbers from any number of threads, and rates to choose that number by."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from linne.data.loading.survey import Survey, survey
from linne.data.source import Split
from linne.errors import ImageError, SourceError


class Store:
    """Images as bytes or pixels; `broken` ones cannot be read, `lend` offers the array."""

    def __init__(self, images, broken=(), lend=None):
        self.images, self.broken, self.array = images, set(broken), lend

    def __len__(self):
        return len(self.images)

    def load(self, index):
        if index in self.broken:
            raise ImageError(f"`{self.name(index)}` cannot be read: it is broken")
        return self.images[index]

    def name(self, index):
        return f"picture[{index}]"


def split_of(images, **options):
    return Split("train", Store(images, **options), np.arange(len(images)), np.zeros(len(images), np.int64))


def random_pixels(count, height=20, width=30, channels=3):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, channels), dtype=np.uint8)


def png(pixels_HWC):
    file = BytesIO()
    Image.fromarray(pixels_HWC).save(file, "png")
    return file.getvalue()


def test_mean_and_deviation_are_those_of_all_pixels_of_small_images():
    pixels = random_pixels(50)
    found = survey(split_of([png(one) for one in pixels]), 3, 2)
    scaled = pixels.reshape(-1, 3) / 255
    assert found.mean == pytest.approx(scaled.mean(0), abs=6e-5)  # four digits are kept
    assert found.std == pytest.approx(scaled.std(0), abs=6e-5)


def test_any_number_of_threads_finds_the_same():
    split = split_of([png(one) for one in random_pixels(80)])
    found = [survey(split, 3, num_cores) for num_cores in (1, 2, 7)]
    assert len({(each.mean, each.std) for each in found}) == 1


def test_large_photos_are_measured_on_a_part_of_their_pixels():
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    whole = coarse.resize((1600, 1200), Image.Resampling.BICUBIC)
    file = BytesIO()
    whole.save(file, "jpeg", quality=95)
    found = survey(split_of([file.getvalue()] * 3), 3, 1)
    scaled = np.asarray(whole).reshape(-1, 3) / 255
    assert found.mean == pytest.approx(scaled.mean(0), abs=0.01)
    assert found.std == pytest.approx(scaled.std(0), abs=0.01)


def test_rates_are_told_for_each_number_of_threads_that_was_tried():
    images = [png(one) for one in random_pixels(200)]
    rates = survey(split_of(images), 3, 6).rates
    assert list(rates) == [1, 2, 4, 6][: len(rates)]
    assert len(rates) > 1
    assert all(rate > 0 for rate in rates.values())
    assert list(survey(split_of(images), 3, 1).rates) == [1]


def test_a_handful_of_images_is_too_few_to_compare_threads_on():
    assert list(survey(split_of([png(one) for one in random_pixels(5)]), 3, 8).rates) == [1]


def test_pixels_in_memory_need_no_threads():
    pixels = random_pixels(40)
    found = survey(split_of(list(pixels), lend=pixels), 3, 8)
    assert found.rates == {}
    assert found.threads == 1
    assert found.mean == pytest.approx(pixels.reshape(-1, 3).mean(0) / 255, abs=6e-5)


@pytest.mark.parametrize(
    ("rates", "threads"),
    [
        ({1: 700.0, 2: 1350.0}, 2),
        ({1: 700.0, 2: 690.0}, 1),
        ({1: 700.0, 2: 1300.0, 4: 2500.0, 8: 2550.0}, 4),  # four cores of eight are granted
        ({1: 100.0, 2: 300.0, 4: 200.0}, 2),
    ],
)
def test_the_fewest_threads_that_are_as_fast_as_any_are_chosen(rates, threads):
    assert Survey((0.5,), (0.5,), rates).threads == threads


def test_unreadable_images_are_passed_over():
    pixels = random_pixels(30)
    split = split_of([png(one) for one in pixels], broken={0, 7, 29})
    readable = np.delete(pixels, [0, 7, 29], axis=0).reshape(-1, 3) / 255
    assert survey(split, 3, 2).mean == pytest.approx(readable.mean(0), abs=6e-5)


def test_a_set_of_unreadable_images_is_refused_with_a_reason():
    split = split_of([png(one) for one in random_pixels(3)], broken={0, 1, 2})
    with pytest.raises(SourceError) as caught:
        survey(split, 3, 2)
    assert caught.value.message == "no image could be read: `picture[2]` cannot be read: it is broken"


def test_images_of_one_even_grey_have_a_deviation_that_can_be_divided_by():
    found = survey(split_of([png(np.full((4, 4, 3), 255, np.uint8))] * 4), 3, 1)
    assert found.mean == (1.0, 1.0, 1.0)
    assert found.std == pytest.approx((1 / 255,) * 3, abs=1e-4)
