"""linne's own network."""

from __future__ import annotations

import pytest
import torch

from linne.models.small import build_small


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (32, 32), (64, 64), (224, 224), (20, 50), (1, 1), (3, 90)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_trains_and_gives_one_logit_a_class(size, channels):
    model = build_small(5, channels, *size, None)
    logits = model(torch.randn(2, channels, *size))
    assert logits.shape == (2, 5)
    logits.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def num_weights(*args) -> int:
    return sum(p.numel() for p in build_small(*args, None).parameters())


def test_it_is_sized_by_the_input():
    assert num_weights(10, 1, 28, 28) < num_weights(10, 3, 28, 28) < num_weights(100, 3, 28, 28)


def test_dropout_works_in_training_only():
    model = build_small(3, 1, 8, 8, 0.5)
    images = torch.randn(4, 1, 8, 8)
    model.eval()
    assert torch.equal(model(images), model(images))
    model.train()
    assert not torch.equal(model(images), model(images))


def test_it_takes_the_peak_of_each_map():
    model = build_small(3, 1, 24, 20, None).eval()
    images = torch.randn(4, 1, 24, 20)
    maps_NCHW = model.stages(model.stem(images))
    assert maps_NCHW.shape[2:].numel() > 1
    assert torch.equal(model(images), model.head(maps_NCHW.amax((2, 3))))
