"""What this torch itself says of a kind of device: which operators have a kernel there, and what can be recorded."""

from __future__ import annotations

from linne.device.capabilities import Fact, fact, unknown


def has_kernel(operator: str, key: str) -> Fact:
    """Return whether torch holds a kernel of `operator` (`aten::add.Tensor`) for a dispatch key (`MPS`).

    The dispatcher answers without touching a device. Its question is private to torch: without it nothing is known.
    """
    import torch

    ask = getattr(torch._C, "_dispatch_has_kernel_for_dispatch_key", None)
    if ask is None:
        return unknown("this torch does not say which kernels it has")
    try:
        return fact(ask(operator, key), f"asked torch's dispatcher for {operator} on {key}")
    except RuntimeError:  # no such operator in this torch
        return unknown(f"this torch has no operator {operator}")


def fused_optimizers(key: str) -> Fact:
    """Return whether SGD and AdamW have fused kernels for a dispatch key."""
    kernels = [has_kernel(operator, key) for operator in ("aten::_fused_sgd_", "aten::_fused_adamw_")]
    return next((kernel for kernel in kernels if not kernel.holds), kernels[0])


def recorded_activities(*names: str) -> tuple[str, ...]:
    """Return which of `names` the profiler of this torch can record here."""
    from torch.profiler import supported_activities

    there = {activity.name for activity in supported_activities()}  # type: ignore[no-untyped-call]
    return tuple(name for name in names if name in there)
