"""The recipe's section `augment`: what is done to training images only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from linne.errors import RecipeError
from linne.recipe_values import check_fraction, check_limits

Policy = Literal["rand", "trivial", "augmix"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """What is done to training images only; None is off."""

    flip: bool = False
    """Mirror half of the images left to right."""
    alternate: bool = False
    """With `flip`: mirror each image in every other epoch; which half of them in the first one is drawn."""
    crop_padding: int | None = None
    """Shift by up to this many pixels, filling with reflected borders."""
    cutout: int | None = None
    """Blank a random square with this side in pixels."""
    erase: float | None = None
    """Blank a rectangle of random place, size and shape in this share of the images (random erasing)."""
    resized_crop_area: float | None = None
    """Crop a random part of at least this share of the image and resize it (streaming loader only)."""
    rotate_degrees: float | None = None
    """Turn by up to this angle either way."""
    brightness: float | None = None
    """Multiply by 1 - this to 1 + this."""
    contrast: float | None = None
    """Take values away from the image's mean grey, or towards it, likewise."""
    saturation: float | None = None
    """Take colours away from grey, or towards it, likewise."""
    hue: float | None = None
    """Turn the hues by up to this part of the colour circle either way, at most 0.5."""
    policy: Policy | None = None
    """`trivial` (TrivialAugment: one operation of any strength), `rand` (RandAugment) or `augmix` (AugMix)."""
    rand_magnitude: int = 9
    """For `rand`: how strong its operations are, 0 to 30."""
    rand_num_ops: int = 2
    """For `rand`: how many operations, one after the other."""
    augmix_severity: int = 3
    """For `augmix`: the strongest that its operations are, 1 to 10."""
    augmix_width: int = 3
    """For `augmix`: how many chains of operations are mixed."""
    augmix_depth: int | None = None
    """For `augmix`: operations in a chain; None draws 1 to 3."""
    augmix_alpha: float = 1.0
    """For `augmix`: how evenly the chains, and the image itself, are mixed; small lets one of them outweigh."""
    consistency: float | None = None
    """For `augmix`: what it counts that answers to an image and to two mixtures of it agree; 12 in the paper."""
    size_start: float | None = None
    """Train on images of this share of their height and width at first, growing later on."""
    size_end: float = 1.0
    """With `size_start`: the share that they grow to; below 1 they stay smaller than those that are evaluated."""
    size_hold: float = 0.5
    """With `size_start`: the share of the epochs before they grow."""
    size_until: float = 0.8
    """With `size_start`: the share of the epochs after which they are grown."""
    size_tune_epochs: int | None = None
    """With `size_start`: train only classifier and norms, on images of full size, in so many last epochs."""
    mixup_alpha: float | None = None
    """Blend images and labels by a Beta(alpha, alpha) share (mixup)."""
    cutmix_alpha: float | None = None
    """Paste a box of another image, labels by its area (CutMix); with mixup, each image has one or the other."""

    def __post_init__(self) -> None:
        check_limits(self, "augment.")
        self._check_sizes()
        if self.alternate and not self.flip:
            raise RecipeError(
                "augment.alternate mirrors each image in every other epoch, and augment.flip=false mirrors none",
                hint="use --set augment.flip=true, or --set augment.alternate=false",
            )
        self._check_consistency()
        if self.resized_crop_area is not None:
            check_fraction("augment.resized_crop_area", self.resized_crop_area)
        largest = {"rotate_degrees": 180.0, "brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.5}
        if self.cutout is not None and self.erase is not None:
            raise RecipeError(
                "augment.cutout and augment.erase both blank a part of the image",
                hint="leave one of them out: --set augment.cutout=none",
            )
        if not 0.1 <= self.augmix_alpha <= 100:
            raise RecipeError(f"augment.augmix_alpha is {self.augmix_alpha:g}, expected 0.1 to 100")
        for name, most in {
            **largest,
            "erase": 1.0,
            "mixup_alpha": 100.0,
            "cutmix_alpha": 100.0,
            "consistency": 1000.0,
        }.items():
            value = getattr(self, name)
            if value is not None and not 0 < value <= most:
                raise RecipeError(f"augment.{name} is {value:g}, expected more than 0 and at most {most:g}, or none")

    def _check_consistency(self) -> None:
        if self.consistency is None:
            return
        if self.policy != "augmix":
            raise RecipeError(
                "augment.consistency compares the answers to an image and to two of AugMix's mixtures, and "
                f"augment.policy is {self.policy or 'none'}",
                hint="use --set augment.policy=augmix, or --set augment.consistency=none",
            )
        for name in ("mixup_alpha", "cutmix_alpha"):
            if getattr(self, name) is not None:
                raise RecipeError(
                    f"augment.consistency compares views of one image, and augment.{name} mixes it with another",
                    hint=f"use --set augment.{name}=none, or --set augment.consistency=none",
                )

    def _check_sizes(self) -> None:
        if self.size_start is None:
            if self.size_tune_epochs is not None:
                raise RecipeError(
                    "augment.size_tune_epochs ends training on smaller images, and augment.size_start is none",
                    hint="use --set augment.size_start=0.75, or --set augment.size_tune_epochs=none",
                )
            return
        check_fraction("augment.size_start", self.size_start)
        if not self.size_start <= self.size_end <= 1:
            raise RecipeError(
                f"augment.size_end is {self.size_end:g}, expected augment.size_start={self.size_start:g} to 1"
            )
        if not 0 <= self.size_hold <= self.size_until <= 1:
            raise RecipeError(
                f"augment.size_hold is {self.size_hold:g} and augment.size_until {self.size_until:g}, expected shares "
                "of the epochs, the first no larger"
            )
