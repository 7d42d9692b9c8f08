"""Where pretrained weights lie, as timm and torchvision say it; nothing is fetched."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs `linne[train]`")
torchvision = pytest.importorskip("torchvision", reason="needs `linne[train]`")

from linne import models  # noqa: E402
from linne.errors import RecipeError  # noqa: E402
from linne.models import HubFile, WebFile  # noqa: E402
from linne.models.provider import hash_in, numbered  # noqa: E402


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("timm/resnet18.a1_in1k", ("timm/resnet18", "a1_in1k")),
        ("torchvision/resnet50.IMAGENET1K_V2", ("torchvision/resnet50", "IMAGENET1K_V2")),
        ("resnet18.a1_in1k", ("resnet18", "a1_in1k")),
        ("timm/resnet18", ("timm/resnet18", None)),
        ("small", ("small", None)),
        ("timm/resnet18.", ("timm/resnet18.", None)),
    ],
)
def test_a_name_is_split_into_the_network_and_the_tag_of_its_weights(name, expected):
    assert models.split_tag(name) == expected


def test_weights_of_timm_say_where_they_lie_whose_they_are_and_what_they_expect():
    default = models.pretrained("timm/resnet18")
    assert default == models.pretrained("timm/resnet18", "a1_in1k")
    assert default.full_name == "timm/resnet18.a1_in1k"
    expected = HubFile(repository="timm/resnet18.a1_in1k", filenames=("model.safetensors", "pytorch_model.bin"))
    assert default.where == expected
    assert str(default.where) == "timm/resnet18.a1_in1k/model.safetensors on the Hugging Face hub"
    assert (default.licence, default.sha256_prefix, default.size_bytes) == ("apache-2.0", None, None)
    assert (default.input.height, default.input.interpolation, default.input.crop_pct) == (224, "bicubic", 0.95)
    assert default.num_classes == 1000
    # Other weights of the same network were trained for other pixels.
    assert models.pretrained("timm/resnet18", "tv_in1k").input.interpolation == "bilinear"


def test_weights_of_torchvision_say_where_they_lie_and_what_they_expect():
    second = models.pretrained("torchvision/resnet50")
    first = models.pretrained("torchvision/resnet50", "IMAGENET1K_V1")
    assert second.full_name == "torchvision/resnet50.IMAGENET1K_V2"
    assert isinstance(first.where, WebFile)
    assert first.where.filename == "resnet50-0676ba61.pth"
    assert first.sha256_prefix == "0676ba61"
    assert first.size_bytes == pytest.approx(102_530_333, abs=1024)  # the file's own, and a thousandth of a MiB
    assert first.licence is None
    assert (first.input.crop_pct, second.input.crop_pct) == (224 / 256, 224 / 232)
    swag = models.pretrained("torchvision/vit_b_16", "IMAGENET1K_SWAG_E2E_V1")
    assert swag.input.height == 384
    assert swag.licence is not None
    assert swag.licence.endswith("SWAG/blob/main/LICENSE")


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_that_torchvision_renormalises_inside_take_what_comes_out_of_that(name):
    theirs = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    ours = models.pretrained(f"torchvision/{name}").input
    assert ours == models.input_defaults(f"torchvision/{name}")
    pixels_NCHW = torch.rand(1, 3, 75, 75, generator=torch.Generator().manual_seed(0))
    inside = torchvision.models.get_model(
        name, weights=None, num_classes=2, aux_logits=False, init_weights=False, transform_input=True
    )
    mean, std = (torch.tensor(values)[:, None, None] for values in (theirs.mean, theirs.std))
    expected = inside._transform_input((pixels_NCHW - mean) / std)
    found = (pixels_NCHW - torch.tensor(ours.mean)[:, None, None]) / torch.tensor(ours.std)[:, None, None]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)  # another order of the same sums in fp32


def test_labels_are_imagenets_names_in_the_order_of_the_outputs_each_once():
    in_timm, in_torchvision = (models.pretrained(name).labels() for name in ("timm/resnet18", "torchvision/resnet18"))
    assert in_timm is not None
    assert in_torchvision is not None
    assert in_timm[0] == "tench, Tinca tinca"
    assert in_torchvision[0] == "tench"
    for labels in (in_timm, in_torchvision):
        assert len(set(labels)) == len(labels) == 1000
    # The bird and the machine.
    assert (in_timm[134], in_timm[517]) == ("crane", "crane (2)")
    assert len(models.pretrained("timm/convnext_tiny", "in12k").labels() or ()) == 11821


@pytest.mark.parametrize(
    ("name", "tag"), [("timm/vit_base_patch16_224", "dino"), ("torchvision/vgg16", "IMAGENET1K_FEATURES")]
)
def test_weights_without_a_classifier_have_no_classes_and_no_labels(name, tag):
    weights = models.pretrained(name, tag)
    assert weights.num_classes == 0
    assert weights.labels() is None


def test_names_that_occur_twice_are_numbered_around_names_that_are_taken():
    assert numbered(("a", "b", "a", "a (2)", "a", "b")) == ("a", "b", "a (3)", "a (2)", "a (4)", "b (2)")


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("resnet50-0676ba61.pth", "0676ba61"),
        ("mnasnet0.5_top1_67.823-3ffadce67e.pth", "3ffadce67e"),
        ("d1_224_84.2.pth.tar", None),
        ("weights-latest.pth", None),
    ],
)
def test_a_hash_is_found_in_the_name_of_a_file_that_has_one(filename, expected):
    assert hash_in(filename) == expected


@pytest.mark.parametrize(
    ("name", "tag", "message", "hint"),
    [
        (
            "small",
            "default",
            "there are no pretrained weights of `small`",
            "leave `--weights` out to start from random ones",
        ),
        ("timm/resnet18", "a1_in21k", "`timm/resnet18` has no weights `a1_in21k`", "did you mean `a1_in1k`?"),
        ("torchvision/alexnet", "x", "`torchvision/alexnet` has no weights `x`", "there are `IMAGENET1K_V1`"),
    ],
)
def test_weights_that_nobody_published_are_refused_with_those_there_are(name, tag, message, hint):
    with pytest.raises(RecipeError) as failure:
        models.pretrained(name, tag)
    assert (failure.value.message, failure.value.hint) == (message, hint)
