"""Weights into a network: what is kept, adapted, left random and refused, and that the answers stay what they were.

With LINNE_TEST_DATA naming a folder that holds torchvision's own `weights/mobilenet_v2-b0353104.pth`, that file too.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs `linne[train]`")
pytest.importorskip("timm", reason="needs `linne[train]`")

from linne import models  # noqa: E402
from linne.errors import RecipeError  # noqa: E402
from linne.preprocess import InputSpec  # noqa: E402
from linne.weights import Fit, Weights, fit_weights, input_for_channels, read_weights  # noqa: E402
from linne.weights.adapting import adapt_position  # noqa: E402
from linne.weights.naming import name_for  # noqa: E402

PUBLISHED = Path(os.environ.get("LINNE_TEST_DATA", ""), "weights", "mobilenet_v2-b0353104.pth")


def network(name: str, num_classes: int = 5, channels: int = 3, size: int = 32) -> torch.nn.Module:
    ref = models.describe(name, num_classes=num_classes, channels=channels, height=size, width=size)
    return models.build(ref).eval()


def weights_of(tensors: dict[str, Any] | torch.nn.Module, model: str | None = None) -> Weights:
    if isinstance(tensors, torch.nn.Module):
        tensors = {name: tensor.clone() for name, tensor in tensors.state_dict().items()}
    return Weights(tensors, origin="a.pth", sha256="", labels=None, input=None, model=model)


def refusal(target: torch.nn.Module, weights: Weights, full_name: str) -> tuple[str, str | None]:
    """Return the message and hint, having seen that the network was left alone."""
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(RecipeError) as failure:
        fit_weights(target, weights, full_name=full_name)
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items())
    return failure.value.message, failure.value.hint


@pytest.fixture(scope="module")
def small() -> torch.nn.Module:
    return network("small")


@pytest.fixture(scope="module")
def vit() -> torch.nn.Module:
    return network("timm/vit_tiny_patch16_224", size=224)


# Kept, random, adapted


def test_a_networks_own_weights_give_its_own_answers(small):
    other = network("small")
    assert fit_weights(other, weights_of(small), full_name="small") == Fit(len(small.state_dict()), (), (), ())
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(other(images), small(images))


def test_where_the_tensors_are_from_is_said_when_it_may_matter(small):
    tensors = dict(small.state_dict())
    weights = Weights(tensors, "a.pth", "", labels=None, input=None, model="timm/other", part="model_ema")
    assert fit_weights(network("small"), weights, full_name="small").lines() == [
        f"{len(tensors)} tensors taken as they are",
        "from the checkpoint's `model_ema`",
        "made for `timm/other`, whose tensors are the same; what it computes may not be",
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_become_the_networks(small, dtype):
    tensors = {n: t.to(dtype) if t.is_floating_point() else t for n, t in small.state_dict().items()}
    other = network("small")
    fit_weights(other, weights_of(tensors), full_name="small")
    assert all(torch.equal(t, tensors[n].to(t.dtype)) for n, t in other.state_dict().items())
    assert all(parameter.dtype == torch.float32 for parameter in other.parameters())


def test_only_the_classifier_stays_random_when_the_classes_are_others():
    original = network("torchvision/mobilenet_v3_small", num_classes=7)
    target = network("torchvision/mobilenet_v3_small", num_classes=3)
    fit = fit_weights(target, weights_of(original), full_name="torchvision/mobilenet_v3_small")
    assert fit.fresh == ("classifier.3.weight", "classifier.3.bias")
    assert fit.kept == len(original.state_dict()) - 2
    assert fit.lines() == [
        f"{fit.kept} tensors taken as they are",
        "random: `classifier.3.weight`, `classifier.3.bias`",
    ]


def test_a_network_for_grey_answers_a_grey_photograph_as_the_one_for_colour_does():
    colour = network("timm/resnet10t", channels=3)
    grey = network("timm/resnet10t", channels=1)
    fit = fit_weights(grey, weights_of(colour), full_name="timm/resnet10t")
    assert fit.adapted == ("`conv1.0.weight`: 3 channels summed to 1",)
    photograph = torch.randn(2, 1, 64, 64)
    # Sums of the same products in another order: a few units in the last place, through some twenty layers.
    torch.testing.assert_close(grey(photograph), colour(photograph.repeat(1, 3, 1, 1)), rtol=1e-4, atol=1e-5)


def test_a_network_for_colour_sees_the_average_of_the_colours_when_its_weights_saw_grey():
    grey = network("timm/resnet10t", channels=1)
    colour = network("timm/resnet10t", channels=3)
    fit = fit_weights(colour, weights_of(grey), full_name="timm/resnet10t")
    assert fit.adapted == ("`conv1.0.weight`: 1 channel spread over 3",)
    photograph = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(colour(photograph), grey(photograph.mean(dim=1, keepdim=True)), rtol=1e-4, atol=1e-5)


def test_the_input_for_grey_gives_the_average_of_what_the_colours_saw():
    spec = InputSpec(channels=3, height=8, width=8, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    grey = input_for_channels(spec, 1)
    for pixel in (0.0, 0.3, 1.0):
        seen = [(pixel - mean) / std for mean, std in zip(spec.mean, spec.std, strict=True)]
        assert (pixel - grey.mean[0]) / grey.std[0] == pytest.approx(sum(seen) / 3)
        assert max(abs(value - sum(seen) / 3) for value in seen) < 0.21  # what the docstring says
    assert input_for_channels(grey, 3).mean == grey.mean * 3
    assert input_for_channels(spec, 3) is spec


def test_position_embeddings_are_interpolated_to_another_image_size(vit):
    target = network("timm/vit_tiny_patch16_224", num_classes=3, size=96)
    fit = fit_weights(target, weights_of(vit), full_name="timm/vit_tiny_patch16_224")
    assert fit.adapted == ("`pos_embed`: 14 x 14 to 6 x 6 patches",)
    assert fit.fresh == ("head.weight", "head.bias")
    # What belongs to no place is not touched.
    assert torch.equal(target.pos_embed[:, 0], vit.pos_embed[:, 0])


def test_embeddings_that_do_not_depend_on_the_place_stay_what_they_are(vit):
    tensors = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
    tensors["pos_embed"][:, 1:] = tensors["pos_embed"][:, 1:2]
    target = network("timm/vit_tiny_patch16_224", size=96)
    fit_weights(target, weights_of(tensors), full_name="timm/vit_tiny_patch16_224")
    # The filter's weights add up to one, to the precision of their sum.
    everywhere = tensors["pos_embed"][:, 1:2].expand(-1, 36, -1)
    torch.testing.assert_close(target.pos_embed[:, 1:], everywhere, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["encoder.pos_embedding", "vit.embeddings.position_embeddings", "pos_embed"])
def test_a_slope_over_the_grid_stays_that_slope(name):
    def embeddings(side: int) -> torch.Tensor:
        places = (torch.arange(side) + 0.5) / side  # of the patches' centres, in the image
        slope = (places[:, None] + 2 * places[None, :]).reshape(1, -1, 1)
        return torch.cat([torch.full((1, 1, 1), 9.0), slope], dim=1)

    change = adapt_position(name, embeddings(8), embeddings(16))
    assert change is not None
    assert change.how == "8 x 8 to 16 x 16 patches"
    assert change.tensor[0, 0] == 9.0
    inside = (slice(4, -4), slice(4, -4))  # bicubic looks two patches around, and at the border there are none
    found, expected = (t[0, 1:].reshape(16, 16)[inside] for t in (change.tensor, embeddings(16)))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("before", "after"), [((1, 4, 4, 3), (1, 6, 8, 3)), ((1, 3, 4, 4), (1, 3, 6, 8)), ((1, 4, 4, 3), (1, 4, 6, 3))]
)
def test_embeddings_kept_as_a_map_are_resized_where_the_axes_can_be_told(before, after):
    change = adapt_position("pos_embed2", torch.ones(before), torch.ones(after))
    if before[1] == after[1] and before[3] == after[3]:
        assert change is None  # 4 x 4 places of 3, or 4 x 3 places of 4
        return
    assert change is not None
    assert change.how == "4 x 4 to 6 x 8 patches"
    torch.testing.assert_close(change.tensor, torch.ones(after), rtol=1e-5, atol=1e-6)


def test_torchvisions_transformers_take_another_image_size():
    from torchvision.models import VisionTransformer

    def build(size: int) -> torch.nn.Module:
        return VisionTransformer(size, 8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=4)

    fit = fit_weights(build(32), weights_of(build(64)), full_name="torchvision/vit_b_16")
    assert fit.adapted == ("`encoder.pos_embedding`: 8 x 8 to 4 x 4 patches",)
    assert fit.fresh == ()


def test_tables_of_windows_are_the_networks_own():
    from timm.models.swin_transformer import SwinTransformer

    def build(size: int) -> torch.nn.Module:
        return SwinTransformer(size, embed_dim=8, depths=(2, 2), num_heads=(2, 2), window_size=size // 8)

    original, target = build(64), build(32)
    own = {n: t.clone() for n, t in target.state_dict().items() if n.endswith("relative_position_index")}
    fit = fit_weights(target, weights_of(original), full_name="timm/swin_tiny_patch4_window7_224")
    assert "`layers.0.blocks.0.attn.relative_position_bias_table`: 15 x 15 to 7 x 7 distances" in fit.adapted
    assert all(torch.equal(target.state_dict()[name], index) for name, index in own.items())
    assert len(fit.lines()) <= 6


# Names


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.net."])
def test_prefixes_of_wrappers_are_taken_off(small, prefix):
    tensors = {f"{prefix}{name}": tensor for name, tensor in small.state_dict().items()}
    fit = fit_weights(network("small"), weights_of(tensors), full_name="small")
    assert fit.kept == len(tensors)
    assert fit.notes == (f"`{prefix}` taken off the names",)


def test_a_prefix_that_the_network_has_itself_stays():
    wrapped = torch.nn.ModuleDict({"model": network("small")})
    assert name_for(wrapped, wrapped.state_dict()).notes == ()


def test_the_body_alone_is_found_inside_a_network():
    wrapped = torch.nn.ModuleDict({"vit": network("small"), "classifier": torch.nn.Linear(4, 4)})
    named = name_for(wrapped, wrapped["vit"].state_dict())
    assert named.notes == ("`vit.` put before the names",)
    assert set(named.tensors) < set(wrapped.state_dict())


def test_old_densenet_names_are_understood():
    from torchvision.models import DenseNet

    original, target = (DenseNet(8, (2, 2), 16, num_classes=5) for _ in range(2))
    old = {
        name.replace(f".{part}{number}.", f".{part}.{number}.") if "denselayer" in name else name: tensor
        for name, tensor in original.state_dict().items()
        for part, number in [next(((p, n) for p in ("norm", "conv") for n in "12" if f".{p}{n}." in name), ("", ""))]
    }
    fit = fit_weights(target, weights_of(old), full_name="torchvision/densenet121")
    assert (fit.kept, fit.fresh) == (len(old), ())
    assert fit.notes == ("old densenet names respelt",)


def test_the_authors_layout_of_a_network_is_understood_through_timm():
    original = network("timm/convnext_atto")
    tensors = original.state_dict()
    authors = {}
    for name, tensor in tensors.items():
        for ours, theirs in (
            ("stem.", "downsample_layers.0."),
            ("mlp.fc1.", "pwconv1."),
            ("mlp.fc2.", "pwconv2."),
            ("conv_dw.", "dwconv."),
            ("head.norm.", "norm."),
            ("head.fc.", "head."),
        ):
            name = name.replace(ours, theirs)
        parts = name.split(".")
        if parts[0] == "stages":
            if parts[2] == "downsample":
                name = ".".join(["downsample_layers", parts[1], *parts[3:]])
            else:
                name = ".".join(["stages", parts[1], *parts[3:]])
        authors[name] = tensor
    target = network("timm/convnext_atto")
    fit = fit_weights(target, weights_of(authors), full_name="timm/convnext_atto")
    assert fit.notes == ("names converted from the authors' layout by timm",)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in target.state_dict().items())


# Dropped and missing


def test_auxiliary_heads_and_counters_are_left_out(small):
    extra = {"AuxLogits.fc.weight": torch.zeros(1000, 1000), "n_averaged": torch.tensor(3)}
    fit = fit_weights(network("small"), weights_of(small.state_dict() | extra), full_name="small")
    assert fit.dropped == (
        "`AuxLogits.fc.weight`: the network has no auxiliary classifier",
        "`n_averaged`: a counter of the average",
    )


def test_the_large_heads_of_self_supervised_training_do_not_make_it_another_network(small):
    tensors = {f"backbone.{name}": t for name, t in small.state_dict().items() if not name.startswith("head.")}
    extra = {"head.mlp.0.weight": torch.zeros(2000, 2000), "projector.0.weight": torch.zeros(2000, 2000)}
    fit = fit_weights(network("small"), weights_of(tensors | extra), full_name="small")
    assert fit.fresh == ("head.weight", "head.bias")
    assert fit.dropped == (
        "`head.mlp.0.weight`: the network has none of this name",
        "`projector.0.weight`: only pretraining uses it",
    )


def test_counters_of_batches_may_be_missing_or_halved(small):
    halved = {name: tensor.half() for name, tensor in small.state_dict().items()}
    assert fit_weights(network("small"), weights_of(halved), full_name="small").fresh == ()
    tensors = {n: t for n, t in small.state_dict().items() if not n.endswith("num_batches_tracked")}
    assert len(tensors) < len(small.state_dict())
    assert fit_weights(network("small"), weights_of(tensors), full_name="small").fresh == ()


# Refused


@pytest.mark.parametrize(
    ("of", "into", "looks_like"),
    [
        ("torchvision/resnet18", "timm/resnet34", "timm/resnet18"),
        ("torchvision/resnet34", "timm/resnet18", "timm/resnet34"),
        ("torchvision/mobilenet_v2", "timm/resnet18", "torchvision/mobilenet_v2"),
    ],
)
def test_weights_of_another_network_are_refused_with_its_name(of, into, looks_like):
    message, hint = refusal(network(into), weights_of(network(of, num_classes=1000)), into)
    assert message.startswith(f"`a.pth` does not hold weights of `{into}`: ")
    assert message.endswith(" of the file's are in it, the classifier apart")
    assert hint == f"they look like weights of `{looks_like}`"


@pytest.mark.long
def test_weights_for_a_size_that_cannot_be_interpolated_are_refused_with_the_size_they_are_for():
    original, target = (network("timm/mixer_s32_224", size=size) for size in (224, 96))
    message, hint = refusal(target, weights_of(original), "timm/mixer_s32_224")
    assert message.startswith("`a.pth`: `blocks.0.mlp_tokens.fc1.weight` is 256 x 49, and")
    assert hint == (
        "they are of `timm/mixer_s32_224` for 224 x 224 pixels: `--set data.height=224 --set data.width=224`"
    )


def test_weights_of_the_same_names_and_another_width_are_refused_with_the_network_that_has_it():
    target = network("torchvision/mnasnet0_5")
    message, hint = refusal(target, weights_of(network("torchvision/mnasnet0_75")), "torchvision/mnasnet0_5")
    assert message.startswith("`a.pth`: `layers.0.weight` is 24 x 3 x 3 x 3, and `torchvision/mnasnet0_5` has it as 16")
    assert hint == "they look like weights of `torchvision/mnasnet0_75`"


def test_what_a_file_says_it_is_comes_before_any_guess(small):
    _, hint = refusal(small, weights_of({"a.weight": torch.zeros(3, 3)}, model="hf:vit"), "small")
    assert hint == "they look like weights of `hf:vit`"


def test_a_shape_that_nothing_explains_is_refused_with_both(vit):
    tensors = vit.state_dict() | {"blocks.0.norm1.weight": torch.zeros(7)}
    message, hint = refusal(vit, weights_of(tensors), "timm/vit_tiny_patch16_224")
    assert message == "`a.pth`: `blocks.0.norm1.weight` is 7, and `timm/vit_tiny_patch16_224` has it as 192"
    assert hint


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused(small, value):
    tensors = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    name = next(iter(tensors))
    tensors[name].view(-1)[3] = value
    message, _ = refusal(network("small"), weights_of(tensors), "small")
    assert message == f"`a.pth`: `{name}` holds values that are not finite"


def test_whole_numbers_are_not_taken_for_weights(small):
    name = next(iter(small.state_dict()))
    tensors = small.state_dict() | {name: small.state_dict()[name].to(torch.int8)}
    message, _ = refusal(network("small"), weights_of(tensors), "small")
    assert message == f"`a.pth`: `{name}` holds int8, expected float32"


# Real ones


@pytest.mark.skipif(
    not PUBLISHED.exists(), reason=f"LINNE_TEST_DATA does not name a folder with weights/{PUBLISHED.name}"
)
@pytest.mark.parametrize(
    ("num_classes", "channels", "fresh", "adapted"),
    [
        (1000, 3, (), ()),
        (10, 3, ("classifier.1.weight", "classifier.1.bias"), ()),
        (10, 1, ("classifier.1.weight", "classifier.1.bias"), ("`features.0.0.weight`: 3 channels summed to 1",)),
    ],
)
def test_published_weights_fit_their_network(num_classes, channels, fresh, adapted):
    target = network("torchvision/mobilenet_v2", num_classes=num_classes, channels=channels, size=64)
    fit = fit_weights(target, read_weights(PUBLISHED), full_name="torchvision/mobilenet_v2")
    assert (fit.fresh, fit.adapted, fit.dropped) == (fresh, adapted, ())
