"""LeNet as tutorials have it."""

from __future__ import annotations

import pytest
import torch

from linne import models
from linne.errors import RecipeError
from linne.models.lenet import build_lenet


def test_at_32_pixels_it_is_the_tutorials_network():
    shapes = [tuple(weights.shape) for weights in build_lenet(10, 3, 32, 32, None).state_dict().values()]
    assert shapes == [
        *((6, 3, 5, 5), (6,), (16, 6, 5, 5), (16,)),
        *((120, 400), (120,), (84, 120), (84,), (10, 84), (10,)),
    ]


@pytest.mark.parametrize("size", [(16, 16), (28, 28), (16, 90), (224, 224)])
@pytest.mark.parametrize("channels", [1, 3])
def test_sizes_from_16_pixels_on_train_and_give_one_logit_a_class(size, channels):
    model = build_lenet(5, channels, *size, None)
    logits = model(torch.randn(2, channels, *size))
    assert logits.shape == (2, 5)
    logits.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_smaller_images_are_refused_with_a_size_that_works():
    with pytest.raises(RecipeError) as caught:
        models.describe("lenet", num_classes=10, channels=1, height=8, width=8)
    assert caught.value.message == "`lenet` cannot take 8 x 8 pixels"
    assert caught.value.hint == "use `--set data.height=16 --set data.width=16`"
