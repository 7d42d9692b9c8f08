"""The recipe's section `optim`: optimiser, schedule, loss, clipping and averaging, and which go together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from linne.errors import RecipeError
from linne.recipe_values import check_fraction, check_limits

Optimizer = Literal["sgd", "adamw", "muon", "lamb", "lion"]
Schedule = Literal["cosine", "one-cycle", "wsd", "step", "plateau", "constant", "schedule-free"]
Nonfinite = Literal["raise", "skip", "rewind"]
LossName = Literal["cross-entropy", "bce", "focal"]

CLIPS = ("clip_norm", "clip_value", "clip_agc")
POSITIVE = ("lr", "minutes", "norm_bias_lr", *CLIPS, "swa_lr", "logit_adjustment", "sam_rho")
SHARES = ("decay_share", "bce_threshold", "class_balance", "ema_decay")
BELOW_ONE = ("momentum", "beta2", "label_smoothing")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """How the weights are found."""

    optimizer: Optimizer = "adamw"
    """`sgd` (with Nesterov momentum), `adamw`, `muon` (AdamW where it has no matrix to work on), `lamb` or `lion`."""
    lr: float = 1e-3
    """The peak learning rate."""
    momentum: float = 0.9
    """SGD's and Muon's momentum; beta1 of the others."""
    beta2: float = 0.999
    weight_decay: float = 0.0
    """Applied to weights of two or more dimensions, not to biases and norms."""
    layer_decay: float | None = None
    """What the learning rate is multiplied by for each layer further from the classifier."""
    norm_bias_lr: float | None = None
    """What the learning rate is multiplied by for the biases of norms, whose scales are held; None trains both."""
    epochs: int = 10
    minutes: float | None = None
    """Choose `epochs` so that training takes about so long, and train fewer where they will not fit; None does not."""
    shortened: tuple[float, ...] | None = None
    """Where `minutes` shortened training: pairs of an epoch and of how many there were in all from then on.

    A run writes it down at its end, and a repeated run follows it; None goes by the clock.
    """
    patience: int | None = None
    """End training when so many epochs brought no higher validation accuracy; None trains all epochs."""
    schedule: Schedule = "cosine"
    """`wsd` is warm-up, stable, decay; `schedule-free` averages instead, and needs `sgd` or `adamw`."""
    warmup_epochs: float | None = None
    """Linear ramp from 0 to `lr`; None starts at the peak."""
    step_epochs: int = 30
    """For `step`: epochs between two drops."""
    step_factor: float = 0.1
    """For `step` and `plateau`: what each drop multiplies the rate by."""
    plateau_epochs: int = 10
    """For `plateau`: epochs without a lower validation loss before a drop."""
    decay_share: float = 0.2
    """For `wsd`: the share of training in which the rate falls to 0."""
    loss: LossName = "cross-entropy"
    """`bce` is binary cross entropy, one yes or no a class; `focal` heeds what is already right less."""
    label_smoothing: float = 0.0
    focal_gamma: float = 2.0
    """For `focal`: how much less; 0 is cross entropy."""
    bce_threshold: float | None = None
    """For `bce`: a class with more than this share of a mixed image is fully a yes; None leaves the shares."""
    class_balance: float | None = None
    """Weigh classes by 1 / their effective number, which at 0 is 1 for all and near 1 the number of images."""
    logit_adjustment: float | None = None
    """Add this times the logarithm of a class's share of the training images to its logit, in training only."""
    nonfinite: Nonfinite = "raise"
    """What happens when a loss or gradient is no finite number: `raise` ends the run, `skip` leaves the step out, and
    `rewind` goes back to the newest checkpoint, with half the learning rate from there on, at most three times."""
    clip_norm: float | None = None
    """Largest norm of all gradients together; None does not clip."""
    clip_value: float | None = None
    """Largest size of one gradient value."""
    clip_agc: float | None = None
    """Largest gradient norm of a unit as a share of its weights' norm; the classifier is left out."""
    sam_rho: float | None = None
    """Take gradients where the loss is highest within this distance (SAM): flatter minima, half the speed."""
    ema_decay: float | None = None
    """Decay a step of the averaged weights that are evaluated and kept; None keeps the weights themselves."""
    average_epochs: int | None = None
    """Evaluate and keep the mean of the weights at the end of each of this many last epochs."""
    swa_lr: float | None = None
    """With `average_epochs`: hold the rate at this share of `lr` meanwhile (SWA); None follows the schedule."""

    def __post_init__(self) -> None:
        check_limits(self, "optim.")
        for name in POSITIVE:
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise RecipeError(f"optim.{name} is {value:g}, expected a number above 0")
        for name in SHARES:
            if getattr(self, name) is not None:
                check_fraction(f"optim.{name}", getattr(self, name))
        for name in BELOW_ONE:
            if not 0 <= getattr(self, name) < 1:
                raise RecipeError(f"optim.{name} is {getattr(self, name):g}, expected 0 to less than 1")
        for name in ("weight_decay", "focal_gamma"):
            if not (getattr(self, name) >= 0 and math.isfinite(getattr(self, name))):
                raise RecipeError(f"optim.{name} is {getattr(self, name):g}, expected 0 or more")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise RecipeError(f"optim.layer_decay is {self.layer_decay:g}, expected more than 0 and at most 1")
        if self.warmup_epochs is not None and not 0 <= self.warmup_epochs <= self.epochs:
            raise RecipeError(
                f"optim.warmup_epochs is {self.warmup_epochs:g}, expected 0 to the {self.epochs} epochs of training"
            )
        if self.average_epochs is not None and self.average_epochs > self.epochs:
            raise RecipeError(
                f"optim.average_epochs is {self.average_epochs}, expected 1 to the {self.epochs} epochs of training"
            )
        self._check_shortened()
        self._check_pairs()

    def _check_shortened(self) -> None:
        cuts = self.shortened
        if cuts is None:
            return
        pairs, before = list(zip(cuts[::2], cuts[1::2], strict=False)), 0.0
        for at, total in pairs:
            if not before <= at < total <= self.epochs:
                raise RecipeError(
                    f"optim.shortened has training at epoch {at:g} get {total:g} epochs in all, "
                    f"expected epochs that rise from {before:g} and more in all, up to {self.epochs}"
                )
            before = at
        if not pairs or len(cuts) % 2:
            raise RecipeError(
                f"optim.shortened has {len(cuts)} numbers, expected pairs: an epoch, and how many there are in all then"
            )

    def _check_pairs(self) -> None:
        """Refuse fields that contradict each other."""
        clips = [name for name in CLIPS if getattr(self, name) is not None]
        if len(clips) > 1:
            raise _contradiction(f"optim.{clips[0]} and optim.{clips[1]} both say how gradients are clipped", clips[0])
        if self.ema_decay is not None and self.average_epochs is not None:
            raise _contradiction(
                "optim.ema_decay and optim.average_epochs both say which weights are kept", "ema_decay"
            )
        if self.patience is not None and self.average_epochs is not None:
            raise _contradiction(
                "optim.average_epochs takes the last epochs' mean, and optim.patience may end training before them",
                "patience",
            )
        if self.swa_lr is not None and self.average_epochs is None:
            raise RecipeError(
                "optim.swa_lr is the rate while weights are averaged, and optim.average_epochs is none",
                hint=f"use --set optim.average_epochs={max(1, self.epochs // 4)}, or --set optim.swa_lr=none",
            )
        if self.swa_lr is not None and self.schedule == "plateau":
            raise _contradiction("optim.swa_lr fixes a rate that optim.schedule=plateau is to find", "swa_lr")
        if self.logit_adjustment is not None and self.loss == "bce":
            raise _contradiction(
                "optim.logit_adjustment is derived for a softmax, and optim.loss=bce has none", "logit_adjustment"
            )
        if self.schedule == "schedule-free":
            self._check_schedule_free()

    def _check_schedule_free(self) -> None:
        if self.optimizer not in ("sgd", "adamw"):
            raise RecipeError(
                f"optim.schedule=schedule-free is made for sgd and adamw, and optim.optimizer is {self.optimizer}",
                hint="use --set optim.optimizer=adamw, or --set optim.schedule=cosine",
            )
        for name in ("ema_decay", "average_epochs"):
            if getattr(self, name) is not None:
                raise _contradiction(
                    f"optim.schedule=schedule-free averages the weights already, and optim.{name} would again", name
                )
        if self.momentum == 0:
            raise RecipeError(
                "optim.schedule=schedule-free needs optim.momentum above 0: it says where gradients are taken",
                hint="use --set optim.momentum=0.9",
            )


def _contradiction(message: str, field: str) -> RecipeError:
    return RecipeError(message, hint=f"leave one of them out: --set optim.{field}=none")
