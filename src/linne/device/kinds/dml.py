"""DirectML: any GPU of Windows, through torch-directml, which Microsoft maintains no longer.

It is built for torch 2.4.1 and registers itself as PrivateUse1 without a name. Whatever narrows or joins operations is
off: it has no kernel for the `_foreach_` and `_fused_` optimisers or for what a GradScaler needs, and its autocast
changes nothing (its dispatch table, version 0.2.5, read on 2026-11-21).
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from linne.device.capabilities import Capabilities, Hardware, fact, no, unknown, yes
from linne.device.record import Device

REMEDY = "see docs/guides/install.md, `DirectML`: it needs an environment of its own, with torch 2.4.1"


def why_unusable() -> str | None:
    """Return why DirectML finds no GPU, or None; the package itself raises OSError outside Windows."""
    if find_spec("torch_directml") is None:
        return "torch-directml is not installed"
    directml = import_module("torch_directml")
    if not directml.is_available():
        return "torch-directml finds no GPU with DirectX 12"
    return None if directml.device_count() > 0 else "torch-directml finds no device"


def count() -> int:
    """Return how many devices DirectML sees."""
    return int(import_module("torch_directml").device_count())


def describe(index: int, reason: str) -> Device:
    """Return the record of a GPU under DirectML."""
    directml: Any = import_module("torch_directml")
    return Device(
        kind="dml",
        torch_type=directml.device(index).type,
        index=index,
        name=str(directml.device_name(index)).strip("\0 ") or "DirectML device",
        reason=reason,
        precision="fp32",
        hardware=Hardware(
            runtime=f"torch-directml {version('torch-directml')}",
            notes=("Microsoft maintains torch-directml no longer; it trains in fp32 alone",),
        ),
        can=_capabilities(directml, index),
    )


def _capabilities(directml: Any, index: int) -> Capabilities:
    no_kernel = "torch-directml 0.2.5 has no kernel for it"
    fp64 = bool(directml.has_float64_support(index))
    return Capabilities(
        dtypes={
            "fp64": fact(fp64, f"has_float64_support({index}) is {fp64}"),
            "fp32": yes("DirectML has it"),
            "bf16": no(no_kernel),
            "fp16": no("without autocast and a scaler it does not train"),
        },
        autocast=no("it changes nothing there: no operation has a kernel for it"),
        autocast_dtype=None,
        grad_scaler=no(no_kernel),
        foreach=no("it runs on the CPU there"),
        fused=no(no_kernel),
        pinned_memory=no("it has no page-locked memory"),
        non_blocking=no("copies wait"),
        channels_last=unknown("nobody has shown that it gains"),
        compile_backends=(),
        synchronise=no("it has no such call: reading a number waits"),
        timed_events=no("it has no events"),
        memory_statistics=no("it tells what is used, not what is free"),
        profiler_activities=("CPU",),
        deterministic=no("it draws its random numbers on the CPU, and promises no order of sums"),
    )
