"""Intel's GPUs, in torch itself since 2.4."""

from __future__ import annotations

from typing import Any

from linne.device.capabilities import Capabilities, Fact, Hardware, fact, no, unknown, yes
from linne.device.kinds.kernels import fused_optimizers, recorded_activities
from linne.device.record import Device

REMEDY = "`linne doctor` says what is missing"


def why_unusable() -> str | None:
    """Return why there is no Intel GPU to use, or None."""
    import torch

    if torch.xpu.is_available() and torch.xpu.device_count() > 0:
        return None
    built = getattr(torch.version, "xpu", None)
    return f"this torch ({torch.__version__}) " + ("finds no Intel GPU" if built else "is not an XPU build")


def count() -> int:
    """Return how many Intel GPUs torch sees."""
    import torch

    return torch.xpu.device_count()


def describe(index: int, reason: str) -> Device:
    """Return the record of an Intel GPU."""
    import torch

    properties: Any = torch.xpu.get_device_properties(index)
    bf16 = _property(properties, "has_bfloat16_conversions")
    version = getattr(torch.version, "xpu", None)
    return Device(
        kind="xpu",
        torch_type="xpu",
        index=index,
        name=torch.xpu.get_device_name(index),
        reason=reason,
        precision="bf16" if bf16.holds else "fp32",
        hardware=Hardware(
            vendor="Intel",
            architecture=_text(properties, "architecture"),
            runtime=f"SYCL {version}" if version else None,
            driver=_text(properties, "driver_version"),
            memory_bytes=int(getattr(properties, "total_memory", 0)) or None,
        ),
        can=_capabilities(bf16, _property(properties, "has_fp64"), _property(properties, "has_fp16")),
    )


def _capabilities(bf16: Fact, fp64: Fact, fp16: Fact) -> Capabilities:
    import torch

    tells_memory = hasattr(torch.xpu, "mem_get_info")
    return Capabilities(
        dtypes={"fp64": fp64, "fp32": yes("every Intel GPU has it"), "bf16": bf16, "fp16": fp16},
        autocast=yes("torch supports it"),
        autocast_dtype="fp16",
        # GradScaler inverts the scale in fp64, which Arc cards do not have.
        grad_scaler=Fact(fp64.answer, f"torch inverts the scale in fp64, and {fp64.evidence}"),
        foreach=yes("one kernel over many tensors"),
        fused=fused_optimizers("XPU"),
        pinned_memory=yes("torch allocates it"),
        non_blocking=yes("copies are queued"),
        channels_last=yes("oneDNN's own layout"),
        compile_backends=("inductor",),
        synchronise=yes("torch.xpu.synchronize"),
        timed_events=yes("torch.xpu.Event"),
        memory_statistics=fact(tells_memory, f"torch.xpu.mem_get_info is {'' if tells_memory else 'not '}there"),
        profiler_activities=("CPU", *recorded_activities("XPU")),
        deterministic=no("seeded, but torch promises no deterministic algorithms there"),
    )


def _property(properties: Any, name: str) -> Fact:
    value = getattr(properties, name, None)
    return unknown(f"the driver does not say {name}") if value is None else fact(bool(value), f"{name} is {value}")


def _text(properties: Any, name: str) -> str | None:
    value = getattr(properties, name, None)
    return None if value is None else str(value)
