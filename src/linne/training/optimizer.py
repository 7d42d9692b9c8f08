"""The optimiser a recipe names, with the device's fastest implementation and little Python around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

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
    speed = device.optimizer_speed
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0, **speed)
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, config.beta2), **speed)


@dataclass(frozen=True, slots=True)
class _Group:
    """One parameter group of an optimiser, with the state of its parameters as the kernel takes it."""

    params: list[torch.Tensor]
    update: Callable[[list[torch.Tensor], float], None]
    """Called with the gradients and the learning rate."""


class Stepper:
    """Steps a torch optimiser through torch's own functional kernels.

    `Optimizer.step` collects parameters and state anew each time, which for a small network takes longer than the
    update itself (docs/benchmarks/training-step.md). The first step is the optimiser's own; later ones hand the
    lists that it made to the same kernel. The state stays in the optimiser, where checkpoints find it.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self._groups: list[_Group] | None = None

    def step(self, lr: float) -> None:
        """Update every parameter by its gradient."""
        if self._groups is not None:
            gradients = [[p.grad for p in group.params] for group in self._groups]
            # A layer left out of one forward pass has no gradient then: the optimiser knows what to do.
            if not any(gradient is None for group in gradients for gradient in group):
                with torch.no_grad():
                    for group, gradient_list in zip(self._groups, gradients, strict=True):
                        group.update(gradient_list, lr)  # type: ignore[arg-type]
                return
        for settings in self.optimizer.param_groups:
            settings["lr"] = lr
        self.optimizer.step()
        self._groups = self._collect()

    def _collect(self) -> list[_Group] | None:
        """Return the groups, or None when a parameter has no state yet."""
        state = self.optimizer.state
        if any(p not in state for settings in self.optimizer.param_groups for p in settings["params"]):
            return None
        make = _sgd_group if isinstance(self.optimizer, torch.optim.SGD) else _adamw_group
        return [make(settings, state) for settings in self.optimizer.param_groups]


def _adamw_group(settings: dict[str, Any], state: dict[torch.Tensor, dict[str, torch.Tensor]]) -> _Group:
    params: list[torch.Tensor] = settings["params"]
    averages = [state[p]["exp_avg"] for p in params]
    squares = [state[p]["exp_avg_sq"] for p in params]
    steps = [state[p]["step"] for p in params]
    beta1, beta2 = settings["betas"]

    def update(gradients: list[torch.Tensor], lr: float) -> None:
        adamw(
            params,
            gradients,
            averages,
            squares,
            [],
            steps,
            foreach=settings["foreach"],
            fused=settings["fused"],
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=lr,
            weight_decay=settings["weight_decay"],
            eps=settings["eps"],
            maximize=False,
        )

    return _Group(params, update)


def _sgd_group(settings: dict[str, Any], state: dict[torch.Tensor, dict[str, torch.Tensor]]) -> _Group:
    params: list[torch.Tensor] = settings["params"]
    buffers: list[torch.Tensor | None] = [state[p].get("momentum_buffer") for p in params]

    def update(gradients: list[torch.Tensor], lr: float) -> None:
        sgd(
            params,
            gradients,
            buffers,
            foreach=settings["foreach"],
            fused=settings["fused"],
            weight_decay=settings["weight_decay"],
            momentum=settings["momentum"],
            lr=lr,
            dampening=0.0,
            nesterov=settings["nesterov"],
            maximize=False,
        )

    return _Group(params, update)
