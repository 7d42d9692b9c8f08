"""Networks that torch crashes with in channels_last are trained in the other layout."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs `linne[train]`")
pytest.importorskip("timm", reason="needs `linne[train]`")

from linne.errors import RecipeError  # noqa: E402
from linne.models.layout import layer_against_channels_last  # noqa: E402
from linne.planning import plan_anew  # noqa: E402
from linne.recipe import DataConfig, ModelConfig, Recipe  # noqa: E402

SOURCE = "synthetic:classes=2,size=96,count=24"


def recipe_of(name):
    return Recipe(data=DataConfig(source=SOURCE, height=64, width=64, channels=3), model=ModelConfig(name=name))


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("timm/repvgg_a0", "stem.conv_1x1.conv"),
        ("timm/mobileone_s0", "stem.conv_scale.conv"),
        ("timm/fastvit_t8", "stem.0.conv_scale.conv"),
        ("timm/resnet10t", None),
        ("small", None),
    ],
)
def test_a_stride_of_one_pixel_over_few_channels_is_found(name, layer):
    assert layer_against_channels_last(recipe_of(name), 2, "cpu") == layer
    assert layer_against_channels_last(recipe_of(name), 2, "cuda") is None


def test_channels_last_is_refused_by_the_layer_where_it_is_asked_for():
    flags = {"model.name": "timm/repvgg_a0", "device.name": "cpu", "data.batch_size": 4, "optim.epochs": 1}
    size = {"data.height": 96, "data.width": 96}
    assert plan_anew(SOURCE, None, flags, size, say=str).recipe.device.channels_last is False
    with pytest.raises(RecipeError, match=r"with device\.channels_last=true on `cpu`: torch crashes with") as caught:
        plan_anew(SOURCE, None, flags, {**size, "device.channels_last": True}, say=str)
    assert caught.value.hint == "use --set device.channels_last=false"


@pytest.mark.long
def test_such_a_network_is_trained_and_says_why_in_the_other_layout(python, tmp_path):
    size = ("--set", "data.height=96", "--set", "data.width=96")
    words = ("--model", "timm/fastvit_t8", "--device", "cpu", "--epochs", "1", "--batch-size", "8", *size)
    ended = python("-m", "linne", "train", SOURCE, *words, "--output", tmp_path / "run")
    assert ended.returncode == 0, ended.stderr
    why = "torch crashes with a 1 x 1 convolution with a stride over so few channels as `stem.0.conv_scale.conv` has"
    assert why in ended.stderr
