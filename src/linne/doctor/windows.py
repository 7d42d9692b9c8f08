"""What to install on Windows, where each vendor's GPU has a PyTorch of its own and DirectML is the past."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from linne.doctor import advice
from linne.doctor.gpu import AMD, INTEL, NVIDIA, Gpu
from linne.doctor.report import Check

if TYPE_CHECKING:
    from linne.doctor.machine import Machine

SERVE_WITH = 'pip install "windowsml[with-ort]"'
"""Windows ML: ONNX Runtime with the providers that Windows keeps. Its catalogue needs Windows 11 24H2."""


def windows_advice(machine: Machine, gpus: Sequence[Gpu]) -> list[Check]:
    """Return what to train and to serve with on Windows by vendor, where nothing says which GPU there is."""
    if machine.system != "Windows" or gpus:
        return []
    builds = {
        vendor: advice.install_torch(machine, Gpu(vendor=vendor), replace=False) for vendor in (AMD, INTEL, NVIDIA)
    }
    builds |= {"others": advice.install_directml(machine), "to serve": SERVE_WITH}
    return [
        Check(
            name="Which packages",
            status="note",
            found="each vendor's GPU has a PyTorch of its own; DirectML is for what has none; serve with Windows ML",
            why="the build of PyTorch that pip takes by itself computes on the CPU of Windows",
            fix="\n".join(f"{vendor}: {'; '.join(build.splitlines())}" for vendor, build in builds.items()),
            details={"builds": builds},
        )
    ]
