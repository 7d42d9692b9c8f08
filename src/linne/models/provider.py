"""What every provider of networks offers."""

from __future__ import annotations

import importlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import nn


BY_PLACE = ("hf", "python")
"""Providers whose networks are named by where they lie, and typed as `hf:PLACE` and `python:PLACE`."""


def full_name(provider: str, name: str) -> str:
    """Return what a user types for the provider's network `name`."""
    if provider == "linne":
        return name
    return f"{provider}:{name}" if provider in BY_PLACE else f"{provider}/{name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRef:
    """A network as plain data: enough to build it again. Stored in a bundle's `model` field."""

    provider: str
    """A key of `PROVIDERS`: `linne`, `timm`, `torchvision`, `hf`, `python`."""
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
        """What a user types: `small`, `timm/resnet18`; `hf:vit` says what kind of network it is."""
        return full_name(self.provider, self.name)


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
    crop_mode: str = "center"
    """How an image is brought to this size: `center` or `squash` as in `InputSpec`, or timm's `border`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HubFile:
    """A file on the Hugging Face hub."""

    repository: str
    """`timm/resnet18.a1_in1k`."""
    filenames: tuple[str, ...]
    """The first of these that is there."""
    revision: str | None = None
    """A branch, tag or commit; None is the main branch."""

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.repository}{revision}/{self.filenames[0]} on the Hugging Face hub"


@dataclass(frozen=True, kw_only=True, slots=True)
class WebFile:
    """A file at an address."""

    url: str

    @property
    def filename(self) -> str:
        """Its name in torch hub's folder, which is the last part of the address."""
        return self.url.rpartition("/")[2]

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, kw_only=True, slots=True)
class Pretrained:
    """Weights that somebody published for a network: what they are, whose, and where they lie. Nothing is fetched."""

    provider: str
    """A key of `PROVIDERS`."""
    name: str
    """The provider's own name of the network."""
    tag: str
    """Which of its weights: `a1_in1k`, `IMAGENET1K_V2`."""
    where: HubFile | WebFile | Path
    sha256_prefix: str | None = None
    """The first hexadecimal digits of the file's hash, where the provider states them."""
    size_bytes: int | None = None
    """About how large the file is; torchvision says it to a kilobyte."""
    licence: str | None = None
    """As the provider states it, a name or an address; None where it states none."""
    input: InputDefaults | None
    """How pixels were prepared when these weights were trained; None where files beside the weights say it."""
    num_classes: int
    """0 where they have no classifier."""
    classes: str | tuple[str, ...] | None = None
    """What output k is for, or the part of ImageNet whose names timm knows; see `labels`."""

    @property
    def full_name(self) -> str:
        """What a user types: `timm/resnet18.a1_in1k`, `hf:google/vit-base-patch16-224`."""
        name = full_name(self.provider, self.name)
        return name if self.provider in BY_PLACE else f"{name}.{self.tag}"

    def labels(self) -> tuple[str, ...] | None:
        """Return a different label for each output in order, or None where the provider does not say.

        A name that several outputs share is numbered from its second on: `crane`, `crane (2)`.
        """
        if self.classes is None:
            return None
        if isinstance(self.classes, str):
            # By name, as providers are: this module is below the line above which frameworks are imported.
            names: Sequence[str] = importlib.import_module("linne.models.imagenet").names_in(self.classes)
            return numbered(names)
        return numbered(self.classes)


def hash_in(filename: str) -> str | None:
    """Return the first digits of a file's sha256 that torch hub's way of naming puts before the ending, or None."""
    found = re.search(r"-([0-9a-f]{8,64})\.[a-z.]+$", filename)
    return found[1] if found else None


def numbered(names: Sequence[str]) -> tuple[str, ...]:
    """Return `names` with ` (2)`, ` (3)` ... after each that came before."""
    labels: list[str] = []
    used, seen = set(names), set()
    for name in names:
        label = name
        if name in seen:
            label = next(text for text in (f"{name} ({count})" for count in itertools.count(2)) if text not in used)
        seen.add(name)
        used.add(label)
        labels.append(label)
    return tuple(labels)


class Provider(Protocol):
    """A family of networks with one constructor. Implemented by modules' classes without state."""

    def why_unavailable(self) -> str | None:
        """Return why nothing can be built (a package is missing, with the install command), or None."""

    def names(self) -> list[str]:
        """Return every classifier's name, sorted."""

    def input_defaults(self, name: str) -> InputDefaults | None:
        """Return what `name` was designed for, or None when it adapts to any size."""

    def pretrained(self, name: str) -> list[Pretrained]:
        """Return the weights published for `name`, the default first; none where there are none. Fetches nothing."""

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
