"""Low-rank adapters: what they train, and that nobody needs to know of them afterwards."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

timm = pytest.importorskip("timm", reason="needs `linne[train]`")

from linne.data.loading.loader import Batch  # noqa: E402
from linne.device import Device  # noqa: E402
from linne.errors import RecipeError  # noqa: E402
from linne.planning import plan_anew  # noqa: E402
from linne.recipe import DataConfig, ModelConfig, OptimConfig, Recipe  # noqa: E402
from linne.training.adapters import add_adapters, plain_weights  # noqa: E402
from linne.training.state import TrainState  # noqa: E402
from linne.training.step import train_step  # noqa: E402

CPU = Device.pick("cpu")
with_peft = pytest.mark.skipif(find_spec("peft") is None, reason="needs `pip install 'linne[lora]'`")


def network_of(name):
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=5)


def trained(name, steps=3, **optim):
    """A network with adapters after a few steps, with its state."""
    recipe = Recipe(
        data=DataConfig(source="x"),
        model=ModelConfig(name=f"timm/{name}", weights="default", lora_rank=4),
        optim=OptimConfig(optimizer="adamw", lr=0.01, **optim),
    )
    model = network_of(name)
    add_adapters(model, 4, name)
    state = TrainState.create(model, recipe, CPU)
    generator = torch.Generator().manual_seed(1)
    for number in range(steps):
        images_NCHW = torch.randn(8, 3, 160, 160, generator=generator)
        train_step(state, Batch(images_NCHW, torch.arange(8) % 5, number=number), recipe, CPU, steps)
    return model, state


@with_peft
@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_adapters_change_no_answer_before_they_have_learnt(name):
    model, plain = network_of(name).eval(), network_of(name).eval()
    add_adapters(model, 4, name)
    images_NCHW = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.equal(model(images_NCHW), plain(images_NCHW))
    assert all(torch.equal(tensor, plain.state_dict()[path]) for path, tensor in plain_weights(model).items())


@with_peft
@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
@pytest.mark.parametrize("optim", [{}, {"ema_decay": 0.5}], ids=str)
def test_the_kept_weights_are_an_ordinary_networks_and_answer_as_the_adapted_one(name, optim):
    _, state = trained(name, **optim)
    state.keep(None)
    plain = network_of(name).eval()
    plain.load_state_dict(state.kept.weights)  # strict: each name, and no other
    images_NCHW = torch.randn(4, 3, 160, 160, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        adapted_NK = state.kept_model.eval()(images_NCHW)
        # The product is added to the weight instead of to the answer: sums in another order, through every layer.
        torch.testing.assert_close(plain(images_NCHW), adapted_NK, rtol=1e-3, atol=1e-4)


@with_peft
def test_the_classifier_is_trained_as_a_whole_and_the_rest_by_a_low_rank():
    model, state = trained("test_vit")
    before, after = network_of("test_vit").state_dict(), plain_weights(model)
    assert not torch.equal(before["head.weight"], after["head.weight"])
    change = after["blocks.0.mlp.fc1.weight"] - before["blocks.0.mlp.fc1.weight"]
    # Above the fourth, singular values of the difference of two fp32 matrices are rounding.
    values = torch.linalg.svdvals(change)
    assert values[0] > 1e-4
    assert values[4] < 1e-3 * values[0]
    for held in ("pos_embed", "patch_embed.proj.weight", "blocks.0.norm1.weight", "blocks.0.mlp.fc1.bias"):
        assert torch.equal(before[held], after[held])
    assert sum(p.numel() for p in state.parameters) < 0.2 * sum(p.numel() for p in model.parameters())


@with_peft
def test_a_network_without_matrices_is_refused():
    with pytest.raises(RecipeError, match="finds no linear layer or 1 x 1 convolution to adapt in `row`"):
        add_adapters(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4, 2)), 4, "row")


@pytest.mark.skipif(find_spec("peft") is not None, reason="`peft` is installed here")
def test_without_the_package_the_error_says_what_to_install(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"")
    flags = {"model.name": "timm/test_vit", "model.weights": str(tmp_path / "weights.pth"), "device.name": "cpu"}
    with pytest.raises(RecipeError) as caught:
        plan_anew("synthetic:classes=3,size=16,count=30", None, flags, {"model.lora_rank": 4}, say=lambda line: None)
    assert caught.value.message == "model.lora_rank needs the package `peft`, which is not installed"
    assert caught.value.hint == "pip install 'linne[lora]'"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lora_rank": 4}, "model.lora_rank adapts pretrained weights, and model.weights is none"),
        ({"lora_rank": 0, "weights": "default"}, "model.lora_rank is 0, expected 1 to 1024, or none"),
        (
            {"lora_rank": 4, "weights": "default", "freeze": "backbone"},
            "model.lora_rank holds all weights but the classifier's already, and model.freeze some as well",
        ),
    ],
)
def test_what_does_not_go_with_adapters_is_refused(fields, message):
    with pytest.raises(RecipeError) as caught:
        ModelConfig(**fields)
    assert caught.value.message == message
