"""Schedule-free learning: averaging in place of a falling learning rate, with Meta's `schedulefree` package."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from linne.recipe import OptimConfig
from linne.training.joined import copy_into


def make_schedule_free(groups: list[dict[str, Any]], config: OptimConfig, *, foreach: bool) -> torch.optim.Optimizer:
    """Return the schedule-free form of `config`'s optimiser, ready to train (Defazio et al. 2024)."""
    import schedulefree

    optimizer: torch.optim.Optimizer
    if config.optimizer == "sgd":
        optimizer = schedulefree.SGDScheduleFree(groups, lr=config.lr, momentum=config.momentum, foreach=foreach)
    else:
        optimizer = schedulefree.AdamWScheduleFree(
            groups, lr=config.lr, betas=(config.momentum, config.beta2), foreach=foreach
        )
    optimizer.train()  # type: ignore[attr-defined]
    return optimizer


class ScheduleFreeMean:
    """A copy of a network with the averaged weights (x in the paper), not those that gradients are taken at (y)."""

    ready = True

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, *, joined: bool = True) -> None:
        """`joined`: whether the device takes many tensors in one call."""
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self._optimizer: Any = optimizer
        self._joined = joined
        self._mine, self._theirs = ([p.detach() for p in network.parameters()] for network in (self.model, model))

    def state(self) -> dict[str, Any]:
        """Return what a restart needs: nothing, since the optimiser has all that the copy is made from."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""

    @torch.no_grad()
    def end_epoch(self, epoch: int, planned: float | None = None) -> None:
        """Bring the copy up to date, leaving the network as it is, to the bit."""
        before = [weight.clone() for weight in self._theirs]
        self._optimizer.eval()
        copy_into(self._mine, self._theirs, joined=self._joined)
        self._optimizer.train()
        copy_into(self._theirs, before, joined=self._joined)  # there and back again would round
