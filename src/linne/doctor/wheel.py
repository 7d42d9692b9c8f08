"""Whether PyTorch's wheel holds code for the GPUs of the machine: one that does not fails at its first operation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from linne.child import Heard, first_event
from linne.doctor import advice
from linne.doctor.compatibility import Answer, arch_in_wheel
from linne.doctor.gpu import AMD, NVIDIA, Gpu
from linne.doctor.report import Check, Status

if TYPE_CHECKING:
    from linne.doctor.machine import Machine

NAME = "GPU architecture in this wheel"

_WHY = "PyTorch lists a GPU that it holds no code for, and fails at the first operation on it"
_OVERRIDE = "HSA_OVERRIDE_GFX_VERSION"


def architecture_checks(machine: Machine, children: Sequence[Heard], gpus: Sequence[Gpu]) -> list[Check]:
    """Return a check for each architecture of the GPUs that the wheel is for.

    Those are known from what was found on the machine (`gpus`) and from what torch said in `children`. A wheel for CPUs
    has no list, and a GPU of another vendor than the wheel's is said elsewhere.
    """
    wheel = next((event for heard in children if (event := first_event(heard, "wheel"))), {})
    told = wheel.get("architectures")
    listed = [item for item in told if isinstance(item, str)] if isinstance(told, list) else []
    if not listed:
        return []
    family = "gfx" if listed[0].startswith("gfx") else "sm_"
    said = [(first_event(heard, "device") or {}).get("architecture") for heard in children]
    archs = [arch for arch in (*(gpu.arch for gpu in gpus), *said) if isinstance(arch, str)]
    found = dict.fromkeys(arch for arch in archs if arch.startswith(family))
    answers = {arch: arch_in_wheel(arch, listed) for arch in found}
    # Beside one that it holds code for, such as a card's, another may well be a processor's own graphics.
    lacking: Status = "warning" if any(answer.verdict == "yes" for answer in answers.values()) else "bad"
    return [_check(machine, arch, answer, listed, lacking) for arch, answer in answers.items()]


def _check(machine: Machine, arch: str, answer: Answer, listed: Sequence[str], lacking: Status) -> Check:
    details = {"architecture": arch, "wheel": list(listed)}
    if answer.verdict != "no":
        status: Status = "good" if answer.verdict == "yes" else "unknown"
        return Check(name=NAME, status=status, found=answer.reason, details=details)
    overrides = sorted(f"{key}={value}" for key, value in machine.environ.items() if key.startswith(_OVERRIDE))
    disguise = f"; {' '.join(overrides)} has it run as another" if arch.startswith("gfx") and overrides else ""
    found = f"{answer.reason}, only for {', '.join(listed)}{disguise}"
    return Check(name=NAME, status=lacking, found=found, why=_WHY, fix=_fix(machine, arch), details=details)


def _fix(machine: Machine, arch: str) -> str:
    vendor = AMD if arch.startswith("gfx") else NVIDIA
    build = advice.install_torch(machine, Gpu(vendor=vendor, arch=arch), replace=True)
    return build or f"use --device cpu: no build of PyTorch with code for {arch} is known"
