"""Devices from outside torch: backends that register themselves as PrivateUse1 under a name of their own.

What they can do is asked of the module that they registered (`torch.NAME`), by the names that torch's tutorial
"Facilitating New Backend Integration by PrivateUse1" gives; what it does not offer, they cannot.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any

from linne.device.capabilities import Capabilities, Fact, Hardware, fact, no, unknown, yes
from linne.device.kinds.kernels import fused_optimizers
from linne.device.record import Device

REMEDY = "its package has to be imported or installed so that torch loads it; `linne doctor` says what is found"

_UNNAMED = "privateuseone"
"""What torch calls such a backend until it is renamed. DirectML keeps it, and is a kind of its own."""


def registered_name() -> str | None:
    """Return what the backend from outside is called; None where none is loaded."""
    import torch

    ask = getattr(torch._C, "_get_privateuse1_backend_name", None)
    name = str(ask()) if ask is not None else _UNNAMED
    return None if name == _UNNAMED else name


def why_unusable() -> str | None:
    """Return why the backend from outside cannot be used, or None."""
    import torch

    name = registered_name()
    if name is None:
        return "no backend from outside torch is loaded"
    module = getattr(torch, name, None)
    if module is None:
        return f"the backend `{name}` registered no module torch.{name}"
    if not module.is_available():
        return f"torch.{name} says that it is not available"
    return None if module.device_count() > 0 else f"torch.{name} finds no device"


def count() -> int:
    """Return how many devices the backend has."""
    return int(_module().device_count())


def describe(index: int, reason: str) -> Device:
    """Return the record of one of the backend's devices."""
    name, module = str(registered_name()), _module()
    called = getattr(module, "get_device_name", None)
    autocast_dtypes = _autocast_dtypes(module)
    bf16 = _bf16(module, autocast_dtypes)
    return Device(
        kind=name,
        torch_type=name,
        index=index,
        name=str(called(index)) if called is not None else f"{name} device",
        reason=reason,
        precision="bf16" if bf16.holds else "fp32",
        hardware=Hardware(runtime=_runtime(name), memory_bytes=_total_memory(module, index)),
        can=_capabilities(name, module, bf16, autocast_dtypes),
    )


def _capabilities(name: str, module: Any, bf16: Fact, autocast_dtypes: tuple[str, ...]) -> Capabilities:
    def offers(*attributes: str) -> Fact:
        missing = [attribute for attribute in attributes if not hasattr(module, attribute)]
        return fact(not missing, f"torch.{name} has {'no ' + missing[0] if missing else attributes[0]}")

    pins = offers("is_pinned")  # unknown: nothing says so before a copy is tried
    return Capabilities(
        dtypes={
            "fp64": unknown("nothing says so"),
            "fp32": yes("torch asks it of every backend"),
            "bf16": bf16,
            "fp16": fact("fp16" in autocast_dtypes, f"torch.{name}.get_amp_supported_dtype"),
        },
        autocast=fact(bool(autocast_dtypes), f"torch.{name}.get_amp_supported_dtype names {autocast_dtypes or 'none'}"),
        autocast_dtype=autocast_dtypes[0] if autocast_dtypes else None,
        grad_scaler=unknown("nothing says so"),
        # torch takes it for granted for PrivateUse1, and DirectML showed that it may run on the CPU.
        foreach=unknown("nothing says so"),
        fused=fused_optimizers("PrivateUse1"),
        pinned_memory=unknown("nothing says so") if not pins.holds else pins,
        non_blocking=offers("Stream", "synchronize"),
        channels_last=unknown("nothing says so"),
        compile_backends=(),
        synchronise=offers("synchronize"),
        timed_events=offers("Event", "synchronize"),
        memory_statistics=offers("mem_get_info"),
        profiler_activities=("CPU",),
        deterministic=no("seeded, but torch promises no deterministic algorithms there"),
    )


def _module() -> Any:
    import torch

    return getattr(torch, str(registered_name()))


def _autocast_dtypes(module: Any) -> tuple[str, ...]:
    import torch

    ask = getattr(module, "get_amp_supported_dtype", None)
    names = {torch.bfloat16: "bf16", torch.float16: "fp16"}
    return tuple(names[dtype] for dtype in (ask() if ask is not None else ()) if dtype in names)


def _bf16(module: Any, autocast_dtypes: tuple[str, ...]) -> Fact:
    ask = getattr(module, "is_bf16_supported", None)
    if ask is None:
        return unknown("the backend does not say is_bf16_supported")
    return fact(bool(ask()) and "bf16" in autocast_dtypes, f"is_bf16_supported is {ask()}")


def _runtime(name: str) -> str | None:
    package = f"torch_{name}"
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return None


def _total_memory(module: Any, index: int) -> int | None:
    ask = getattr(module, "mem_get_info", None)
    return int(ask(index)[1]) if ask is not None else None
