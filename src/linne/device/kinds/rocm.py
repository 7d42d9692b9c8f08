"""AMD's GPUs under ROCm, which torch calls `cuda`.

Nothing here asks for a compute capability: torch answers with the number of the architecture, so that gfx90a reads as
9.0 and passes for an NVIDIA H100.
"""

from __future__ import annotations

import os
import re

from linne.device.capabilities import Fact, Hardware, fact, no, yes
from linne.device.kinds import torch_cuda
from linne.device.record import Device
from linne.host import amdgpu_driver_version

REMEDY = "`linne doctor` says what is missing"

_MATRIX_BF16 = re.compile(r"gfx(908|90a|94\d|95\d|11\d\d|115\d|12\d\d)")
"""Architectures with matrix instructions for bf16: MFMA from CDNA (gfx908), WMMA from RDNA 3 (gfx11) on; AMD matrix
instruction calculator, https://github.com/ROCm/amd_matrix_instruction_calculator, read 2026-11-21."""
_LAYOUT_VARIABLE = "PYTORCH_MIOPEN_SUGGEST_NHWC"


def why_unusable() -> str | None:
    """Return why there is no AMD GPU to use, or None."""
    import torch

    if not torch.version.hip:
        return f"this torch ({torch.__version__}) is not a ROCm build"
    return torch_cuda.why_absent("AMD")


def count() -> int:
    """Return how many AMD GPUs torch sees."""
    import torch

    return torch.cuda.device_count()


def describe(index: int, reason: str) -> Device:
    """Return the record of an AMD GPU."""
    import torch

    properties = torch.cuda.get_device_properties(index)
    # `gfx90a:sramecc+:xnack-`: what follows the colon are modes of the same processor.
    gfx = str(getattr(properties, "gcnArchName", "")).partition(":")[0]
    bf16 = _bf16(gfx)
    override = os.environ.get("HSA_OVERRIDE_GFX_VERSION")
    notes = (f"HSA_OVERRIDE_GFX_VERSION={override}: it may be another processor",) if override else ()
    return Device(
        kind="rocm",
        torch_type="cuda",
        index=index,
        name=torch.cuda.get_device_name(index),
        reason=reason,
        precision="bf16" if bf16.holds else "fp32",
        hardware=Hardware(
            vendor="AMD",
            architecture=gfx or None,
            runtime=f"ROCm {torch.version.hip}",
            driver=amdgpu_driver_version(),
            memory_bytes=torch_cuda.total_memory_bytes(index),
            notes=notes,
        ),
        can=torch_cuda.capabilities(bf16, _channels_last()),
    )


def _bf16(gfx: str) -> Fact:
    """Return whether an architecture multiplies bf16; torch says yes of every one, emulated or not."""
    if not gfx:
        return torch_cuda.unknown_speed()
    found = bool(_MATRIX_BF16.fullmatch(gfx))
    return fact(found, f"{gfx} has {'' if found else 'no '}matrix instructions for bf16")


def _channels_last() -> Fact:
    """Return whether MIOpen is allowed to use this layout: it is opt-in."""
    if os.environ.get(_LAYOUT_VARIABLE) == "1":
        return yes(f"{_LAYOUT_VARIABLE}=1")
    return no(f"MIOpen transposes unless {_LAYOUT_VARIABLE}=1 is set")
