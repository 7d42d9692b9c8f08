"""Whole machines without their hardware, and the report of the doctor on each.

`scripts/write_doctor_reports` writes the reports to `tests/golden/doctor`.
"""

from __future__ import annotations

from pathlib import Path

from linne.doctor import examine
from machines import amd, nvidia, others
from machines.build import Spec, build

MACHINES: dict[str, Spec] = {
    "mi300x": amd.MI300X_GOOD,
    "mi300x-bad-versions": amd.MI300X_BAD,
    "mi210-pair": amd.MI210_PAIR,
    "laptop-780m": amd.LAPTOP_780M_PLAIN,
    "laptop-780m-disguised": amd.LAPTOP_780M,
    "strix-halo": amd.STRIX_HALO,
    "rx7900-not-permitted": amd.RX7900_SHUT,
    "rx7900-no-torch": amd.AMD_WITHOUT_TORCH,
    "container-without-kfd": amd.CONTAINER_WITHOUT_KFD,
    "h200": nvidia.H200_GOOD,
    "nvidia-no-driver": nvidia.NO_DRIVER,
    "nvidia-old-driver": nvidia.OLD_DRIVER,
    "cuda-wheel-no-gpu": nvidia.CPU_BOX,
    "wsl-nvidia": nvidia.WSL_NVIDIA,
    "intel-arc": others.INTEL_ARC,
    "apple-m4": others.APPLE,
    "windows-directml": others.DIRECTML,
    "windows-directml-wrong-torch": others.DIRECTML_BAD,
    "nothing": others.NOTHING,
}


def report(name: str, folder: Path) -> str:
    """Return what is typed and seen on a machine: the command, the report and the exit code."""
    spec = MACHINES[name]
    found = examine(build(spec, folder), devices=spec.devices, limit_s=spec.limit_s)
    asked = "".join(f" --device {device}" for device in spec.devices if device != "auto")
    return f"$ linne doctor{asked}\n{found.to_text()}$ echo $?\n{found.exit_code}\n"
