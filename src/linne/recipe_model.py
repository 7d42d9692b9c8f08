"""The recipe's sections `model` and `distill`: which network, what of it is trained, and who teaches it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from linne.errors import RecipeError
from linne.recipe_values import check_fraction, check_limits


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Which network, and what of it is trained."""

    name: str = "small"
    """`small`, `speedrun`, `lenet`, `mlp`, `timm/NAME`, `torchvision/NAME`, `hf:PLACE` or `python:FILE.py:NAME`."""
    weights: str | None = None
    """Pretrained weights to start from: `default` or a name of the network's provider, a file or a folder."""
    weights_sha256: str | None = None
    """Of the file that `weights` led to, which another file is refused for; None takes what is there."""
    prove_weights: bool = True
    """Show pretrained weights a few photographs before training, and refuse what answers as nothing trained does."""
    width: float | None = None
    """How many times as many channels (`small` and `speedrun`); None is as they were made."""
    dropout: float | None = None
    """Probability before the classifier, for models that take one; None keeps the network's own."""
    aux_weight: float | None = None
    """Train the auxiliary heads of Inception v3 (0.4 as published) or GoogLeNet (0.3) too: their part of the loss."""
    sync_batch_norm: bool = True
    """Several processes: batch norm over the whole batch, as one process computes it, not over each one's part."""
    drop_path: float | None = None
    """Probability of leaving out the last block, falling to 0 at the first; None keeps the network's own."""
    blur_pool: bool = False
    """Blur before each halving of the map (timm's networks that take an `aa_layer`)."""
    patch_stride: int | None = None
    """Pixels from one patch of the first layer to the next (`speedrun`): each is twice as wide. None fits the size."""
    whiten: bool = False
    """Make the first convolution's filters those that whiten patches of the training images, and hold them."""
    dirac: bool = False
    """Start later convolutions as the identity, as far as their channels go."""
    keep_statistics: bool = False
    """Normalise by the running statistics that batch norms start with, and do not learn others."""
    freeze: Literal["backbone"] | int | None = None
    """Leave `backbone` (all but the classifier), or this many layers from the first, as they are."""
    lora_rank: int | None = None
    """Hold pretrained weights, and train the classifier and a product of matrices this narrow beside each (LoRA)."""
    mixout: float = 0.0
    """Probability, for each pretrained weight but the classifier's, of being the pretrained one again in a step."""
    unfreeze_epochs: int | None = None
    """With `freeze`: train the frozen layers as well, one after another from the classifier, by this epoch all."""

    def __post_init__(self) -> None:
        check_limits(self, "model.")
        for name in ("dropout", "drop_path"):
            if getattr(self, name) is not None:
                check_fraction(f"model.{name}", getattr(self, name))
        if self.width is not None and not 0.1 <= self.width <= 10:
            raise RecipeError(f"model.width is {self.width:g}, expected 0.1 to 10, or none")
        if self.aux_weight is not None and not 0 < self.aux_weight <= 10:
            raise RecipeError(f"model.aux_weight is {self.aux_weight:g}, expected more than 0 and at most 10, or none")
        if isinstance(self.freeze, int) and self.freeze < 1:
            raise RecipeError(f"model.freeze is {self.freeze}, expected 1 or more, or `backbone`")
        for name in ("whiten", "dirac"):
            if self.weights is not None and getattr(self, name):
                raise RecipeError(
                    f"model.{name} is a start from random weights, and model.weights names pretrained ones",
                    hint=f"use --set model.{name}=false, or leave --weights out",
                )
        if self.lora_rank is not None:
            self._check_lora(self.lora_rank)
        if self.mixout != 0:
            self._check_mixout()
        if self.unfreeze_epochs is not None and self.freeze is None:
            raise RecipeError(
                "model.unfreeze_epochs says when frozen layers are trained as well, and model.freeze is none",
                hint="use --set model.freeze=backbone, or --set model.unfreeze_epochs=none",
            )

    def _check_mixout(self) -> None:
        if not 0 < self.mixout < 1:
            raise RecipeError(f"model.mixout is {self.mixout:g}, expected 0 or more and less than 1")
        if self.weights is None:
            raise RecipeError(
                "model.mixout mixes pretrained weights in, and model.weights is none",
                hint="add --weights default, or use --set model.mixout=0",
            )
        held = "freeze" if self.freeze == "backbone" and self.unfreeze_epochs is None else "lora_rank"
        if getattr(self, held) is not None:
            raise RecipeError(
                f"model.mixout draws learning weights back to the pretrained ones, where model.{held} holds them",
                hint=f"use --set model.mixout=0, or --set model.{held}=none",
            )

    def _check_lora(self, rank: int) -> None:
        if not 1 <= rank <= 1024:
            raise RecipeError(f"model.lora_rank is {rank}, expected 1 to 1024, or none")
        if self.weights is None:
            raise RecipeError(
                "model.lora_rank adapts pretrained weights, and model.weights is none",
                hint="add --weights default, or use --set model.lora_rank=none",
            )
        if self.freeze is not None:
            raise RecipeError(
                "model.lora_rank holds all weights but the classifier's already, and model.freeze some as well",
                hint="use --set model.freeze=none, or --set model.lora_rank=none",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillConfig:
    """A trained bundle whose answers are learnt beside the labels."""

    bundle: str | None = None
    """The teacher: a bundle with the same labels."""
    temperature: float = 4.0
    """What both answers' logits are divided by: higher looks closer at what the teacher finds unlikely."""
    weight: float = 0.9
    """The teacher's part of the loss; the labels have the rest."""

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise RecipeError(f"distill.temperature is {self.temperature:g}, expected a number above 0")
        if not 0 < self.weight <= 1:
            raise RecipeError(f"distill.weight is {self.weight:g}, expected more than 0 and at most 1")
