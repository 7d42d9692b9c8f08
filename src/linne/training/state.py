"""Everything that a run changes as it goes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from linne.device import Device
from linne.recipe import Recipe
from linne.training.ema import MovingAverage
from linne.training.optimizer import make_optimizer


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The weights of the epoch to keep, on the host."""

    epoch: int
    """Counted from 1."""
    val_accuracy: float | None
    val_loss: float | None
    weights: dict[str, torch.Tensor]


@dataclass(slots=True)
class TrainState:
    """What must survive from one step to the next."""

    model: nn.Module
    """The network whose weights are trained."""
    forward: nn.Module
    """The network as it is called: `model` itself, or compiled around it."""
    optimizer: torch.optim.Optimizer
    ema: MovingAverage | None
    scaler: torch.amp.GradScaler | None
    """Scales the loss against underflow in fp16; None in the other precisions."""
    step: int = 0
    epoch: int = 0
    kept: Snapshot | None = None

    @classmethod
    def create(cls, model: nn.Module, recipe: Recipe, device: Device) -> TrainState:
        """Return the state before the first step, with `model` on `device`."""
        model = model.to(device.torch_device)
        if recipe.device.channels_last:
            model = model.to(memory_format=torch.channels_last)
        decay = recipe.optim.ema_decay
        fp16 = recipe.device.precision == "fp16"
        return cls(
            model=model,
            forward=torch.compile(model) if recipe.device.compile else model,  # type: ignore[arg-type]
            optimizer=make_optimizer(model, recipe.optim, device),
            ema=None if decay is None else MovingAverage(model, decay),
            scaler=torch.amp.GradScaler(device.torch_device.partition(":")[0]) if fp16 else None,
        )

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated and kept."""
        return self.forward if self.ema is None else self.ema.model

    def keep(self, val_accuracy: float | None, val_loss: float | None) -> bool:
        """Remember the weights of this epoch if they are the best so far, and return whether they are.

        Higher validation accuracy wins, then lower loss; without a validation split the newest epoch does.
        """
        if self.kept is not None and val_accuracy is not None and val_loss is not None:
            best_accuracy, best_loss = self.kept.val_accuracy or 0.0, self.kept.val_loss
            if val_accuracy < best_accuracy:
                return False
            if val_accuracy == best_accuracy and best_loss is not None and val_loss >= best_loss:
                return False
        source = self.model if self.ema is None else self.ema.model
        weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in source.state_dict().items()}
        self.kept = Snapshot(self.epoch, val_accuracy, val_loss, weights)
        return True
