"""What every provider of networks offers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRef:
    """A network as plain data: enough to build it again. Stored in a bundle's `model` field."""

    provider: str
    """A key of `PROVIDERS`: `linne`, `timm`, `torchvision`."""
    name: str
    """The provider's own name for it: `small`, `resnet18`."""
    num_classes: int
    channels: int
    height: int
    width: int
    options: Mapping[str, Any]
    """Further arguments of the provider's constructor, JSON-ready: {"img_size": [32, 32]}."""

    @property
    def full_name(self) -> str:
        """What a user types: `small`, `timm/resnet18`."""
        return self.name if self.provider == "linne" else f"{self.provider}/{self.name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """How a network departs from its plain form; what is None or False is as the network has it."""

    dropout: float | None = None
    """Probability before the classifier."""
    drop_path: float | None = None
    """Probability of leaving out the last block in training, falling to 0 at the first."""
    blur_pool: bool = False
    """Blur before each halving of the map."""
    width: float | None = None
    """How many times as many channels."""
    patch_stride: int | None = None
    """Pixels from one patch of the first layer to the next."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InputDefaults:
    """What a network was designed for; the recipe chooser starts from these."""

    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    crop_pct: float
    fixed_size: bool
    """Whether the network only takes this size."""


class Provider(Protocol):
    """A family of networks with one constructor. Implemented by modules' classes without state."""

    def why_unavailable(self) -> str | None:
        """Return why nothing can be built (a package is missing, with the install command), or None."""

    def names(self) -> list[str]:
        """Return every classifier's name, sorted."""

    def input_defaults(self, name: str) -> InputDefaults | None:
        """Return what `name` was designed for, or None when it adapts to any size."""

    def describe(
        self, name: str, *, num_classes: int, channels: int, height: int, width: int, variant: Variant
    ) -> ModelRef:
        """Return the reference from which `build` makes the network, having checked that it can.

        Raises:
            RecipeError: the network cannot take this size or number of channels, or has no such variant.
        """

    def build(self, ref: ModelRef) -> nn.Module:
        """Return the network with freshly drawn weights (torch's global generator), in training mode.

        Takes float32 images N x C x H x W, returns logits N x K. Networks with auxiliary heads are built without.
        """

    def config(self, ref: ModelRef, labels: tuple[str, ...], input_spec: Mapping[str, Any]) -> dict[str, Any]:
        """Return the bundle's `config.json`."""
