"""The processor, which is always there."""

from __future__ import annotations

import platform

from linne.device.capabilities import Capabilities, Fact, Hardware, fact, no, yes
from linne.device.kinds.kernels import fused_optimizers, has_kernel
from linne.device.record import Device
from linne.host import processor_name, total_memory_bytes

REMEDY = "install PyTorch again: `pip install --force-reinstall torch`"


def why_unusable() -> str | None:
    """Return None: torch always computes on the CPU."""
    return None


def count() -> int:
    """Return 1: all cores are one device."""
    return 1


def describe(index: int, reason: str) -> Device:
    """Return the record of the processor."""
    import torch

    bf16 = _multiplies_bf16()
    hardware = Hardware(
        vendor=processor_name(),
        architecture=f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        memory_bytes=total_memory_bytes(),
    )
    return Device(
        kind="cpu",
        torch_type="cpu",
        index=index,
        name="CPU",
        reason=reason,
        precision="bf16" if bf16.holds else "fp32",
        hardware=hardware,
        can=_capabilities(bf16),
    )


def _capabilities(bf16: Fact) -> Capabilities:
    nothing_to_copy = no("what it computes with is in its memory already")
    return Capabilities(
        dtypes={
            "fp64": yes("every processor has it"),
            "fp32": yes("every processor has it"),
            "bf16": bf16,
            "fp16": no("multiplied a hundred times slower than fp32 where it is at all; nothing trains so"),
        },
        autocast=yes("torch supports bf16 there"),
        autocast_dtype="bf16",
        grad_scaler=has_kernel("aten::_amp_foreach_non_finite_check_and_unscale_", "CPU"),
        foreach=yes("a loop in C++ over the tensors"),
        fused=fused_optimizers("CPU"),
        pinned_memory=nothing_to_copy,
        non_blocking=nothing_to_copy,
        channels_last=yes("oneDNN's own layout; docs/benchmarks/training-step.md"),
        compile_backends=("inductor",),
        synchronise=yes("nothing is queued"),
        timed_events=yes("this process's own clock"),
        memory_statistics=yes("the operating system's, with the limits of control groups"),
        profiler_activities=("CPU",),
        deterministic=yes("with the same number of threads"),
    )


def _multiplies_bf16() -> Fact:
    """Return whether the processor has instructions for bf16; elsewhere torch emulates it, slower than fp32.

    The checks are private in torch and not in every version: without them the answer is no.
    """
    import torch

    checks = {"_is_avx512_bf16_supported": "AVX-512 BF16", "_is_amx_tile_supported": "AMX"}
    found = [words for check, words in checks.items() if getattr(torch.cpu, check, lambda: False)()]
    return fact(bool(found), f"it has {' and '.join(found)}" if found else "it has neither AVX-512 BF16 nor AMX")
