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
from linne.training.distributed import optimizer_speed, parted_as
from linne.training.parameter_groups import BETA1_BESIDE_MUON, parameter_groups
from linne.training.schedule_free import make_schedule_free


def make_optimizer(model: nn.Module, config: OptimConfig, device: Device) -> torch.optim.Optimizer:
    """Return the optimiser over `model`'s trained weights, in the groups of `parameter_groups`.

    torch's own where it has one, then timm's (which must not be imported for anything else: it takes seconds).
    """
    groups = parameter_groups(model, config)
    speed = optimizer_speed(model.parameters(), device)
    betas = (config.momentum, config.beta2)
    if config.schedule == "schedule-free":
        return make_schedule_free(groups, config, foreach=device.can.foreach.holds)
    if config.optimizer == "sgd":
        return _sgd(groups, config, speed)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=betas, **speed)
    for group in groups:
        group["foreach"] = device.can.foreach.holds
    if config.optimizer == "lion":
        from timm.optim.lion import Lion

        return Lion(groups, lr=config.lr, betas=betas)
    if config.optimizer == "lamb":
        from timm.optim.lamb import Lamb

        return Lamb(groups, lr=config.lr, betas=betas, max_grad_norm=None)  # clip_norm is its own field
    from timm.optim.muon import Muon

    # torch has Muon from 2.9 on, for matrices only. This scaling lets it have AdamW's learning rate and weight decay
    # (Liu et al. 2025); the coefficients are those of Jordan's Muon and of torch's.
    return Muon(
        groups,
        lr=config.lr,
        momentum=config.momentum,
        betas=(BETA1_BESIDE_MUON, config.beta2),
        ns_coefficients="original",
        adjust_lr_fn="match_rms_adamw",
    )


def _sgd(groups: list[dict[str, Any]], config: OptimConfig, speed: dict[str, bool]) -> torch.optim.SGD:
    optimizer = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0, **speed)
    if config.momentum and speed["fused"]:
        # torch's fused kernel fails where only some weights have had a gradient; those of frozen layers have not.
        for parameter in (p for settings in optimizer.param_groups for p in settings["params"]):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


@dataclass(frozen=True, slots=True)
class _Group:
    """One parameter group of an optimiser, with the state of its parameters as the kernel takes it."""

    params: list[torch.Tensor]
    lr_scale: float
    update: Callable[[list[torch.Tensor], float], None]
    """Called with the gradients and the learning rate."""


class Stepper:
    """Steps an optimiser; torch's SGD and AdamW through torch's own functional kernels.

    `Optimizer.step` collects parameters and state anew each time, which for a small network takes longer than the
    update itself (docs/benchmarks/training-step.md). The first step is the optimiser's own; later ones hand the
    lists that it made to the same kernel. The state stays in the optimiser, where checkpoints find it.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        """`optimizer` has not stepped yet."""
        self.optimizer = optimizer
        self._groups: list[_Group] | None = None
        self._fresh_options = _options(optimizer)

    def step(self, lr: float) -> None:
        """Update every parameter by its gradient."""
        if self._groups is not None:
            gradients = [[p.grad for p in group.params] for group in self._groups]
            # A layer left out of one forward pass has no gradient then: the optimiser knows what to do.
            if not any(gradient is None for group in gradients for gradient in group):
                with torch.no_grad():
                    for group, gradient_list in zip(self._groups, gradients, strict=True):
                        group.update(gradient_list, lr * group.lr_scale)  # type: ignore[arg-type]
                return
        self.set_lr(lr)
        self.optimizer.step()
        self._groups = self._collect()

    def set_lr(self, lr: float) -> None:
        """Give every group its learning rate when the first layer from the top has `lr`."""
        for settings in self.optimizer.param_groups:
            settings["lr"] = lr * settings.get("lr_scale", 1.0)
            if "adamw_lr" in settings:  # timm before 1.0.27 keeps a rate of its own beside Muon's
                settings["adamw_lr"] = settings["lr"]

    def state(self) -> dict[str, Any]:
        """Return what a restart needs: the optimiser's state, whose tensors go on changing, and its first options."""
        return {**self.optimizer.state_dict(), "fresh_options": self._fresh_options}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned.

        Some optimisers count in their options, so those go on as well, but where another recipe gave another value.
        """
        groups = []
        for group, before, now in zip(state["param_groups"], state["fresh_options"], self._fresh_options, strict=True):
            groups.append({k: now[k] if k in now and now[k] != before.get(k) else v for k, v in group.items()})
        self.optimizer.load_state_dict({"state": state["state"], "param_groups": groups})
        for parameter, values in self.optimizer.state.items():
            for name, value in values.items():
                # In memory as the parameter lies, which is how the optimiser made them: other strides, other kernels.
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    mine = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False)
                    values[name] = mine.copy_(parted_as(parameter, value))
        self._groups = self._collect()

    def _collect(self) -> list[_Group] | None:
        """Return the groups, or None for an optimiser of its own kernels, or when a parameter has no state yet."""
        state, make = self.optimizer.state, KERNELS.get(type(self.optimizer))
        if make is None or any(p not in state for settings in self.optimizer.param_groups for p in settings["params"]):
            return None
        return [make(settings, state) for settings in self.optimizer.param_groups]


def _options(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    return [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]


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

    return _Group(params, settings.get("lr_scale", 1.0), update)


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

    return _Group(params, settings.get("lr_scale", 1.0), update)


MakeGroup = Callable[[dict[str, Any], dict[torch.Tensor, dict[str, torch.Tensor]]], _Group]
KERNELS: dict[type, MakeGroup] = {torch.optim.SGD: _sgd_group, torch.optim.AdamW: _adamw_group}
