"""What every provider of networks promises, tried on each one in `linne.models.PROVIDERS`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs `linne[train]`")

from linne import models  # noqa: E402
from linne.errors import RecipeError  # noqa: E402
from linne.models import PROVIDERS, ModelRef, Variant, full_name  # noqa: E402
from linne.models.provider import BY_PLACE  # noqa: E402
from linne.preprocess import InputSpec  # noqa: E402

LABELS = ("walrus", "bee", "Ähre")

FIXTURES = Path(__file__).parent.parent / "fixtures/networks"

TINY = {
    "linne": ("lenet", "mlp", "small"),
    "timm": ("test_resnet", "test_vit"),
    "torchvision": ("shufflenet_v2_x0_5", "squeezenet1_1"),
    "hf": tuple(str(FIXTURES / name) for name in ("tiny-resnet", "tiny-vit")),
    "python": tuple(f"{FIXTURES / 'tiny.py'}:{name}" for name in ("Fixed", "any_size")),
}
"""Networks that build in milliseconds; a new provider adds its own."""

UNAVAILABLE = {provider: models.load_provider(provider).why_unavailable() for provider in PROVIDERS}
NETWORKS = [
    pytest.param(
        provider, name, id=f"{provider}-{Path(name).name}", marks=pytest.mark.skipif(bool(reason), reason=reason or "")
    )
    for provider, names in TINY.items()
    for reason in [UNAVAILABLE[provider]]
    for name in names
]
INPUTS = {"rgb": (3, 32, 32), "grey": (1, 48, 48), "wide": (3, 32, 48), "tall": (1, 64, 32)}


@pytest.fixture(params=[provider for provider in PROVIDERS if provider not in BY_PLACE])
def provider(request: pytest.FixtureRequest) -> Any:
    """Each provider that has a list of names, skipped with its own reason where it cannot be used."""
    problem = UNAVAILABLE[request.param]
    if problem is not None:
        pytest.skip(problem)
    return models.load_provider(request.param)


def describe(provider: str, name: str, input_name: str = "rgb", **changes: Any) -> ModelRef:
    channels, height, width = INPUTS[input_name]
    arguments = {
        "num_classes": len(LABELS),
        "channels": channels,
        "height": height,
        "width": width,
        "variant": Variant(),
    }
    return models.load_provider(provider, trust_code=True).describe(name, **(arguments | changes))


def test_every_provider_is_tried_here():
    assert set(TINY) == set(PROVIDERS)


def test_names_are_sorted_unique_and_hold_no_slash(provider):
    names = provider.names()
    assert names
    assert names == sorted(set(names))
    assert not [name for name in names if "/" in name]


@pytest.mark.parametrize(("provider_name", "name"), NETWORKS)
def test_a_name_is_understood_as_it_is_typed_and_a_bundle_says_what_it_holds(provider_name, name):
    assert models.resolve(full_name(provider_name, name)) == (provider_name, name)
    assert describe(provider_name, name).full_name.startswith(full_name(provider_name, ""))


@pytest.mark.parametrize("input_name", INPUTS)
@pytest.mark.parametrize(("provider_name", "name"), NETWORKS)
def test_a_described_network_learns_from_images_of_its_input(provider_name, name, input_name):
    described = describe(provider_name, name, input_name)
    ref = ModelRef(**json.loads(json.dumps(asdict(described))))
    assert ref == described, "a bundle keeps it as JSON"

    torch.manual_seed(0)
    network = models.build(ref, trust_code=True)
    assert network.training
    images_NCHW = torch.randn(4, *INPUTS[input_name])
    logits_NK = network(images_NCHW)
    assert logits_NK.shape == (4, len(LABELS))
    assert logits_NK.dtype == torch.float32
    assert logits_NK.isfinite().all()

    torch.nn.functional.cross_entropy(logits_NK, torch.tensor([0, 1, 2, 0])).backward()
    gradients = {key: parameter.grad for key, parameter in network.named_parameters()}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    assert next(iter(gradients.values())).abs().max() > 0, "the gradient reaches the first layer"


@pytest.mark.parametrize(("provider_name", "name"), NETWORKS)
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(provider_name, name):
    ref = describe(provider_name, name)
    first, again, other = (seeded(ref, seed) for seed in (7, 7, 8))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def seeded(ref: ModelRef, seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    return models.build(ref, trust_code=True).state_dict()


@pytest.mark.parametrize(("provider_name", "name"), NETWORKS)
def test_describing_a_network_draws_no_random_number(provider_name, name):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    describe(provider_name, name)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("provider_name", "name"), NETWORKS)
@pytest.mark.parametrize("input_name", ["rgb", "grey"])
def test_config_has_labels_in_order_and_the_input_in_timms_layout(provider_name, name, input_name):
    ref = describe(provider_name, name, input_name)
    mean, std = (0.1, 0.2, 0.3)[: ref.channels], (0.4, 0.5, 0.6)[: ref.channels]
    spec = InputSpec(
        channels=ref.channels,
        height=ref.height,
        width=ref.width,
        mean=mean,
        std=std,
        interpolation="bilinear",
        crop_pct=0.9,
        crop_mode="squash",
    )
    config = models.config(ref, LABELS, spec.to_dict())
    assert json.loads(json.dumps(config, allow_nan=False)) == config, "lists, not tuples: it is compared with a file"
    assert config["architecture"] == (name if provider_name == "timm" else f"{provider_name}/{ref.name}")
    assert config["label_names"] == ["walrus", "bee", "Ähre"]
    assert config["num_classes"] == config["pretrained_cfg"]["num_classes"] == 3
    expected = {
        "input_size": [ref.channels, ref.height, ref.width],
        "mean": list(mean),
        "std": list(std),
        "interpolation": "bilinear",
        "crop_pct": 0.9,
        "crop_mode": "squash",
    }
    assert {key: config["pretrained_cfg"][key] for key in expected} == expected


@pytest.mark.parametrize(("provider_name", "name"), NETWORKS)
def test_input_defaults_are_an_input_the_network_takes(provider_name, name):
    defaults = models.load_provider(provider_name).input_defaults(name)
    if defaults is None:
        return  # it adapts to any size, which the tests above try
    spec = InputSpec(
        channels=3,
        height=defaults.height,
        width=defaults.width,
        mean=defaults.mean,
        std=defaults.std,
        interpolation=defaults.interpolation,
        crop_pct=defaults.crop_pct,
    )
    describe(provider_name, name, height=spec.height, width=spec.width)


@pytest.mark.parametrize(("provider_name", "name"), NETWORKS)
def test_pretrained_weights_are_told_apart_by_tags_and_say_what_they_are(provider_name, name):
    found = models.load_provider(provider_name).pretrained(name)
    assert len({weights.tag for weights in found}) == len(found)
    for weights in found:
        assert (weights.provider, weights.name) == (provider_name, name)
        tag = None if provider_name in BY_PLACE else weights.tag
        assert models.split_tag(weights.full_name) == (full_name(provider_name, name), tag)
        labels = weights.labels()
        assert labels is None or len(set(labels)) == weights.num_classes
    if found:
        assert found[0] == models.pretrained(full_name(provider_name, name))


def test_an_unknown_name_is_refused_wherever_it_is_given(provider):
    known = provider.names()[0]
    ref = ModelRef(provider="timm", name="no_such", num_classes=2, channels=3, height=32, width=32, options={})
    uses = (
        lambda: provider.input_defaults("no_such"),
        lambda: provider.pretrained("no_such"),
        lambda: provider.describe("no_such", num_classes=2, channels=3, height=32, width=32, variant=Variant()),
        lambda: provider.build(ref),
    )
    for use in uses:
        with pytest.raises(RecipeError, match=r"^no model `no_such` in (linne|timm|torchvision)$"):
            use()
    with pytest.raises(RecipeError) as failure:
        provider.input_defaults(known + "x")
    assert failure.value.hint == f"did you mean `{known}`?"


@pytest.mark.parametrize(("provider_name", "name"), NETWORKS)
def test_an_option_that_describe_never_writes_is_refused(provider_name, name):
    # A bundle may come from anywhere, and timm's constructor would read this file.
    ref = describe(provider_name, name)
    altered = ModelRef(**(asdict(ref) | {"options": {"checkpoint_path": "/etc/passwd"}}))
    with pytest.raises(RecipeError, match="is described with an option `checkpoint_path` that linne does not know"):
        models.build(altered, trust_code=True)
