"""Names of networks and what is said about them; what every provider promises is in tests/conformance."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs `linne[train]`")

from linne import models  # noqa: E402
from linne.errors import RecipeError  # noqa: E402
from linne.models import ModelRef, Variant  # noqa: E402
from linne.models.listing import list_models  # noqa: E402


def describe(name: str, height: int = 32, width: int = 32, channels: int = 3, **variant: Any) -> ModelRef:
    size = {"channels": channels, "height": height, "width": width}
    return models.describe(name, num_classes=5, **size, variant=Variant(**variant))


def refusal(*arguments: Any, **options: Any) -> tuple[str, str | None]:
    """Return the message and hint with which `describe` refuses."""
    with pytest.raises(RecipeError) as failure:
        describe(*arguments, **options)
    return failure.value.message, failure.value.hint


# Names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("small", ("linne", "small")),
        ("mlp", ("linne", "mlp")),
        ("linne/mlp", ("linne", "mlp")),
        ("timm/resnet18", ("timm", "resnet18")),
        ("torchvision/resnet18", ("torchvision", "resnet18")),
        ("alexnet", ("torchvision", "alexnet")),
        ("vit_tiny_patch16_224", ("timm", "vit_tiny_patch16_224")),
    ],
)
def test_a_name_is_found_with_and_without_its_provider(name, expected):
    assert models.resolve(name) == expected


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        (
            "resnet50",
            "`resnet50` is a model of timm and of torchvision",
            "use `timm/resnet50` or `torchvision/resnet50`",
        ),
        ("smal", "no model `smal`", "did you mean `small`?"),
        ("resnt18", "no model `resnt18`", "did you mean `resnet18`?"),
        ("timm/resnt18", "no model `resnt18` in timm", "did you mean `timm/resnet18`?"),
        (
            "torchvison/resnet18",
            "no model `torchvison/resnet18`: there is no provider `torchvison`",
            "did you mean `torchvision/resnet18`?",
        ),
        ("qqqqqqqq", "no model `qqqqqqqq`", "`linne models` lists them all"),
        ("", "no model ``", "`linne models` lists them all"),
        ("timm/", "no model `` in timm", "`linne models` lists them all"),
        (
            "timm/resnet18.a1_in1k",
            "`timm/resnet18.a1_in1k` names a network together with its weights `a1_in1k`, expected a network alone",
            "use `timm/resnet18`",
        ),
        (
            "vit_tiny_patch16_224.augreg_in21k",
            "`vit_tiny_patch16_224.augreg_in21k` names a network together with its weights `augreg_in21k`, expected "
            "a network alone",
            "use `timm/vit_tiny_patch16_224`",
        ),
    ],
)
def test_a_name_that_is_not_one_network_is_refused_with_what_to_type(name, message, hint):
    with pytest.raises(RecipeError) as failure:
        models.resolve(name)
    assert (failure.value.message, failure.value.hint) == (message, hint)


def test_an_unknown_provider_in_a_bundle_is_refused():
    ref = ModelRef(provider="keras", name="x", num_classes=2, channels=3, height=8, width=8, options={})
    with pytest.raises(RecipeError, match="no model provider `keras`") as failure:
        models.build(ref)
    assert failure.value.hint == "known: `linne`, `timm`, `torchvision`, `hf`, `python`"


@pytest.mark.parametrize("name", ["hf-hub:timm/resnet18.a1_in1k", "local-dir:/tmp", "resnet18.a1_in1k"])
def test_a_bundle_cannot_make_timm_follow_a_name_elsewhere(name):
    ref = ModelRef(provider="timm", name=name, num_classes=2, channels=3, height=32, width=32, options={})
    with pytest.raises(RecipeError, match=r"no model `.*` in timm"):
        models.build(ref)


# Imports and missing packages


def test_our_own_networks_are_found_and_listed_without_importing_a_framework(python):
    program = (
        "import sys, linne.models as m\n"
        "m.resolve('small'), m.resolve('mlp'), m.input_defaults('small')\n"
        "m.load_provider('timm'), m.load_provider('torchvision')\n"
        "print([name for name in ('torch', 'timm', 'torchvision', 'difflib') if name in sys.modules])"
    )
    done = python("-c", program)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.fixture
def without_packages(tmp_path: Path) -> dict[str, str]:
    """An environment in which torch is missing and timm and torchvision are broken."""
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    (tmp_path / "timm.py").write_text("raise ImportError('needs torch 9\\nand more')")
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def test_providers_that_cannot_be_used_are_listed_with_the_reason(python, without_packages):
    program = (
        "import json, linne.models.listing as m\n"
        "print(json.dumps({row.name: row.unavailable for row in m.list_models()}))"
    )
    done = python("-c", program, env=without_packages)
    assert json.loads(done.stdout) == {
        "*": 'torch is not installed; install it with `pip install "linne[train]"`',
        "timm/*": "timm is installed but cannot be imported: needs torch 9",
        "torchvision/*": "torchvision is installed but cannot be imported: operator torchvision::nms does not exist",
    }


def test_a_name_that_could_not_be_looked_up_everywhere_is_refused_with_the_reason(python, without_packages):
    program = (
        "import linne.models as m\n"
        "from linne.errors import RecipeError\n"
        "for name in ('timm/resnet18', 'resnet18'):\n"
        "    try: m.resolve(name)\n"
        "    except RecipeError as error: print(error)"
    )
    done = python("-c", program, env=without_packages)
    assert done.stdout.splitlines() == [
        "`timm/resnet18` cannot be used: timm is installed but cannot be imported: needs torch 9",
        "no model `resnet18`; timm could not be searched: timm is installed but cannot be imported: needs torch 9; "
        "torchvision could not be searched: torchvision is installed but cannot be imported: operator "
        "torchvision::nms does not exist",
    ]


# Listing


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("small", "small"),
        ("resnet18", "timm/resnet18"),
        ("resnet1?", "torchvision/resnet18"),
        ("torchvision/VIT_*", "torchvision/vit_b_16"),
        ("*", "mlp"),
    ],
)
def test_a_pattern_is_part_of_a_name_or_a_glob(pattern, expected):
    assert expected in [row.name for row in list_models(pattern)]


def test_a_glob_matches_whole_names():
    assert [row.name for row in list_models("resnet1?")] == ["timm/resnet18", "torchvision/resnet18"]
    assert [row.name for row in list_models("torchvision/maxvit*")] == ["torchvision/maxvit_t"]
    assert list_models("qqqq") == []


def test_the_listing_is_sorted_resolvable_and_knows_the_designed_size():
    rows = list_models()
    names = [row.name for row in rows]
    assert names == sorted(names)
    assert len(names) == len(set(names)) > 1000
    by_name = {row.name: row for row in rows}
    assert (by_name["small"].provider, by_name["small"].height, by_name["small"].width) == ("linne", None, None)
    assert (by_name["torchvision/inception_v3"].height, by_name["torchvision/inception_v3"].width) == (299, 299)
    assert by_name["timm/vit_base_patch16_384"].height == 384
    assert all(row.unavailable is None for row in rows)


# Inputs a network can take


@pytest.mark.parametrize(
    ("name", "height", "width", "side"),
    [
        ("torchvision/alexnet", 32, 32, 64),
        ("torchvision/inception_v3", 32, 64, 75),
        ("torchvision/vit_b_16", 64, 96, 96),
        ("torchvision/vit_b_16", 33, 33, 48),
        ("torchvision/maxvit_t", 32, 32, 224),
        ("torchvision/maxvit_t", 600, 600, 448),
        ("torchvision/maxvit_t", 224, 448, 448),
        ("timm/inception_v3", 32, 32, 75),
    ],
)
def test_a_size_that_does_not_fit_is_refused_with_one_that_does(name, height, width, side):
    assert refusal(name, height, width) == (
        f"`{name}` cannot take {height} x {width} pixels",
        f"use `--set data.height={side} --set data.width={side}`",
    )
    describe(name, side, side)


def test_networks_sized_by_their_input_say_so_in_their_options():
    assert describe("timm/test_vit", 64, 96).options == {"img_size": [64, 96]}
    assert describe("timm/test_resnet", 64, 96).options == {}
    assert describe("torchvision/vit_b_32", 64, 64).options == {"image_size": 64}
    assert describe("torchvision/maxvit_t", 224, 224).options == {"input_size": [224, 224]}


def test_a_network_that_needs_numbers_while_it_is_built_is_checked_too():
    # torchvision's regnet reads tensors in its constructor, which the meta device refuses.
    assert describe("torchvision/regnet_y_400mf", 32, 48).full_name == "torchvision/regnet_y_400mf"


def test_a_network_that_is_no_classifier_is_refused():
    message, _ = refusal("timm/mobilenetv5_300m_enc", 64, 64)
    assert message == (
        "`timm/mobilenetv5_300m_enc` is no classifier: two images give (2, 2048, 16, 16), expected logits (2, 5)"
    )


@pytest.mark.parametrize("name", ["torchvision/resnet18", "torchvision/vit_b_32", "torchvision/swin_t"])
def test_dropout_is_refused_where_it_would_not_be_before_the_classifier(name):
    assert refusal(name, 64, 64, dropout=0.1) == (
        f"`{name}` takes no dropout",
        "use `--set model.dropout=none`",
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mlp", {"dropout": 0.25}),
        ("small", {"dropout": 0.25}),
        ("timm/test_vit", {"img_size": [32, 32], "drop_rate": 0.25}),
        ("torchvision/squeezenet1_1", {"dropout": 0.25}),
        ("torchvision/mobilenet_v3_small", {"dropout": 0.25}),
        ("torchvision/mnasnet0_5", {"dropout": 0.25}),
    ],
)
def test_dropout_reaches_the_network(name, options):
    ref = describe(name, dropout=0.25)
    assert ref.options == options
    modules = models.build(ref).modules()
    assert 0.25 in [module.p for module in modules if isinstance(module, torch.nn.Dropout)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("timm/resnet18", {"drop_path_rate": 0.25}),
        ("timm/test_vit", {"img_size": [32, 32], "drop_path_rate": 0.25}),
        ("torchvision/convnext_tiny", {"stochastic_depth_prob": 0.25}),
        ("torchvision/efficientnet_b0", {"stochastic_depth_prob": 0.25}),
    ],
)
def test_drop_path_reaches_the_last_block_and_grows_from_the_first(name, options):
    ref = describe(name, drop_path=0.25)
    assert ref.options == options
    kinds = ("DropPath", "StochasticDepth")
    paths = [module for module in models.build(ref).modules() if type(module).__name__ in kinds]
    rates = [getattr(module, "drop_prob", getattr(module, "p", None)) for module in paths]
    assert rates == sorted(rates)
    assert rates[0] < 0.1
    assert 0.2 < rates[-1] <= 0.25


def test_blur_pooling_blurs_before_a_stride_and_other_libraries_refuse_what_they_cannot_build():
    from timm.layers import BlurPool2d

    ref = describe("timm/resnet18", 64, 64, blur_pool=True)
    assert ref.options == {"aa_layer": "blurpool"}
    assert any(isinstance(module, BlurPool2d) for module in models.build(ref).modules())
    spec = {"channels": 3, "height": 64, "width": 64, "mean": [0.5] * 3, "std": [0.25] * 3}
    spec |= {"interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "center"}
    config = models.config(ref, tuple("abcde"), spec)
    assert (config["architecture"], config["model_type"]) == ("timm/resnet18", "linne")


@pytest.mark.parametrize(
    ("name", "wish"),
    [
        ("small", "drop_path"),
        ("mlp", "blur_pool"),
        ("timm/vgg11", "drop_path"),
        ("timm/test_vit", "blur_pool"),
        ("torchvision/resnet18", "drop_path"),
        ("torchvision/resnet18", "blur_pool"),
        ("torchvision/swin_t", "drop_path"),
    ],
)
def test_a_network_without_such_a_variant_is_refused_by_the_field_that_asks(name, wish):
    value, off = (True, "false") if wish == "blur_pool" else (0.1, "none")
    message, hint = refusal(name, 64, 64, **{wish: value})
    assert message == f"`{name}` takes no {wish.replace('_', ' ')}"
    assert hint == f"use `--set model.{wish}={off}`"


def test_a_bundle_cannot_name_another_layer_to_blur_with():
    ref = describe("timm/resnet18", 64, 64, blur_pool=True)
    with pytest.raises(RecipeError, match="is described with an aa_layer that linne does not know"):
        models.build(dataclasses.replace(ref, options={"aa_layer": "avg"}))


# Networks


def test_the_mlp_is_the_tutorials_network():
    ref = describe("mlp", 28, 30, channels=1)
    assert [str(layer) for layer in models.build(ref)] == [
        "Flatten(start_dim=1, end_dim=-1)",
        "Linear(in_features=840, out_features=128, bias=True)",
        "ReLU()",
        "Linear(in_features=128, out_features=5, bias=True)",
    ]


@pytest.mark.parametrize("name", ["torchvision/squeezenet1_1", "torchvision/shufflenet_v2_x0_5"])
def test_a_grey_torchvision_network_answers_as_the_rgb_one_on_three_equal_channels(name):
    answers = []
    grey_images_NCHW = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    for channels in (1, 3):
        torch.manual_seed(4)
        network = models.build(describe(name, channels=channels)).eval()
        with torch.no_grad():
            answers.append(network(grey_images_NCHW.expand(-1, channels, -1, -1)))
    torch.testing.assert_close(*answers, rtol=1e-4, atol=1e-5)  # other sums of the same products


@pytest.mark.parametrize("name", ["torchvision/googlenet", "torchvision/inception_v3"])
def test_networks_with_auxiliary_heads_are_built_without_and_without_warning(name):
    network = models.build(describe(name, 75, 75)).train()
    with torch.no_grad():
        assert network(torch.zeros(2, 3, 75, 75)).shape == (2, 5)


def test_config_of_a_sized_grey_timm_network_tells_other_libraries_how_to_build_it():
    ref = describe("timm/test_vit", 64, 32, channels=1, dropout=0.1)
    spec = {
        "channels": 1,
        "height": 64,
        "width": 32,
        "mean": [0.5],
        "std": [0.25],
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "center",
    }
    assert models.config(ref, ("b", "a", "d", "c", "e"), spec) == {
        "architecture": "test_vit",
        "num_classes": 5,
        "label_names": ["b", "a", "d", "c", "e"],
        "model_args": {"img_size": [64, 32], "in_chans": 1},
        "pretrained_cfg": {
            "input_size": [1, 64, 32],
            "mean": [0.5],
            "std": [0.25],
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "num_classes": 5,
            "fixed_input_size": True,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
