"""Everything that a run changes as it goes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from linne.device import Device
from linne.recipe import Recipe
from linne.training.activation_checkpointing import checkpoint_activations
from linne.training.adapters import plain_weights
from linne.training.clipping import Clip, make_clip
from linne.training.distilling import Teacher, make_teacher
from linne.training.ema import MovingAverage
from linne.training.epoch_mean import EpochMean
from linne.training.finite import Skips
from linne.training.freezing import Freezing, Tuning, make_freezing
from linne.training.losses import Loss, make_loss
from linne.training.mixout import Mixout
from linne.training.optimizer import Stepper, make_optimizer
from linne.training.patience import Patience
from linne.training.running_statistics import batch_norms
from linne.training.sam import Sharpness
from linne.training.schedule import Plateau, planned_step
from linne.training.schedule_free import ScheduleFreeMean

LR_FACTOR = 0.5
"""What the learning rate is multiplied by each time that training goes back."""


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
    """The network as it is called to train: `model` itself, or what spreads it over processes or compiles it."""
    alone: nn.Module
    """The network as it is called to evaluate, when every process goes its own way: `model`, or compiled around it."""
    stepper: Stepper
    """The optimiser."""
    parameters: list[nn.Parameter]
    """The model's, collected once: walking the modules takes longer than a small step's backward pass."""
    freezing: Freezing | Tuning | None
    loss: Loss
    teacher: Teacher | None
    still_norms: list[_BatchNorm]
    """Those that normalise by the statistics they started with."""
    recomputed_norms: list[_BatchNorm] | None
    """Those that a backward pass runs again where activations are not kept; None where they are."""
    clip: Clip | None
    sharpness: Sharpness | None
    mixout: Mixout | None
    plateau: Plateau | None
    patience: Patience | None
    ema: MovingAverage | None
    late_average: EpochMean | ScheduleFreeMean | None
    """Averaged weights that are brought up to date at the end of an epoch."""
    micro_batch: int | None
    """Images computed at once; None takes a whole batch. Halved where memory is short."""
    least_at_once: int
    """Batch norm learns nothing from one image."""
    scaler: torch.amp.GradScaler | None
    """Scales the loss against underflow in fp16; None in the other precisions."""
    together: bool = False
    """Whether other processes compute parts of every batch, so that none can halve its own in the middle of a step."""
    skips: Skips = field(default_factory=Skips)
    rewinds: list[dict[str, Any]] = field(default_factory=list)
    """One row of the measurements for each time that training has gone back to a checkpoint."""
    cuts: tuple[float, ...] = ()
    """Where training was shortened, as in `optim.shortened`."""
    lr: float = 0.0
    """Of the latest step."""
    step: int = 0
    epoch: int = 0
    """Epochs done."""
    batch: int = 0
    """Batches of the next epoch that are done."""
    best_accuracy: float = 0.0
    """The highest on validation so far, of any epoch."""
    kept: Snapshot | None = None

    @classmethod
    def create(
        cls,
        model: nn.Module,
        recipe: Recipe,
        device: Device,
        counts_K: NDArray[np.int64] | None = None,
        forward: nn.Module | None = None,
        *,
        trust_code: bool = False,
    ) -> TrainState:
        """Return the state before the first step, with `model` on `device`.

        `counts_K` says how many training images each class has, for losses that ask. `forward` is what to call instead
        of `model`, which then is on the device already. With `trust_code` the teacher may be a Python file.
        """
        if forward is None:
            forward = model = place(model, recipe, device)
        compiled: nn.Module = torch.compile(forward) if recipe.device.compile else forward  # type: ignore[assignment]
        optim, joined = recipe.optim, device.can.foreach.holds
        fp16 = recipe.device.precision == "fp16"
        freezing = make_freezing(model, recipe)
        if freezing is not None and not freezing.thaws:
            freezing.start_epoch(0)  # no optimiser needs to know of these weights
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = make_optimizer(model, optim, device)
        late: EpochMean | ScheduleFreeMean | None = None
        if optim.average_epochs is not None:
            late = EpochMean(model, optim.average_epochs, optim.epochs, joined=joined)
        elif optim.schedule == "schedule-free":
            late = ScheduleFreeMean(model, optimizer, joined=joined)
        return cls(
            model=model,
            forward=compiled,
            alone=compiled if forward is model else model,
            stepper=Stepper(optimizer),
            parameters=parameters,
            freezing=freezing,
            teacher=make_teacher(recipe, device, trust_code=trust_code),
            still_norms=batch_norms(model) if recipe.model.keep_statistics else [],
            recomputed_norms=batch_norms(model) if recipe.device.checkpoint_activations else None,
            loss=make_loss(optim, counts_K, torch.device(device.torch_device)),
            clip=make_clip(model, parameters, optim, joined=joined),
            sharpness=None if optim.sam_rho is None else Sharpness(model, parameters, optim.sam_rho, joined=joined),
            mixout=Mixout(model, recipe.model.mixout, recipe.seed, device) if recipe.model.mixout else None,
            plateau=Plateau(optim) if optim.schedule == "plateau" else None,
            patience=None if optim.patience is None else Patience(optim.patience),
            ema=None if optim.ema_decay is None else MovingAverage(model, optim.ema_decay, joined=joined),
            late_average=late,
            micro_batch=recipe.device.micro_batch,
            least_at_once=2 if any(isinstance(module, _BatchNorm) for module in model.modules()) else 1,
            scaler=device.grad_scaler() if fp16 else None,
            cuts=optim.shortened or (),
        )

    def start_epoch(self, planned_epoch: int | None = None) -> None:
        """Freeze and thaw the layers that are due in this epoch, which in a shortened training is a later one's."""
        if self.freezing is not None:
            self.freezing.start_epoch(self.epoch if planned_epoch is None else planned_epoch)
        if self.freezing is not None or self.still_norms:
            self.train_mode()

    def train_mode(self) -> None:
        """Put the network into training mode, all but its frozen layers and the norms that keep their statistics."""
        self.forward.train()
        for norm in self.still_norms:
            norm.eval()
        if self.freezing is not None:
            self.freezing.hold()

    def is_done(self, epochs: int) -> bool:
        """Return whether nothing is left to learn: of planned `epochs` none is left, or patience is over."""
        return self.epoch >= self.num_epochs(epochs) or (self.patience is not None and self.patience.is_over)

    def num_epochs(self, epochs: int) -> int:
        """Return how many of planned `epochs` are trained, of which the last may have been cut short."""
        return math.ceil(self.cuts[-1]) if self.cuts else epochs

    def num_steps(self, epochs: int, steps_per_epoch: int) -> int:
        """Return how many steps there are in all, as things stand."""
        return round((self.cuts[-1] if self.cuts else epochs) * steps_per_epoch)

    def planned_step(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """Return which step of the plan, of `epochs`, is due at `step`."""
        return planned_step(step, steps_per_epoch, epochs, self.cuts) if self.cuts else step

    @property
    def kept_model(self) -> nn.Module:
        """The weights that are kept: an average where the recipe asks for one and there is one yet."""
        if self.ema is not None:
            return self.ema.model
        if self.late_average is not None and self.late_average.ready:
            return self.late_average.model
        return self.model

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated and kept, as it is called."""
        return self.alone if self.kept_model is self.model else self.kept_model

    @property
    def networks(self) -> list[nn.Module]:
        """The network and its averages, as far as there are some."""
        averages = (self.ema, self.late_average)
        return [self.model, *(average.model for average in averages if average is not None)]

    @torch.no_grad()
    def is_finite(self, images_NCHW: torch.Tensor) -> bool:
        """Return whether the network that would be kept answers these images, in fp32, with finite numbers.

        Weights can be finite and so large that no answer is; without a validation split nothing else would notice.
        """
        finite = bool(torch.isfinite(self.kept_model.eval()(images_NCHW)).all())
        self.train_mode()
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
        self.kept = Snapshot(self.epoch, scores, plain_weights(self.kept_model))
        return True


def place(model: nn.Module, recipe: Recipe, device: Device) -> nn.Module:
    """Return `model` on `device`, its weights in the layout that the recipe asks for."""
    model = model.to(device.torch_device)
    if recipe.device.checkpoint_activations:
        checkpoint_activations(model)
    return model.to(memory_format=torch.channels_last) if recipe.device.channels_last else model


def standard_error(fraction: float, num_examples: int) -> float:
    """Return the standard error of a fraction, with two successes and two failures added (Agresti and Coull 1998).

    The addition keeps it above 0 when everything is right.
    """
    adjusted = (fraction * num_examples + 2) / (num_examples + 4)
    return math.sqrt(adjusted * (1 - adjusted) / (num_examples + 4))
