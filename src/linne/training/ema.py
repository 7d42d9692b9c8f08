"""An exponential moving average of the weights, evaluated and kept in their place."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from linne.models.loading import load_weights
from linne.training.joined import move_towards


class MovingAverage:
    """A copy of a model whose weights follow the original's slowly."""

    def __init__(self, model: nn.Module, decay: float, *, joined: bool = True) -> None:
        """`joined`: whether the device takes many tensors in one call."""
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self._decay, self._joined = decay, joined
        self._num_updates = 0
        floating = [
            (mine, theirs)
            for mine, theirs in zip(_tensors(self.model), _tensors(model), strict=True)
            if mine.is_floating_point()
        ]
        self._mine, self._theirs = [a for a, _ in floating], [b for _, b in floating]

    @torch.no_grad()
    def update(self) -> None:
        """Move a step towards the original: mine = decay * mine + (1 - decay) * theirs.

        The decay starts low, as min(decay, (1 + n) / (10 + n)), so that the first weights are soon forgotten
        (TensorFlow's `ExponentialMovingAverage`).
        """
        self._num_updates += 1
        decay = min(self._decay, (1 + self._num_updates) / (10 + self._num_updates))
        move_towards(self._mine, self._theirs, 1.0 - decay, joined=self._joined)

    def state(self) -> dict[str, Any]:
        """Return what a restart needs: numbers and tensors, which go on changing."""
        weights = {f"weights.{name}": tensor for name, tensor in self.model.state_dict().items()}
        return {"num_updates": self._num_updates, **weights}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._num_updates = state["num_updates"]
        load_weights(self.model, {name: state[f"weights.{name}"] for name in self.model.state_dict()})


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    """Return weights and buffers; the norms' running statistics are averaged with the weights they belong to."""
    return [*(p.detach() for p in model.parameters()), *model.buffers()]
