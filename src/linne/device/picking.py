"""From `--device TEXT` to a device that can be used, or to the reason why not."""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

from linne.device.kinds import KINDS, DeviceKind
from linne.device.record import Device
from linne.errors import DeviceError, suggest


def pick(text: str, *, require_accelerator: bool) -> Device:
    """Return the device that `text` names; `Device.pick` says how, and what it raises."""
    device = _first_usable() if text == "auto" else _named(text)
    if require_accelerator and not device.is_accelerator:
        reasons = [f"{kind}: {why_unusable(kind)}" for kind in KINDS if kind != "cpu"]
        found = "the CPU was asked for" if text != "auto" else f"none can be used here: {'; '.join(reasons)}"
        raise DeviceError(f"an accelerator is required, and {found}", hint="`linne doctor` says what is missing")
    return device


def _named(text: str) -> Device:
    kind, _, number = text.partition(":")
    outside = _name_from_outside()
    names = (*KINDS, *([outside] if outside else []))
    if kind not in names or (number and not (number.isascii() and number.isdigit())):
        raise DeviceError(f"no device `{text}`", hint=suggest(kind, names) or f"use auto or one of {', '.join(names)}")
    reason = "asked for"
    if kind == "cuda" and _is_hip():
        kind, reason = "rocm", "asked for; torch calls ROCm cuda"
    problem = why_unusable(kind)
    module = _module_of(kind)
    if problem is not None:
        raise DeviceError(f"device `{text}` cannot be used: {problem}", hint=f"{module.REMEDY}; or --device cpu")
    index, count = int(number or 0), module.count()
    if index >= count:
        raise DeviceError(
            f"device `{text}` does not exist: {count} found, numbered from 0",
            hint=f"use --device {kind}:0" + (f" to {kind}:{count - 1}" if count > 1 else ""),
        )
    return module.describe(index, reason)


def why_unusable(kind: str) -> str | None:
    """Return why no device of `kind` can be used here, or None. A vendor's package that raises anything is a reason."""
    try:
        return _module_of(kind).why_unusable()
    except Exception as error:
        lines = str(error).strip().splitlines() or ["no reason given"]
        return f"asking for it fails with {type(error).__name__}: {lines[0][:200]}"


def count_of(device: Device) -> int:
    """Return how many devices of that kind can be used."""
    return _module_of(device.kind).count()


def _first_usable() -> Device:
    for kind in (kind for kind in KINDS if kind != "cpu"):
        if why_unusable(kind) is None:
            count = _module_of(kind).count()
            others = f"; the first of {count}: {kind}:0 to {kind}:{count - 1}" if count > 1 else ""
            return _module_of(kind).describe(0, f"first accelerator found{others}")
    outside = _name_from_outside()
    if outside is not None and why_unusable(outside) is None:
        return _module_of(outside).describe(0, "first accelerator found")
    return _module_of("cpu").describe(0, "no accelerator found by torch")


def _module_of(kind: str) -> DeviceKind:
    if kind in KINDS:
        return cast(DeviceKind, import_module(KINDS[kind]))
    return cast(DeviceKind, import_module("linne.device.kinds.private_use"))


def _name_from_outside() -> str | None:
    """Return what a backend from outside torch calls itself, where one is loaded that is no kind of its own."""
    from linne.device.kinds.private_use import registered_name

    name = registered_name()
    return None if name in KINDS else name


def _is_hip() -> bool:
    import torch

    return bool(cast(Any, torch.version).hip)
