"""How exactly a run repeats: three levels, what each asks of torch, and what each promises on a device."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from linne.recipe import Determinism

if TYPE_CHECKING:
    from linne.device.record import Device

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextlib.contextmanager
def repeating_kernels(level: Determinism) -> Iterator[None]:
    """Have torch choose its kernels inside as `level` says.

    `seeded` times kernels and takes the fastest, which on another day may be another; `repeatable` takes those of cuDNN
    and MIOpen that repeat; `strict` also refuses every operation of torch that has none.
    """
    import torch

    cudnn = torch.backends.cudnn
    cudnn_before = cudnn.benchmark, cudnn.deterministic
    strict_before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn.benchmark, cudnn.deterministic = level == "seeded", level != "seeded"
    if level == "strict":
        # cuBLAS repeats only with a workspace of its own for each stream; it reads this when it is first used.
        os.environ.setdefault(_WORKSPACE, ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = cudnn_before
        if level == "strict":
            torch.use_deterministic_algorithms(strict_before[0], warn_only=strict_before[1])


def promise(level: Determinism, device: Device, num_threads: int | None) -> str:
    """Return what is promised of the same recipe on the same machine, with the same versions of everything."""
    if level == "seeded":
        return "the same order, augmentation and first weights; kernels may differ, and with them the last digits"
    if not device.is_accelerator:
        threads = (
            "torch's number of threads" if num_threads is None else f"{num_threads} thread" + "s" * (num_threads > 1)
        )
        return f"bit for bit on this machine, with {threads}"
    if not device.can.deterministic.holds:
        return f"seeded, and perhaps not to the bit: {device.can.deterministic.evidence}"
    if level == "strict":
        return "bit for bit on this machine: an operation without a kernel that repeats is an error"
    return "the same kernels; those of torch that add in no fixed order may differ in the last digits"
