"""Activations computed again: the same numbers from less memory."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from linne import models
from linne.data.loading.loader import Batch
from linne.device import Device
from linne.errors import RecipeError
from linne.models.mlp import build_mlp
from linne.recipe import DataConfig, DeviceConfig, OptimConfig, Recipe
from linne.training.activation_checkpointing import checkpoint_activations
from linne.training.state import TrainState
from linne.training.step import train_step

# torch 2.4's checkpoint calls a name of torch's that 2.4 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.cpu.amp.autocast:FutureWarning")

CPU = Device.pick("cpu")
NETWORKS = ["small", "timm/test_resnet", "timm/test_vit", "torchvision/resnet18", "torchvision/convnext_tiny"]


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return models.build(models.describe(name, num_classes=5, channels=3, height=32, width=32))


def kept_bytes(model: nn.Module) -> int:
    """Return the bytes that a forward pass in training keeps for the backward pass, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    sizes: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        answer = model.train()(torch.randn(4, 3, 32, 32))
    assert answer.requires_grad
    return sum(sizes.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_less_is_kept_for_the_backward_pass(name):
    model = build(name)
    before = kept_bytes(model)
    checkpoint_activations(model)
    assert kept_bytes(model) < 0.8 * before


@pytest.mark.long
@pytest.mark.parametrize("sam_rho", [None, 0.05])
@pytest.mark.parametrize("name", NETWORKS)
def test_training_goes_the_same_way_to_the_bit_running_statistics_included(name, sam_rho):
    states = []
    for again in (False, True):
        recipe = Recipe(
            data=DataConfig(source="x"),
            optim=OptimConfig(lr=0.01, sam_rho=sam_rho),
            device=DeviceConfig(checkpoint_activations=again),
        )
        state = TrainState.create(build(name), recipe, CPU)
        for seed in range(2):
            generator = torch.Generator().manual_seed(seed)
            batch = Batch(torch.randn(4, 3, 32, 32, generator=generator), torch.arange(4))
            torch.manual_seed(seed)  # what the network drops
            train_step(state, batch, recipe, CPU, 2)
        states.append(state.model.state_dict())
    plain, recomputed = states
    assert plain.keys() == recomputed.keys()
    for key, tensor in plain.items():
        assert torch.equal(tensor, recomputed[key]), key


def test_a_copy_of_the_network_can_be_loaded_with_its_weights_and_answers_alike():
    model = build("small")
    weights = copy.deepcopy(model.state_dict())
    checkpoint_activations(model)
    twin = copy.deepcopy(model).eval()
    twin.load_state_dict(weights)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(twin(images), build("small").eval()(images))


def test_a_network_without_blocks_is_refused():
    with pytest.raises(RecipeError) as caught:
        checkpoint_activations(build_mlp(5, 3, 8, 8, None))
    assert caught.value.message == (
        "device.checkpoint_activations has nothing to work on: this network has no row of blocks"
    )
    assert caught.value.hint.startswith("use --set device.checkpoint_activations=false")
