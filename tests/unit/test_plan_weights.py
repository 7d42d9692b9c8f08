"""What a plan says about pretrained weights: which they are, and what follows from them."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs `linne[train]`")
timm = pytest.importorskip("timm", reason="needs `linne[train]`")

from safetensors.torch import save_file  # noqa: E402

from linne import models  # noqa: E402
from linne.errors import RecipeError  # noqa: E402
from linne.explaining import explain  # noqa: E402
from linne.plan_weights import designed_for  # noqa: E402
from linne.planning import plan_anew  # noqa: E402
from linne.weights.finding import bars_commerce, find, spec_of  # noqa: E402

SOURCE = "synthetic:classes=3,size=12,count=90"
MODEL = "timm/test_resnet"
SMALL = {"data.height": 32, "data.width": 32}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_file(timm.create_model("test_resnet", num_classes=7).state_dict(), file)
    return file


def plan(overrides=None, **fields):
    flags = {f"model.{name}": value for name, value in fields.items()}
    said = []
    return plan_anew(SOURCE, None, {"device.name": "cpu", **flags}, overrides or {}, say=said.append)


def test_the_weights_of_a_plan_are_pinned_by_their_hash(weights):
    import hashlib

    planned = plan(name=MODEL, weights=str(weights))
    assert planned.recipe.model.weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert planned.reasons["model.weights_sha256"] == "of the file that is there, so that a repeat starts from the same"


def test_a_plan_says_whose_weights_it_starts_from_also_with_a_time_budget(weights):
    for options in ({}, {"optim.minutes": 0.01, **SMALL}):
        origin = plan(options, name=MODEL, weights=str(weights)).started_from
        assert (origin.weights, origin.licence) == (str(weights), None)
    assert plan(name="small").started_from is None


@pytest.mark.parametrize(
    ("licence", "bars"),
    [
        ("cc-by-nc-4.0", True),
        ("fair-noncommercial-research-license", True),
        ("apple-amlr", True),
        ("https://github.com/facebookresearch/SWAG/blob/main/LICENSE", True),
        ("apache-2.0", False),
        ("apple-ascl", False),
        ("nvidia-open-model-license", False),
        (None, False),
    ],
)
def test_licences_that_bar_commerce_are_known_by_their_names(licence, bars):
    assert bars_commerce(licence) is bars


def test_other_weights_than_those_of_the_recipe_are_refused(weights):
    with pytest.raises(RecipeError, match=r"have sha256 .*, expected 000000000000") as caught:
        plan({"model.weights_sha256": "0" * 64}, name=MODEL, weights=str(weights))
    assert "--set model.weights_sha256=none" in caught.value.hint


def test_weights_without_a_network_ask_for_it(weights):
    with pytest.raises(RecipeError, match="does not say of which network") as caught:
        plan(weights=str(weights))
    assert caught.value.hint == "add --model NAME"


def test_weights_that_do_not_exist_are_refused_before_anything_is_read():
    with pytest.raises(RecipeError, match=r"no weights at `gone\.pth`: there is no such file or folder"):
        plan(name=MODEL, weights="gone.pth")


def test_a_name_that_the_provider_does_not_know_gets_the_nearest():
    with pytest.raises(RecipeError, match="has no pretrained weights `IMAGENET1K_V9`") as caught:
        plan(name="torchvision/resnet18", weights="IMAGENET1K_V9")
    assert caught.value.hint == "did you mean `IMAGENET1K_V1`?"


def test_weights_named_twice_are_refused(weights):
    with pytest.raises(RecipeError, match="weights are named twice"):
        plan(name="timm/resnet18.a1_in1k", weights=str(weights))


def test_our_own_networks_have_no_published_weights():
    with pytest.raises(RecipeError, match="`small` has no pretrained weights") as caught:
        plan(name="small", weights="default")
    assert "--weights FILE" in caught.value.hint


def test_a_pretrained_network_is_tuned_and_not_trained_anew(weights):
    recipe = plan(name=MODEL, weights=str(weights)).recipe
    assert (recipe.optim.optimizer, recipe.optim.layer_decay, recipe.model.keep_statistics) == ("adamw", 0.85, True)
    assert recipe.data.height == recipe.data.width == 128
    assert recipe.data.mean == (0.5, 0.5, 0.5)  # what the network was designed for


def test_an_average_that_learns_statistics_anew_leaves_them_free(weights):
    recipe = plan({"optim.schedule": "schedule-free"}, name=MODEL, weights=str(weights)).recipe
    assert not recipe.model.keep_statistics


def test_grey_images_get_the_mean_and_deviation_of_what_the_colours_saw(weights):
    recipe = plan({"data.channels": 1, **SMALL}, name="torchvision/resnet18").recipe
    assert len(recipe.data.mean) == 1  # from random weights: measured on the images
    save = weights.with_name("colour.safetensors")
    from torchvision.models import resnet18

    save_file(resnet18().state_dict(), save)
    recipe = plan({"data.channels": 1, **SMALL}, name="torchvision/resnet18", weights=str(save)).recipe
    assert recipe.data.std == pytest.approx((3 / (1 / 0.229 + 1 / 0.224 + 1 / 0.225),))


def test_explaining_reads_no_weights(tmp_path):
    empty = tmp_path / "not-weights.pth"
    empty.write_bytes(b"")
    explained = explain(
        SOURCE, flags={"model.name": MODEL, "model.weights": str(empty)}, overrides={}, say=lambda line: None
    )
    assert explained.recipe.model.weights_sha256 is None


def test_weights_that_were_made_for_stretched_images_bring_that_to_recipe_and_bundle():
    squashed = "timm/convnext_base.clip_laion2b_augreg_ft_in12k_in1k_384"
    assert designed_for({"model.name": squashed}, {"model.name": "given"}).crop_mode == "squash"
    assert designed_for({"model.name": "timm/convnext_base"}, {"model.name": "given"}).crop_mode == "center"
    found = find("clip_laion2b_augreg_ft_in12k_in1k_384", "timm/convnext_base")
    assert spec_of(found.input).crop_mode == "squash"


@pytest.mark.skipif(
    not timm.is_model("deepseek_vit_412m"), reason="needs a timm of 1.0.31 or later, which has such weights"
)
def test_weights_for_images_between_borders_are_refused_and_taken_for_stretched_ones_when_asked():
    network = "timm/deepseek_vit_412m"
    (weights, *_) = models.load_provider("timm").pretrained("deepseek_vit_412m")
    given = {"model.name": network, "model.weights": weights.tag}
    with pytest.raises(RecipeError, match="made for whole images between borders") as caught:
        designed_for(dict(given), {})
    assert "--set data.crop_mode=squash" in caught.value.hint
    assert designed_for({**given, "data.crop_mode": "squash"}, {}).crop_mode == "squash"
