"""Layers that are left as they are, and when they are not any more."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from linne.data.loading.loader import Batch
from linne.device import Device
from linne.errors import RecipeError
from linne.models.layers import layers_of
from linne.models.small import build_small
from linne.recipe import AugmentConfig, DataConfig, ModelConfig, OptimConfig, Recipe
from linne.training.freezing import Freezing
from linne.training.state import TrainState
from linne.training.step import train_step

CPU = Device.pick("cpu")
OPTIM = OptimConfig(lr=0.1, schedule="constant", weight_decay=0.1)


def make_state(optim: OptimConfig = OPTIM, **model) -> tuple[TrainState, Recipe]:
    torch.manual_seed(0)
    recipe = Recipe(data=DataConfig(source="x"), model=ModelConfig(**model), optim=optim)
    return TrainState.create(build_small(3, 3, 16, 16, dropout=0.5), recipe, CPU), recipe


def moved_by_an_epoch(state: TrainState, recipe: Recipe) -> list[bool]:
    """Return for each layer whether anything in it, running statistics included, changes in an epoch of two steps."""
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    state.start_epoch()
    for _ in range(2):
        train_step(state, Batch(torch.randn(4, 3, 16, 16), torch.arange(4) % 3), recipe, CPU, 2)
    state.epoch += 1
    changed = {name for name, tensor in state.model.state_dict().items() if not torch.equal(tensor, before[name])}
    prefixes = [{name.rpartition(".")[0] for name in names} for names in layers_of(state.model)]
    return [any(name.rpartition(".")[0] in layer for name in changed) for layer in prefixes]


def test_the_backbone_stays_to_the_bit_and_the_classifier_learns():
    state, recipe = make_state(freeze="backbone")
    *backbone, classifier = moved_by_an_epoch(state, recipe)
    assert not any(backbone), "neither weights, decay included, nor running statistics"
    assert classifier
    assert sum(len(group["params"]) for group in state.stepper.optimizer.param_groups) == 2


def test_the_first_layers_stay_and_the_others_learn():
    state, recipe = make_state(freeze=2)
    moved = moved_by_an_epoch(state, recipe)
    assert moved == [False, False] + [True] * (len(moved) - 2)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_layers_thaw_from_the_classifier_down_until_all_are_trained(optimizer):
    optim = OptimConfig(optimizer=optimizer, lr=0.01, schedule="constant")
    state, recipe = make_state(optim, freeze="backbone", unfreeze_epochs=3)
    num_layers = len(layers_of(state.model))
    for epoch in range(5):
        moved = moved_by_an_epoch(state, recipe)
        frozen = max(0, num_layers - 1 - (num_layers - 1) * epoch // 3)
        assert moved == [False] * frozen + [True] * (num_layers - frozen), f"epoch {epoch}"


def test_frozen_layers_are_in_evaluation_mode_and_stay_there_after_an_evaluation():
    state, _ = make_state(freeze="backbone")
    state.start_epoch()
    for _ in range(2):
        assert not any(module.training for module in state.model.stages.modules())
        assert state.model.head.training
        assert state.model.dropout.training, "dropout before the classifier is the classifier's"
        state.model.eval()
        state.train_mode()


def test_kept_statistics_stay_to_the_bit_while_everything_else_learns():
    state, recipe = make_state(keep_statistics=True)
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    assert all(moved_by_an_epoch(state, recipe))
    still = {name for name, tensor in state.model.state_dict().items() if torch.equal(tensor, before[name])}
    assert still == {name for name in before if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}


def test_kept_statistics_and_an_average_that_learns_them_anew_are_refused():
    with pytest.raises(RecipeError, match="holds the batch norms' statistics"):
        make_state(OptimConfig(average_epochs=2, epochs=4), keep_statistics=True)


def test_weights_that_were_never_trained_are_not_thawed():
    model = build_small(3, 3, 16, 16, None)
    model.stem[0].weight.requires_grad_(False)
    freezing = Freezing(model, ModelConfig(freeze=2, unfreeze_epochs=1))
    freezing.start_epoch(1)
    assert not model.stem[0].weight.requires_grad
    assert model.stem[1].weight.requires_grad


def test_freezing_every_layer_is_refused_with_their_number():
    with pytest.raises(RecipeError) as caught:
        Freezing(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), ModelConfig(name="mlp", freeze=2))
    assert caught.value.message == "model.freeze is 2, and `mlp` has 2 layers, of which one must learn"
    assert caught.value.hint == "use --set model.freeze=backbone to train the classifier alone"


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_in_the_last_epochs_only_classifier_and_norms_are_tuned(optimizer):
    torch.manual_seed(0)
    optim = OptimConfig(optimizer=optimizer, lr=0.01, schedule="constant", weight_decay=0.1, epochs=3)
    augment = AugmentConfig(size_start=0.5, size_tune_epochs=1)
    recipe = Recipe(data=DataConfig(source="x", height=16, width=16), optim=optim, augment=augment)
    state = TrainState.create(build_small(3, 3, 16, 16, dropout=0.5), recipe, CPU)
    norms = {name for name, module in state.model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    for epoch in range(3):
        before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
        moved_by_an_epoch(state, recipe)
        moved = {name for name, tensor in state.model.state_dict().items() if not torch.equal(tensor, before[name])}
        tuned = {name for name in before if name.rpartition(".")[0] in {*norms, "head"}}
        assert moved == (before.keys() if epoch < 2 else tuned), f"epoch {epoch}"
        assert all(module.training for module in state.model.modules())
