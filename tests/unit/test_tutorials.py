"""The programs of other tutorials as recipes: that their settings are those of the programs."""

from __future__ import annotations

import pytest

from linne.planning import make_plan
from linne.recipe import Recipe
from linne.recipes import read_recipe


def planned(name: str, source: str) -> Recipe:
    fields = {"data.source": source, "device.name": "cpu", **read_recipe(name)}
    return make_plan(fields, dict.fromkeys(fields, "given")).recipe


def test_the_cifar10_tutorial_is_sgd_on_batches_of_four_unaugmented_images():
    recipe = planned("cifar10-cnn", "synthetic:size=32,count=50")
    assert (recipe.model.name, recipe.data.batch_size, recipe.optim.epochs) == ("lenet", 4, 2)
    assert (recipe.optim.optimizer, recipe.optim.lr, recipe.optim.momentum) == ("sgd", 1e-3, 0.9)
    assert (recipe.optim.weight_decay, recipe.optim.schedule) == (0.0, "constant")
    assert recipe.data.mean == recipe.data.std == (0.5, 0.5, 0.5)
    assert not recipe.augment.flip
    assert recipe.augment.crop_padding is None


def test_kerass_first_tutorial_is_adam_on_pixels_divided_by_255():
    recipe = planned("fashion-mnist-dense", "synthetic:size=28,channels=1,count=50")
    assert (recipe.model.name, recipe.data.batch_size, recipe.optim.epochs) == ("mlp", 32, 10)
    assert (recipe.optim.optimizer, recipe.optim.lr, recipe.optim.weight_decay) == ("adamw", 1e-3, 0.0)
    assert (recipe.data.mean, recipe.data.std) == ((0.0,), (1.0,))


@pytest.mark.parametrize("name", ["mnist", "cifar10-cnn", "fashion-mnist-dense"])
def test_a_tutorials_recipe_holds_no_training_image_out(name):
    assert read_recipe(name)["data.val_fraction"] is None


def test_a_digit_is_never_mirrored():
    assert read_recipe("mnist")["augment.flip"] is False
