"""Huawei's Ascend NPUs: torch_npu, which registers itself from outside torch as `npu`."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from linne.device.kinds import private_use
from linne.device.kinds.private_use import count, describe

__all__ = ["REMEDY", "count", "describe", "why_unusable"]

REMEDY = "`pip install torch-npu` of the same version as torch, beside Ascend's CANN"


def why_unusable() -> str | None:
    """Return why there is no NPU to use, or None; imports torch_npu where importing torch did not."""
    if private_use.registered_name() != "npu":
        if find_spec("torch_npu") is None:
            return "torch-npu is not installed"
        import_module("torch_npu")  # torch 2.5 and newer do this themselves
        if private_use.registered_name() != "npu":
            return "torch_npu was imported, and registered no device"
    return private_use.why_unusable()
