"""The optimiser a recipe names, with the device's fastest implementation."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from linne.device import Device
from linne.recipe import OptimConfig


def make_optimizer(model: nn.Module, config: OptimConfig, device: Device) -> torch.optim.Optimizer:
    """Return the optimiser over `model`'s weights; biases and norms (one dimension) do not decay."""
    weights = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in weights if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.weight_decay == 0:
        groups = [{"params": weights, "weight_decay": 0.0}]  # one group, one kernel
    groups = [group for group in groups if group["params"]]
    speed: dict[str, Any] = {"fused": True} if device.fused_optimizer else {"foreach": True}
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0, **speed)
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, config.beta2), **speed)
