"""Decoding ahead: in order, each image in its row, whatever the threads do; and random parts at reduced size."""

from __future__ import annotations

import gc
import threading
import time
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from linne.data.loading import streaming
from linne.data.loading.augment import resized_crop_box, uniforms
from linne.data.loading.streaming import decode_ahead, random_part
from linne.data.source import Split
from linne.errors import ImageError
from linne.preprocess import InputSpec, pillow_resize, resize_and_crop

SHAPE = (2, 2, 1)


def image_of(position: int) -> np.ndarray:
    return np.full(SHAPE, position % 251, np.uint8)


def batches_of(count: int, size: int) -> list[np.ndarray]:
    order_N = np.random.default_rng(0).permutation(count)
    return [order_N[first : first + size] for first in range(0, count, size)]


@pytest.mark.parametrize("num_threads", [0, 1, 3, 8])
def test_batches_come_in_order_with_each_image_in_its_row(num_threads):
    def decode(position: int) -> np.ndarray:
        time.sleep(0.002 if position % 7 == 0 else 0)  # some take longer and are overtaken
        return image_of(position)

    batches = batches_of(200, 30)
    found = list(decode_ahead(batches, decode, SHAPE, num_threads=num_threads))
    assert len(found) == len(batches)
    for batch, positions_B in zip(found, batches, strict=True):
        assert np.array_equal(batch.positions_B, positions_B)
        assert batch.images_BHWC.shape == (len(positions_B), *SHAPE)
        assert batch.images_BHWC[:, 0, 0, 0].tolist() == [position % 251 for position in positions_B.tolist()]


@pytest.mark.parametrize("num_threads", [0, 3])
def test_unreadable_images_are_left_out_of_their_batch_with_the_reason(num_threads):
    def decode(position: int) -> np.ndarray:
        if position % 10 == 3:
            raise ImageError(f"`{position}.jpg` is broken")
        return image_of(position)

    batches = [np.arange(0, 20), np.array([3, 13, 23]), np.arange(20, 30)]
    first, second, third = decode_ahead(batches, decode, SHAPE, num_threads=num_threads)
    assert first.positions_B.tolist() == [n for n in range(20) if n % 10 != 3]
    assert first.images_BHWC[:, 0, 0, 0].tolist() == first.positions_B.tolist()
    assert first.problems == {3: "`3.jpg` is broken", 13: "`13.jpg` is broken"}
    assert second.images_BHWC.shape == (0, *SHAPE)
    assert third.problems == {23: "`23.jpg` is broken"}


@pytest.mark.parametrize("num_threads", [0, 2])
def test_an_error_that_is_no_image_s_reaches_the_loop(num_threads):
    def decode(position: int) -> np.ndarray:
        raise MemoryError("no more")

    with pytest.raises(MemoryError, match="no more"):
        list(decode_ahead(batches_of(10, 5), decode, SHAPE, num_threads=num_threads))


def test_all_threads_decode_at_once():
    together = threading.Barrier(4, timeout=20)

    def decode(position: int) -> np.ndarray:
        together.wait()  # passes when four are inside
        return image_of(position)

    assert len(list(decode_ahead([np.arange(8)], decode, SHAPE, num_threads=4))) == 1


def test_no_more_is_decoded_ahead_than_the_memory_it_may_take():
    decoded: list[int] = []

    def decode(position: int) -> np.ndarray:
        decoded.append(position)
        return np.zeros((1024, 1024, 16), np.uint8)  # 16 MiB

    batches = [np.array([position]) for position in range(60)]
    found = decode_ahead(batches, decode, (1024, 1024, 16), num_threads=2)
    next(found)
    time.sleep(0.5)
    assert len(decoded) <= 1 + streaming.AHEAD_BYTES // (16 * 2**20)
    found.close()


def test_leaving_early_stops_the_threads():
    decoded: list[int] = []

    def decode(position: int) -> np.ndarray:
        decoded.append(position)
        time.sleep(0.001)
        return image_of(position)

    for _ in decode_ahead(batches_of(5000, 10), decode, SHAPE, num_threads=2):
        break
    gc.collect()
    time.sleep(0.05)
    so_far = len(decoded)
    time.sleep(0.1)
    assert len(decoded) == so_far < 1000
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_the_pixels_are_on_the_host_as_bytes():
    (batch,) = decode_ahead([np.arange(3)], image_of, SHAPE, num_threads=1)
    assert batch.images_BHWC.dtype == torch.uint8
    assert batch.images_BHWC.device.type == "cpu"


class Encoded:
    """A store of one encoded image."""

    array = None

    def __init__(self, data: bytes | np.ndarray) -> None:
        self.data = data

    def __len__(self) -> int:
        return 1

    def load(self, index: int) -> bytes | np.ndarray:
        return self.data

    def name(self, index: int) -> str:
        return "photo.jpg"


def split_of(data: bytes | np.ndarray) -> Split:
    return Split("train", Encoded(data), np.array([0]), np.array([0]))


def photo(height: int, width: int) -> tuple[np.ndarray, bytes]:
    """Return smooth noise, and the same as a JPEG of the best quality."""
    rng = np.random.default_rng(1)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    image = coarse.resize((width, height), Image.Resampling.BICUBIC)
    file = BytesIO()
    image.save(file, "jpeg", quality=98, subsampling=0)
    return np.asarray(image), file.getvalue()


SPEC = InputSpec(channels=3, height=32, width=32, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.mark.parametrize("position", range(8))
def test_a_random_part_of_a_jpeg_at_reduced_size_is_that_of_the_whole_one(position):
    pixels_HWC, data = photo(600, 800)
    draws_D = uniforms(0, 0, np.array([position]))[0]
    found = random_part(split_of(data), 0, SPEC, draws_D, 0.2, pillow_resize)
    top, left, part_H, part_W = resized_crop_box(draws_D, 0.2, 600, 800)
    part_HWC = np.ascontiguousarray(pixels_HWC[top : top + part_H, left : left + part_W])
    expected = resize_and_crop(part_HWC, SPEC).astype(int)
    steps = [np.abs(np.diff(expected, axis=axis)).mean() for axis in (0, 1)]
    # Edges move by up to half a pixel of the reduced image, a quarter of a step between two of these.
    assert np.abs(found - expected).mean() < 0.25 * sum(steps)


def test_a_small_part_is_decoded_at_the_size_that_it_needs():
    seen = []

    def resize(pixels_HWC, *rest):
        seen.append(pixels_HWC.shape[:2])
        return pillow_resize(pixels_HWC, *rest)

    _, data = photo(1024, 1024)
    for area in (0.999, 0.05):
        draws_D = np.zeros(8, np.float32)  # the smallest area there is
        random_part(split_of(data), 0, SPEC, draws_D, area, resize)
    whole, part = seen
    assert whole[0] == 128  # an eighth of 1,024, not less than twice 32
    assert 64 <= part[0] < 128  # a quarter of 229


def test_a_random_part_of_pixels_is_cut_from_them():
    pixels_HWC, _ = photo(60, 80)
    draws_D = uniforms(0, 0, np.array([3]))[0]
    found = random_part(split_of(pixels_HWC), 0, SPEC, draws_D, 0.2, pillow_resize)
    top, left, part_H, part_W = resized_crop_box(draws_D, 0.2, 60, 80)
    part_HWC = np.ascontiguousarray(pixels_HWC[top : top + part_H, left : left + part_W])
    assert np.array_equal(found, resize_and_crop(part_HWC, SPEC))


def test_an_unreadable_image_is_named_whichever_part_is_wanted():
    draws_D = uniforms(0, 0, np.array([0]))[0]
    with pytest.raises(ImageError, match="`photo\\.jpg` cannot be read"):
        random_part(split_of(b"\xff\xd8\xff nonsense"), 0, SPEC, draws_D, 0.2, pillow_resize)
