"""Which weights decay, how fast each layer learns, and what Muon works on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from linne.errors import RecipeError
from linne.models.mlp import build_mlp
from linne.models.small import build_small
from linne.recipe import OptimConfig
from linne.training.parameter_groups import parameter_groups


def make_model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


def test_biases_and_norms_do_not_decay():
    model = make_model()
    decaying, rest = parameter_groups(model, OptimConfig(weight_decay=0.1))
    assert (decaying["weight_decay"], rest["weight_decay"]) == (0.1, 0)
    assert {id(p) for p in decaying["params"]} == {id(model[0].weight), id(model[3].weight)}


def test_without_decay_there_is_one_group_for_one_kernel():
    assert len(parameter_groups(make_model(), OptimConfig())) == 1


@pytest.mark.parametrize("optimizer", ["sgd", "muon", "lamb"])
@pytest.mark.parametrize("layer_decay", [None, 0.8])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_no_parameter_is_updated_twice_or_forgotten(weight_decay, layer_decay, optimizer):
    model = build_small(10, 3, 32, 32, None)
    config = OptimConfig(optimizer=optimizer, weight_decay=weight_decay, layer_decay=layer_decay)
    found = [id(p) for group in parameter_groups(model, config) for p in group["params"]]
    assert sorted(found) == sorted(id(p) for p in model.parameters())


def test_what_is_not_trained_is_in_no_group():
    model = make_model()
    model[0].requires_grad_(False)
    assert sum(len(group["params"]) for group in parameter_groups(model, OptimConfig(weight_decay=0.1))) == 4


def test_each_layer_further_from_the_classifier_learns_slower_by_the_factor():
    torch.manual_seed(0)
    model = build_small(10, 3, 32, 32, None)
    groups = parameter_groups(model, OptimConfig(layer_decay=0.5, weight_decay=0.1))
    scales = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert scales[id(model.head.weight)] == scales[id(model.head.bias)] == 1.0
    assert [scales[id(stage[0].weight if isinstance(stage, nn.Sequential) else stage.body[0].weight)]
            for stage in model.stages] == [0.5**distance for distance in (5, 4, 3, 2, 1)]  # fmt: skip
    assert scales[id(model.stem[0].weight)] == scales[id(model.stem[1].weight)] == 0.5**6


def test_layer_decay_is_timms_on_its_networks():
    timm = pytest.importorskip("timm", reason="needs `linne[train]`")
    from timm.optim import param_groups_layer_decay

    model = timm.create_model("vit_tiny_patch16_224", num_classes=7)
    ours = parameter_groups(model, OptimConfig(layer_decay=0.75, weight_decay=0.05))
    theirs = param_groups_layer_decay(model, 0.05, layer_decay=0.75)
    for mine, expected in zip(*map(_by_parameter, (ours, theirs)), strict=True):
        assert mine == pytest.approx(expected)


def _by_parameter(groups: list[dict]) -> list[tuple[int, float, float]]:
    return sorted((id(p), g["lr_scale"], g["weight_decay"]) for g in groups for p in g["params"])


def test_muon_gets_the_matrices_between_the_first_layer_and_the_classifier():
    model = build_small(10, 3, 32, 32, None)
    groups = parameter_groups(model, OptimConfig(optimizer="muon"))
    (muon,) = (group for group in groups if "use_fallback" not in group)
    expected = {id(p) for name, p in model.named_parameters() if name.startswith("stages.") and p.ndim == 4}
    assert {id(p) for p in muon["params"]} == expected


def test_muon_leaves_tables_and_embeddings_to_adamw():
    timm = pytest.importorskip("timm", reason="needs `linne[train]`")
    model = timm.create_model("swin_tiny_patch4_window7_224", num_classes=7)
    (muon,) = (g for g in parameter_groups(model, OptimConfig(optimizer="muon")) if "use_fallback" not in g)
    names = {id(p): name for name, p in model.named_parameters()}
    kinds = {names[id(p)].rsplit(".", 2)[-2] for p in muon["params"]}
    assert kinds == {"qkv", "proj", "fc1", "fc2", "reduction"}


def test_muon_on_a_network_without_hidden_layers_is_refused():
    with pytest.raises(RecipeError) as caught:
        parameter_groups(build_mlp(10, 1, 8, 8, None), OptimConfig(optimizer="muon"))
    assert caught.value.message == (
        "optim.optimizer=muon updates the layers between the first and the last, and this network has none"
    )
    assert caught.value.hint == "use --set optim.optimizer=adamw"


def test_biases_of_norms_learn_faster_by_the_factor_and_by_their_layer():
    model = make_model()
    groups = parameter_groups(model, OptimConfig(norm_bias_lr=64.0, layer_decay=0.5, weight_decay=0.1))
    scales = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    names = {name: scales[id(p)] for name, p in model.named_parameters()}
    assert names == {"0.weight": 0.5, "0.bias": 0.5, "1.weight": 0.5, "1.bias": 32.0, "3.weight": 1.0, "3.bias": 1.0}


def test_without_norms_there_are_no_biases_of_norms():
    with pytest.raises(RecipeError, match="this network has no norms"):
        parameter_groups(build_mlp(3, 1, 8, 8, None), OptimConfig(norm_bias_lr=64.0))
