"""What a program that MIGraphX has compiled is tied to: kept beside it, and compared before it is loaded.

MIGraphX itself only warns where the version is another one, and has nothing that tells for which GPU a file was made.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from linne.errors import BundleError
from linne.graphs.migraphx_program import TARGETS, UNKNOWN, Target
from linne.host import first_amd_architecture


@dataclass(frozen=True, kw_only=True, slots=True)
class CompiledFor:
    """For what a program was compiled, and how."""

    migraphx: str
    """Its version, as `loaded_version` has it."""
    target: Target
    architecture: str
    """As `architecture_of` has it."""
    shape: tuple[int, ...]
    """Of the images that it takes, with how many of them: N x C x H x W."""
    exhaustive_tune: bool

    @property
    def batch_size(self) -> int:
        """How many images it takes at once."""
        return self.shape[0]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {**asdict(self), "shape": list(self.shape)}

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Return what `to_dict` wrote.

        Raises:
            BundleError: it is something else.
        """
        texts, kinds = ("migraphx", "target", "architecture"), {"shape": list, "exhaustive_tune": bool}
        sound = isinstance(values, Mapping) and values.keys() == {*texts, *kinds}
        sound = sound and all(isinstance(values[name], str) and values[name].isprintable() for name in texts)
        sound = sound and all(isinstance(values[name], kind) for name, kind in kinds.items())
        sound = sound and values["target"] in TARGETS.values() and len(values["shape"]) == 4
        if not sound or not all(type(size) is int and size >= 1 for size in values["shape"]):
            raise BundleError("its `export.json` does not say for what the program was compiled")
        return cls(**{**values, "shape": tuple(values["shape"])})

    def why_not_here(self, version: str, target: Target) -> str | None:
        """Return why MIGraphX of this version cannot run it on the target of this machine, or None."""
        here = architecture_of(target)
        if self.target != target:
            return f"it was compiled for MIGraphX's target `{self.target}`, not for `{target}`"
        if UNKNOWN in version or UNKNOWN in here or not version:
            return f"MIGraphX {version or UNKNOWN} on {here} cannot be told from another"
        if self.migraphx != version:
            return f"it was compiled by MIGraphX {self.migraphx}, and here is MIGraphX {version}"
        if self.architecture != here:
            return f"it was compiled for {self.architecture}, and here is {here}"
        return None


def architecture_of(target: Target) -> str:
    """Return what programs for `target` run on here: `gfx942` or, of the reference, the processor: `x86_64`."""
    return (first_amd_architecture() if target == "gpu" else platform.machine()) or f"{UNKNOWN} {target}"
