"""The network of the speed records."""

from __future__ import annotations

import pytest
import torch

from linne.models import Variant, build, describe
from linne.models.speedrun import build_speedrun


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (32, 32), (64, 64), (20, 50), (2, 2), (3, 90)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_trains_and_gives_one_logit_a_class(size, channels):
    model = build_speedrun(5, channels, *size, None, 0.25, None)
    logits = model(torch.randn(2, channels, *size))
    assert logits.shape == (2, 5)
    logits.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_it_has_the_size_of_the_record():
    model = build_speedrun(10, 3, 32, 32, None, None, 1)
    convolutions = [tuple(p.shape) for p in model.parameters() if p.ndim == 4]
    widths = ((24, 3, 2), (64, 24, 3), (64, 64, 3), (256, 64, 3), (256, 256, 3), (256, 256, 3), (256, 256, 3))
    assert convolutions == [(out, into, side, side) for out, into, side in widths]


def test_width_is_how_many_times_as_many_channels():
    def shapes(width: float | None) -> list[int]:
        ref = describe("speedrun", num_classes=10, channels=3, height=32, width=32, variant=Variant(width=width))
        return [group[0].out_channels for group in build(ref).groups]

    assert (shapes(None), shapes(0.5), shapes(2.0)) == ([64, 256, 256], [32, 128, 128], [128, 512, 512])


@pytest.mark.parametrize(("side", "stride"), [(8, 1), (16, 2), (32, 2), (96, 2), (160, 4), (224, 4)])
def test_patches_grow_with_the_image(side, stride):
    first = build_speedrun(10, 3, side, side, None, 0.25, None).patches
    assert (first.stride, first.kernel_size) == ((stride,) * 2, (2 * stride,) * 2)
    assert first.out_channels == min(24 * stride**2, 96)


def test_the_stride_of_patches_can_be_said():
    assert build_speedrun(10, 3, 32, 32, None, 0.25, 3).patches.stride == (3, 3)


def test_dropout_works_in_training_only():
    model = build_speedrun(3, 1, 8, 8, 0.5, 0.25, None).eval()
    images = torch.randn(4, 1, 8, 8)
    assert torch.equal(model(images), model(images))
    model.train()
    assert not torch.equal(model(images), model(images))
