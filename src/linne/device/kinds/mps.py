"""Apple's GPUs, through Metal."""

from __future__ import annotations

import platform

from linne.device.capabilities import Capabilities, Fact, Hardware, fact, no, unknown, yes
from linne.device.kinds.kernels import fused_optimizers, has_kernel
from linne.device.record import Device

REMEDY = "it needs a Mac with macOS 14 or newer; `linne doctor` says what is found"


def why_unusable() -> str | None:
    """Return why there is no Apple GPU to use, or None."""
    import torch

    if torch.backends.mps.is_available():
        return None
    if not torch.backends.mps.is_built():
        return f"this torch ({torch.__version__}) is built without Metal"
    return "torch finds no Apple GPU that it supports"


def count() -> int:
    """Return 1: torch sees one Apple GPU."""
    return 1


def describe(index: int, reason: str) -> Device:
    """Return the record of the Apple GPU."""
    import torch

    tells_memory = hasattr(torch.mps, "recommended_max_memory")  # not in every version
    return Device(
        kind="mps",
        torch_type="mps",
        index=index,
        name="Apple GPU",
        reason=reason,
        precision="fp32",  # nobody has shown that a narrower one is faster there
        hardware=Hardware(
            vendor="Apple",
            architecture=platform.machine() or None,
            runtime=f"macOS {platform.mac_ver()[0]}",
            memory_bytes=int(torch.mps.recommended_max_memory()) if tells_memory else None,
        ),
        can=_capabilities(_bf16(), tells_memory),
    )


def _capabilities(bf16: Fact, tells_memory: bool) -> Capabilities:
    return Capabilities(
        dtypes={
            "fp64": no("Metal has no double precision: torch raises TypeError"),
            "fp32": yes("Metal has it"),
            "bf16": bf16,
            "fp16": yes("Metal has it"),
        },
        autocast=yes("torch supports it"),
        autocast_dtype="fp16",
        grad_scaler=has_kernel("aten::_amp_foreach_non_finite_check_and_unscale_", "MPS"),
        foreach=yes("a loop over the tensors"),
        fused=fused_optimizers("MPS"),
        pinned_memory=no("the GPU shares the CPU's memory"),
        non_blocking=yes("copies are queued"),
        channels_last=unknown("nobody has shown that it gains"),
        compile_backends=(),  # inductor's Metal backend is young
        synchronise=yes("torch.mps.synchronize"),
        timed_events=yes("torch.mps.Event"),
        memory_statistics=fact(
            tells_memory, f"torch.mps.recommended_max_memory is {'' if tells_memory else 'not '}there"
        ),
        profiler_activities=("CPU",),
        deterministic=no("seeded, but torch promises no deterministic algorithms there"),
    )


def _bf16() -> Fact:
    import torch

    try:
        torch.zeros(1, dtype=torch.bfloat16, device="mps")
    except (TypeError, RuntimeError) as error:  # Macs with Intel's processors, and macOS before 14
        return no(f"a tensor of it raises {type(error).__name__}")
    return yes("a tensor of it was made")
