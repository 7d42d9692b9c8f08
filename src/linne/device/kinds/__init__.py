"""The kinds of device: one module each, with the three functions of `DeviceKind` and the constant `REMEDY`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from linne.device.record import Device

KINDS: Mapping[str, str] = {
    "cpu": "linne.device.kinds.cpu",
    "cuda": "linne.device.kinds.cuda",
    "rocm": "linne.device.kinds.rocm",
    "xpu": "linne.device.kinds.xpu",
    "npu": "linne.device.kinds.npu",
    "mps": "linne.device.kinds.mps",
    "dml": "linne.device.kinds.dml",
}
"""The module of each kind, in the order in which `auto` tries them after the CPU's. Names that other backends gave
themselves are not here: `linne.device.kinds.private_use` finds them."""


class DeviceKind(Protocol):
    """What the module of a kind offers."""

    REMEDY: str
    """What to do where it cannot be used, as a hint."""

    def why_unusable(self) -> str | None:
        """Return why no such device can be used here, or None. May import a vendor's package; may raise anything."""

    def count(self) -> int:
        """Return how many there are, where they can be used."""

    def describe(self, index: int, reason: str) -> Device:
        """Return the record of one of them."""
