"""Low-rank adapters (LoRA, Hu et al. 2021) beside the weights of a pretrained network, and the plain network again."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from linne.errors import RecipeError
from linne.models.layers import auxiliary_of, layers_of
from linne.training.distributed import whole


def add_adapters(model: nn.Module, rank: int, name: str) -> None:
    """Hold all weights of `model` but the classifier's, and give its matrices a product of two narrow ones to learn.

    Adapted are linear layers and convolutions of 1 x 1. The product starts as zero, so answers stay as they are.
    `nn.MultiheadAttention`, which torchvision's transformers have, reads its weights past their layers, and is held.

    Raises:
        RecipeError: there is nothing to adapt.
    """
    from peft import LoraConfig, inject_adapter_in_model

    classifier = set(layers_of(model)[-1])
    adapted = [
        path for path, module in model.named_modules() if _is_matrix(module) and f"{path}.weight" not in classifier
    ]
    if not adapted:
        raise RecipeError(
            f"model.lora_rank finds no linear layer or 1 x 1 convolution to adapt in `{name}`",
            hint="use --set model.lora_rank=none; --set model.freeze=backbone trains the classifier alone",
        )
    # As large a scale as rank, so that their quotient, by which the product is multiplied, is 1. A pattern: paths in a
    # list would also mean those that end with them.
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules="|".join(map(re.escape, adapted)))
    inject_adapter_in_model(config, model)
    for path, parameter in model.named_parameters():
        if path in classifier:
            parameter.requires_grad_(True)


def plain_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return copies on the host of the tensors of the network as it is used: adapters merged, auxiliary heads left out.

    Where each process has parts of them, all processes call it.
    """
    adapted: dict[str, Any] = {
        path: module for path, module in model.named_modules() if hasattr(module, "get_delta_weight")
    }
    left_out, plain = auxiliary_of(model), dict[str, str]()
    for path, module in adapted.items():
        for name in module.state_dict():
            if name.startswith("base_layer."):
                plain[f"{path}.{name}"] = f"{path}.{name.removeprefix('base_layer.')}"
            else:
                left_out.add(f"{path}.{name}")
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name in left_out:
            continue
        merged = whole(tensor.detach())
        if name in plain and name.endswith(".base_layer.weight"):
            merged = merged + adapted[name.removesuffix(".base_layer.weight")].get_delta_weight("default").detach()
        weights[plain.get(name, name)] = merged.to("cpu", copy=True)
    return weights


def _is_matrix(module: nn.Module) -> bool:
    """Return whether `module` multiplies its input by one matrix, and by itself: its subclasses may do otherwise."""
    if type(module) is nn.Conv2d:
        return module.kernel_size == (1, 1) and module.groups == 1
    return type(module) is nn.Linear
