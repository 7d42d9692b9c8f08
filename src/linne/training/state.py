"""Everything that a run changes as it goes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from linne.device import Device
from linne.recipe import Recipe
from linne.training.ema import MovingAverage
from linne.training.optimizer import Stepper, make_optimizer


@dataclass(frozen=True, slots=True)
class Scores:
    """What a pass over a split found."""

    accuracy: float
    loss: float
    """Mean cross-entropy an example, without label smoothing."""
    num_examples: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The weights of the epoch to keep, on the host."""

    epoch: int
    """Counted from 1."""
    scores: Scores | None
    """On validation; None without a validation split."""
    weights: dict[str, torch.Tensor]


@dataclass(slots=True)
class TrainState:
    """What must survive from one step to the next."""

    model: nn.Module
    """The network whose weights are trained."""
    forward: nn.Module
    """The network as it is called: `model` itself, or compiled around it."""
    stepper: Stepper
    """The optimiser."""
    parameters: list[nn.Parameter]
    """The model's, collected once: walking the modules takes longer than a small step's backward pass."""
    ema: MovingAverage | None
    scaler: torch.amp.GradScaler | None
    """Scales the loss against underflow in fp16; None in the other precisions."""
    lr: float = 0.0
    """Of the latest step."""
    step: int = 0
    epoch: int = 0
    best_accuracy: float = 0.0
    """The highest on validation so far, of any epoch."""
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
            stepper=Stepper(make_optimizer(model, recipe.optim, device)),
            parameters=[p for p in model.parameters() if p.requires_grad],
            ema=None if decay is None else MovingAverage(model, decay),
            scaler=device.grad_scaler() if fp16 else None,
        )

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated and kept."""
        return self.forward if self.ema is None else self.ema.model

    @torch.inference_mode()
    def is_finite(self, images_NCHW: torch.Tensor) -> bool:
        """Return whether the network that would be kept answers these images, in fp32, with finite numbers.

        Weights can be finite and so large that no answer is; without a validation split nothing else would notice.
        """
        model = self.model if self.ema is None else self.ema.model
        finite = bool(torch.isfinite(model.eval()(images_NCHW)).all())
        self.model.train()
        return finite

    def keep(self, scores: Scores | None) -> bool:
        """Remember the weights of this epoch if they are the ones to keep so far, and return whether they are.

        Of the epochs within one standard error of the highest validation accuracy the latest is kept: a small split
        cannot tell them apart (the one-standard-error rule, Breiman et al. 1984), and the learning rate comes down
        towards the end. Without scores every epoch replaces the one before.
        """
        if scores is not None:
            self.best_accuracy = max(self.best_accuracy, scores.accuracy)
            if scores.accuracy < self.best_accuracy - standard_error(self.best_accuracy, scores.num_examples):
                return False
        source = self.model if self.ema is None else self.ema.model
        weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in source.state_dict().items()}
        self.kept = Snapshot(self.epoch, scores, weights)
        return True


def standard_error(fraction: float, num_examples: int) -> float:
    """Return the standard error of a fraction, with two successes and two failures added (Agresti and Coull 1998).

    The addition keeps it above 0 when everything is right.
    """
    adjusted = (fraction * num_examples + 2) / (num_examples + 4)
    return math.sqrt(adjusted * (1 - adjusted) / (num_examples + 4))
