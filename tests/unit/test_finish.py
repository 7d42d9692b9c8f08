"""Normalising batches: the reference to the bit, in memory that is used again only when nobody has it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from linne.data.loading.finish import Finish, Memory
from linne.device import Device
from linne.preprocess import InputSpec, normalise

CPU = Device.pick("cpu")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


SHAPES = [(5, 7, 9, 3), (5, 7, 9, 1), (1, 1, 1, 3), (3, 300, 320, 3)]
"""The last takes a piece an image."""


def spec_of(channels: int, height: int, width: int) -> InputSpec:
    return InputSpec(channels=channels, height=height, width=width, mean=MEAN[:channels], std=STD[:channels])


def random_images(count: int, height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_value_is_the_reference_s_to_the_bit(shape, channels_last):
    _, height, width, channels = shape
    images_NHWC = random_images(*shape)
    spec = spec_of(channels, height, width)
    found = Finish(spec, CPU, channels_last=channels_last)(torch.from_numpy(images_NHWC))
    assert np.array_equal(found.numpy(), normalise(images_NHWC, spec))
    layout = torch.channels_last if channels_last and channels > 1 else torch.contiguous_format
    assert found.is_contiguous(memory_format=layout)


def test_every_value_of_a_pixel_comes_out_right():
    images_NHWC = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    spec = spec_of(3, 16, 16)
    found = Finish(spec, CPU, channels_last=True)(torch.from_numpy(images_NHWC))
    assert np.array_equal(found.numpy(), normalise(images_NHWC, spec))


def test_a_grey_image_repeated_for_a_colour_model_is_normalised_by_channel():
    grey_NHWC = random_images(4, 6, 5, 1)
    spec = spec_of(3, 6, 5)
    found = Finish(spec, CPU, channels_last=True)(torch.from_numpy(grey_NHWC).expand(-1, -1, -1, 3))
    assert np.array_equal(found.numpy(), normalise(grey_NHWC.repeat(3, axis=3), spec))


def test_no_images_are_no_images():
    found = Finish(spec_of(3, 6, 5), CPU, channels_last=True)(torch.empty((0, 6, 5, 3), dtype=torch.uint8))
    assert found.shape == (0, 3, 6, 5)


def test_batches_that_are_kept_keep_their_values():
    finish, spec = Finish(spec_of(3, 6, 5), CPU, channels_last=True), spec_of(3, 6, 5)
    images = [random_images(4, 6, 5, 3) + np.uint8(n) for n in range(6)]
    kept = [finish(torch.from_numpy(each)) for each in images]
    for each, found in zip(images, kept, strict=True):
        assert np.array_equal(found.numpy(), normalise(each, spec))


def test_memory_that_nobody_has_any_more_is_lent_again():
    memory = Memory()
    first = memory.lend(1000)
    place = first.data_ptr()
    second = memory.lend(1000)
    assert second.data_ptr() != place
    del first
    assert memory.lend(900).data_ptr() == place


def test_a_part_of_a_batch_holds_all_of_its_memory():
    memory = Memory()
    part = memory.lend(1000)[990:]
    other = memory.lend(1000)
    assert not other.data_ptr() <= part.data_ptr() < other.data_ptr() + 4000


def test_what_autograd_saved_is_not_lent_again():
    memory = Memory()
    weight = torch.ones(1000, requires_grad=True)
    batch = memory.lend(1000).fill_(2.0)
    loss = (batch * weight).sum()
    del batch
    memory.lend(1000).fill_(7.0)
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [2.0] * 1000


def test_a_larger_batch_gets_memory_of_its_size():
    memory = Memory()
    memory.lend(10)
    assert len(memory.lend(1000)) == 1000
