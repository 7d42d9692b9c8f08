"""The ImageNet recipes, on ImageNet's layout with a class of pictures where the real one has photographs."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import linne
from linne.planning import make_plan
from linne.recipe import Recipe
from linne.recipes import read_recipe

WNIDS = ("n01440764", "n02123045", "n07768694")


@pytest.fixture
def imagenet(tmp_path):
    """Return a folder laid out as ImageNet is, with a few images a class."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for wnid in WNIDS:
            folder = tmp_path / split / wnid
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{wnid}_{number}.JPEG")
    words = ("tench, Tinca tinca", "tabby, tabby cat", "pomegranate")
    lines = [f"{wnid} {word}\n" for wnid, word in zip(WNIDS, words, strict=True)]
    (tmp_path / "LOC_synset_mapping.txt").write_text("".join(lines))
    return tmp_path


def planned(name: str, folder, **given) -> Recipe:
    fields = {"data.source": f"imagenet:{folder}", "device.name": "cpu", **read_recipe(name), **given}
    return make_plan(fields, dict.fromkeys(fields, "given")).recipe


def test_the_rate_is_cut_by_ten_every_thirty_of_ninety_epochs_of_random_crops(imagenet):
    recipe = planned("imagenet", imagenet, **{"data.batch_size": 4})
    assert (recipe.optim.schedule, recipe.optim.step_epochs, recipe.optim.epochs) == ("step", 30, 90)
    assert (recipe.optim.lr, recipe.optim.momentum, recipe.optim.weight_decay) == (0.1, 0.9, 1e-4)
    assert (recipe.augment.resized_crop_area, recipe.augment.flip, recipe.data.loader) == (0.08, True, "streaming")


def test_the_test_sees_the_middle_224_pixels_of_256(imagenet):
    from linne.preprocess import InputSpec, resized_size

    data = planned("imagenet", imagenet, **{"data.batch_size": 4}).data
    sizes = {"height": data.height, "width": data.width, "crop_pct": data.crop_pct}
    spec = InputSpec(channels=3, mean=data.mean, std=data.std, **sizes)
    assert (data.height, data.width) == (224, 224)
    assert resized_size(375, 500, spec) == (256, 341)


def test_a3_trains_at_160_of_224_pixels(imagenet):
    recipe = planned("imagenet-a3", imagenet, **{"data.batch_size": 4, "model.name": "timm/test_resnet"})
    assert recipe.augment.size_start * recipe.data.height == pytest.approx(160)
    assert recipe.augment.size_end == recipe.augment.size_start


def test_the_folder_source_names_the_source_that_knows_the_words(imagenet):
    advice = f"the classes are WordNet numbers: `imagenet:{imagenet}` reads this folder with their English names"
    assert advice in linne.open_source(str(imagenet)).notes
    source = linne.open_source(f"imagenet:{imagenet}")
    assert source.labels == ("tench", "tabby", "pomegranate")
    assert advice not in source.notes


@pytest.mark.parametrize(
    ("name", "network", "rate", "epochs"),
    [
        ("imagenet-resnet50-finetune", "torchvision/resnet50", 1e-3, 10),
        ("tiny-imagenet-inception", "torchvision/inception_v3", 0.1, 90),
    ],
)
def test_fine_tuning_starts_from_the_networks_default_weights(name, network, rate, epochs):
    fields = read_recipe(name)
    assert (fields["model.name"], fields["model.weights"]) == (network, "default")
    assert (fields["optim.lr"], fields["optim.epochs"]) == (rate, epochs)


@pytest.mark.long
@pytest.mark.parametrize("name", ["imagenet", "imagenet-a3"])
def test_a_recipe_trains_on_imagenets_layout_and_validates_every_epoch(imagenet, tmp_path, name):
    small = {"data.batch_size": 4, "data.height": 64, "data.width": 64}
    given = {"model": "timm/test_resnet", "epochs": 1, "device": "cpu", "quiet": True}
    result = linne.train(f"imagenet:{imagenet}", recipe=name, overrides=small, output=tmp_path / "run", **given)
    assert result.val_accuracy is not None
    assert linne.open_bundle(result.bundle).labels == ("tench", "tabby", "pomegranate")
