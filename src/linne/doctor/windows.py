"""What to install on Windows, where each vendor's GPU has a PyTorch of its own and DirectML is the past."""

from __future__ import annotations

from typing import TYPE_CHECKING

from linne.doctor.report import Check

if TYPE_CHECKING:
    from linne.doctor.machine import Machine

TRAIN_WITH = {
    "AMD": "PyTorch with ROCm: https://rocm.docs.amd.com/projects/radeon-ryzen/en/latest/docs/install/installrad/"
    "windows/install-pytorch.html",
    "Intel": "pip install torch torchvision --index-url https://download.pytorch.org/whl/xpu",
    "NVIDIA": "PyTorch with CUDA: https://pytorch.org/get-started/locally/",
    "others": "pip install torch-directml, in an environment of its own with Python 3.12 or older",
}
"""By the maker of the GPU, as on 2026-11-21. AMD's page asks for Python 3.12. torch-directml's last release, of
2024-09-14, pins torch 2.4.1, has no wheel for Python 3.13, and trains in float32 alone; its makers call DirectML
maintained and no longer developed, and Windows ML its successor: https://github.com/microsoft/DirectML, README."""
SERVE_WITH = 'pip install "windowsml[with-ort]"'
"""Windows ML: ONNX Runtime with the providers that Windows keeps. Its catalogue needs Windows 11 24H2."""


def windows_advice(machine: Machine) -> list[Check]:
    """Return what to train and to serve with on Windows, by vendor; nothing elsewhere."""
    if machine.system != "Windows":
        return []
    lines = [f"{vendor}: {what}" for vendor, what in TRAIN_WITH.items()]
    return [
        Check(
            name="Which packages",
            status="note",
            found="each vendor's GPU has a PyTorch of its own; DirectML is for what has none; serve with Windows ML",
            why="the build of PyTorch that pip takes by itself computes on the CPU of Windows",
            fix="\n".join([*lines, f"to serve: {SERVE_WITH}"]),
            details={"train_with": TRAIN_WITH, "serve_with": SERVE_WITH, "as_of": "2026-11-21"},
        )
    ]
