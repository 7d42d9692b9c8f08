"""NVIDIA's GPUs."""

from __future__ import annotations

from linne.device.capabilities import Hardware, fact, yes
from linne.device.kinds import torch_cuda
from linne.device.record import Device
from linne.host import nvidia_driver_version

REMEDY = "`linne doctor` says what is missing"

_FIRST_WITH_BF16 = (8, 0)
"""Ampere: "Supports ... Bfloat16", CUDA C++ Programming Guide, "Compute Capability 8.x"; before it torch emulates."""


def why_unusable() -> str | None:
    """Return why there is no NVIDIA GPU to use, or None."""
    import torch

    if torch.version.hip:
        return f"this torch ({torch.__version__}) is built for AMD's GPUs: use --device rocm"
    if torch.version.cuda is None:
        return f"this torch ({torch.__version__}) is built without CUDA"
    return torch_cuda.why_absent("NVIDIA")


def count() -> int:
    """Return how many NVIDIA GPUs torch sees."""
    import torch

    return torch.cuda.device_count()


def describe(index: int, reason: str) -> Device:
    """Return the record of an NVIDIA GPU."""
    import torch

    capability = torch.cuda.get_device_capability(index)
    bf16 = fact(capability >= _FIRST_WITH_BF16, f"compute capability {capability[0]}.{capability[1]}")
    return Device(
        kind="cuda",
        torch_type="cuda",
        index=index,
        name=torch.cuda.get_device_name(index),
        reason=reason,
        precision="bf16" if bf16.holds else "fp32",
        hardware=Hardware(
            vendor="NVIDIA",
            architecture=f"sm_{capability[0]}{capability[1]}",
            runtime=f"CUDA {torch.version.cuda}",
            driver=nvidia_driver_version(),
            memory_bytes=torch_cuda.total_memory_bytes(index),
        ),
        can=torch_cuda.capabilities(bf16, yes("tensor cores read this layout")),
    )
