"""How a network starts where the recipe asks for more than random weights: whitening, identities, held scales."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from linne import models
from linne.data.loading.loader import Batches
from linne.data.source import Source
from linne.device import Device
from linne.errors import RecipeError
from linne.models.layers import norms_of
from linne.recipe import Recipe
from linne.training.adapters import add_adapters
from linne.training.distributed import ALONE, World
from linne.training.losses import class_counts
from linne.training.state import TrainState

NUM_IMAGES = 5000
"""Whose patches are looked at: their covariance has some hundred numbers (as Jordan 2024)."""
LEAST_VARIANCE = 5e-4
"""Added to the variance in each direction, so that those with hardly any are not all noise (as Jordan 2024)."""


def throwaway_state(
    recipe: Recipe, source: Source, device: Device, batches: Batches, *, trust_code: bool = False
) -> TrainState:
    """Return a fresh network before its first epoch, for steps that are measured and not kept."""
    ref = models.describe_recipe(recipe, source.num_classes, trust_code=trust_code)
    model = models.build(models.in_training(ref, recipe), trust_code=trust_code)
    prepare(model, recipe, batches, ALONE)
    state = TrainState.create(model, recipe, device, class_counts(source), trust_code=trust_code)
    state.start_epoch()
    return state


def prepare(model: nn.Module, recipe: Recipe, batches: Batches, world: World) -> None:
    """Change the first weights of `model`, hold some, and add adapters, as the recipe says.

    All processes of `world` call it, and get the same weights.

    Raises:
        RecipeError: the first convolution cannot whiten, or there is no convolution.
    """
    if recipe.model.dirac:
        start_as_identity(model)
    if recipe.model.whiten:
        whiten(model, batches, world)
    if recipe.model.lora_rank is not None:
        add_adapters(model, recipe.model.lora_rank, recipe.model.name)
    if recipe.optim.norm_bias_lr is not None:
        for norm in norms_of(model).values():
            norm.weight.requires_grad_(False)


@torch.no_grad()
def start_as_identity(model: nn.Module) -> None:
    """Let every convolution but the first hand its input on, in as many channels as it has both ways.

    Its other filters stay as they were drawn (Zagoruyko and Komodakis 2017; the part is Jordan's, 2024). Convolutions
    in groups, or without a middle, are left as they are.

    Raises:
        RecipeError: there is none to change.
    """
    found = [
        conv
        for conv in _convolutions(model)[1:]
        if conv.groups == 1 and all(side % 2 for side in conv.kernel_size if isinstance(side, int))
    ]
    if not found:
        raise RecipeError(
            "model.dirac starts convolutions as the identity, and this network has none after its first layer",
            hint="use --set model.dirac=false",
        )
    for conv in found:
        nn.init.dirac_(conv.weight[: conv.in_channels])


@torch.no_grad()
def whiten(model: nn.Module, batches: Batches, world: World) -> None:
    """Make the first convolution whiten patches of the first training images, and hold its filters.

    The filters are the eigenvectors of the patches' covariance over the root of their variance, and their opposites,
    since what follows cuts off one side (Page 2018; Jordan 2024). With fewer filters than that, they are those of the
    most variance; with more, the rest stay as they were drawn. The images are as the network sees them in the first
    epoch.

    Raises:
        RecipeError: there is no such convolution.
    """
    convolutions = _convolutions(model)
    if not convolutions or convolutions[0].groups != 1 or convolutions[0].out_channels < 2:
        raise RecipeError(
            "model.whiten is for a network that begins with a convolution, and this one does not",
            hint="use --model speedrun, or --set model.whiten=false",
        )
    first = convolutions[0]
    filters_FV = _whitening_filters(_covariance(first, batches, world))[: first.out_channels // 2]
    shaped = filters_FV.reshape(-1, *first.weight.shape[1:])
    first.weight[: 2 * len(shaped)] = torch.cat((shaped, -shaped)).to(first.weight)
    first.weight.requires_grad_(False)


def _convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def _covariance(first: nn.Conv2d, batches: Batches, world: World) -> torch.Tensor:
    """Return the mean outer product of the patches that `first` sees, V x V in float64 on the host."""
    num_values = first.weight[0].numel()
    # Sums of patches, and how many, in one tensor: processes add them up.
    sums = torch.zeros(num_values * num_values + 1, dtype=torch.float64)
    num_images = 0
    for batch in batches.epoch(0):
        patches_NVL = functional.unfold(batch.images_NCHW, first.kernel_size, stride=first.stride)
        patches_PV = patches_NVL.transpose(1, 2).reshape(-1, num_values)
        sums[:-1] += (patches_PV.T @ patches_PV).double().cpu().flatten()
        sums[-1] += len(patches_PV)
        num_images += len(batch.labels_N)
        if num_images * world.size >= NUM_IMAGES:
            break
    sums = world.sum(sums)
    return (sums[:-1] / sums[-1]).view(num_values, num_values)


def _whitening_filters(covariance_VV: torch.Tensor) -> torch.Tensor:
    """Return V x V: each row a direction in which patches vary, most first, scaled so that they do by one."""
    variances_V, directions_VV = torch.linalg.eigh(covariance_VV)
    filters_VV: torch.Tensor = (directions_VV / torch.sqrt(variances_V + LEAST_VARIANCE)).T.flip(0)
    return filters_VV
