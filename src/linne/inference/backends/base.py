"""What every backend offers."""

from __future__ import annotations

from typing import Protocol, Self

from linne.bundle import Bundle
from linne.preprocess import Floats, Resize


class Backend(Protocol):
    """A bundle's network, loaded: one batch of normalised images in, logits out."""

    description: str
    """What runs where, for people: `torch 2.15.0 on cpu`."""
    resize: Resize
    """How images come to the network's size: the reference, or what is quicker and within a level of it."""

    @classmethod
    def why_unavailable(cls) -> str | None:
        """Return why this backend cannot be used on this machine, with what to install, or None."""

    @classmethod
    def why_not(cls, bundle: Bundle) -> str | None:
        """Return why this backend cannot run `bundle` on any machine, as in "it holds a graph", or None."""

    @classmethod
    def open(cls, bundle: Bundle, device: str, *, require_accelerator: bool = False, trust_code: bool = False) -> Self:
        """Return the backend with the bundle's network on `device` (`auto`, `cpu`, `cuda:1`).

        With `require_accelerator` neither the network nor a single operator of it may run on the CPU. With
        `trust_code` the Python file may be run that a bundle of the user's own network names.

        Raises:
            BundleError: the bundle's model cannot be built, or its weights do not fit it.
            DeviceError: the device cannot be used, or is not the accelerator that is required.
        """

    def run(self, images_NCHW: Floats) -> Floats:
        """Return logits N x K, float32, one row an image whatever the others in the batch are."""

    def close(self) -> None:
        """Give the network's memory back; nothing can be run afterwards. A second call does nothing."""
