"""What every backend offers, and how it is told to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, Self

from linne.bundle import Bundle
from linne.errors import RecipeError, suggest
from linne.exports import Precision
from linne.preprocess import Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """How a bundle's network is to be run. The same words for every backend; what only one has is in `options`."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda:1`."""
    precision: Precision = "fp32"
    num_threads: int | None = None
    """Of the CPU, for one batch; None for as many as this process may use."""
    options: Mapping[str, str] = field(default_factory=dict)
    """The backend's own, as its `OPTIONS` lists them."""
    require_accelerator: bool = False
    """Whether neither the network nor a single operator of it may run on the CPU."""
    trust_code: bool = False
    """Whether the Python file may be run that a bundle of the user's own network names, or compiled code in its exports
    that was not made here."""

    def to_dict(self) -> dict[str, Any]:
        """Return what a choice of these is kept as: all but what only the user may say."""
        return {
            "device": self.device,
            "precision": self.precision,
            "num_threads": self.num_threads,
            "options": dict(self.options),
        }


@dataclass(frozen=True, slots=True)
class Option:
    """Something that one backend alone can be told."""

    values: tuple[str, ...]
    """What it may be, the default first."""
    help: str
    """One line for people."""
    tried: tuple[str, ...] = ()
    """What `linne tune` tries besides the default; nothing for what does not change how fast it is."""
    tried_on: Literal["any", "gpu", "amd"] = "any"
    """Where that is tried: on every device, where there is a GPU of NVIDIA's or AMD's, or of AMD's alone."""


class Backend(Protocol):
    """A bundle's network, loaded: one batch of normalised images in, logits out."""

    PRECISIONS: ClassVar[tuple[Precision, ...]]
    """In which it can compute some bundle, the default first."""
    OPTIONS: ClassVar[Mapping[str, Option]]

    description: str
    """What runs where, for people: `torch 2.15.0 on cpu`."""
    batch_size: int | None
    """How many images it computes at once, fewer being filled up; None for as many as it is given."""
    canary_logits_NK: Floats | None
    """What the file that it runs answered to the canaries when it was made; None where that is the bundle's own."""

    @classmethod
    def why_unavailable(cls) -> str | None:
        """Return why this backend cannot be used on this machine, with what to install, or None."""

    @classmethod
    def why_not(cls, bundle: Bundle, precision: Precision = "fp32") -> str | None:
        """Return why this backend cannot run `bundle` in `precision` on any machine, as in "it holds a graph"."""

    @classmethod
    def open(cls, bundle: Bundle, how: RunOptions) -> Self:
        """Return the backend with the bundle's network loaded; `how` was checked by `require_known`.

        Raises:
            BundleError: the bundle's model cannot be built, or its weights do not fit it.
            DeviceError: the device cannot be used, or is not the accelerator that is required.
        """

    def run(self, images_NCHW: Floats) -> Floats:
        """Return logits N x K, float32, one row an image whatever the others in the batch are."""

    def close(self) -> None:
        """Give the network's memory back; nothing can be run afterwards. A second call does nothing."""


def require_known(name: str, backend: type[Backend], how: RunOptions) -> None:
    """Raise RecipeError unless `backend`, called `name`, knows the precision and every option in `how`."""
    if how.precision not in backend.PRECISIONS:
        known = ", ".join(backend.PRECISIONS)
        raise RecipeError(f"backend `{name}` does not compute in {how.precision}", hint=f"it computes in {known}")
    if how.num_threads is not None and how.num_threads < 1:
        raise RecipeError(f"{how.num_threads} threads, expected 1 or more")
    for option, value in how.options.items():
        if option not in backend.OPTIONS:
            known = ", ".join(f"`{name}`" for name in backend.OPTIONS) or "none"
            hint = suggest(option, backend.OPTIONS) or f"its options: {known}"
            raise RecipeError(f"backend `{name}` has no option `{option}`", hint=hint)
        allowed = backend.OPTIONS[option].values
        if value not in allowed:
            hint = suggest(value, allowed) or f"use {' or '.join(allowed)}"
            raise RecipeError(f"option `{option}` of backend `{name}` is `{value}`", hint=hint)
