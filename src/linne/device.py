"""Where the work runs: the one file that names cuda, mps and xpu.

A `Device` is a frozen record of what was found and what it can do; training, evaluation and prediction take every
decision that depends on the hardware from it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from linne.errors import DeviceError, suggest
from linne.host import available_memory_bytes

if TYPE_CHECKING:
    import torch

KINDS = ("cpu", "cuda", "rocm", "mps", "xpu")
AUTO_ORDER = ("cuda", "xpu", "mps")
Mark = Any
"""A point in a device's time: an event of torch's, or seconds on the CPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """One usable device and what training on it gains from."""

    kind: str
    """One of `KINDS`."""
    index: int
    name: str
    """The hardware's own name."""
    reason: str
    """Why this one."""
    precision: str
    """Fastest arithmetic that trains classifiers as well as fp32 here: `fp32` or `bf16`."""
    fused_optimizer: bool
    """Whether the optimiser updates all weights in one kernel; otherwise it loops over them in batches."""
    asynchronous: bool
    """Whether work is queued: copies overlap when the memory is pinned, and reading a value waits."""

    @classmethod
    def pick(cls, text: str = "auto") -> Device:
        """Return the device that `text` names: `auto`, `cpu`, `cuda`, `cuda:1`, `rocm`, `mps`, `xpu`.

        Raises:
            DeviceError: no such kind of device, or it cannot be used here. Nothing falls back to the CPU.
        """
        if text == "auto":
            for kind in AUTO_ORDER:
                if _why_unusable(kind) is None:
                    return _describe(_hip_or(kind), 0, "first accelerator found")
            return _describe("cpu", 0, "no accelerator found by torch")
        kind, _, number = text.partition(":")
        if kind not in KINDS or (number and not number.isdigit()):
            raise DeviceError(
                f"no device `{text}`", hint=suggest(kind, KINDS) or f"use auto or one of {', '.join(KINDS)}"
            )
        problem = _why_unusable(kind)
        if problem is not None:
            raise DeviceError(f"device `{text}` cannot be used: {problem}", hint="use --device cpu to train without it")
        index, count = int(number or 0), _count(kind)
        if index >= count:
            raise DeviceError(f"device `{text}` does not exist: {count} found, numbered from 0")
        return _describe(_hip_or(kind), index, "asked for")

    @property
    def torch_device(self) -> str:
        """What torch calls it: `cpu`, `cuda:0`; ROCm devices are torch's `cuda`."""
        return "cpu" if self.kind == "cpu" else f"{'cuda' if self.kind == 'rocm' else self.kind}:{self.index}"

    @property
    def pins_memory(self) -> bool:
        """Whether copies from page-locked memory, and only they, overlap with computing."""
        return self.kind in ("cuda", "rocm", "xpu")

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return `tensor` on this device, without waiting for the copy where it can overlap."""
        if self.kind == "cpu":
            return tensor
        pinned = tensor.pin_memory() if self.pins_memory and tensor.device.type == "cpu" else tensor
        return pinned.to(self.torch_device, non_blocking=self.asynchronous)

    def mark(self) -> Mark:
        """Return a mark in the device's queue behind what is in it, for `seconds_between`; on the CPU, the time."""
        if self.kind == "cpu":
            return time.perf_counter()
        import torch

        if self.kind == "mps":
            event: Any = torch.mps.Event(enable_timing=True)
        else:
            event = (torch.xpu if self.kind == "xpu" else torch.cuda).Event(enable_timing=True)
        event.record()
        return event

    def seconds_between(self, first: Mark, second: Mark) -> float:
        """Return the time the device took from one mark to the next; waits until it has passed both."""
        if isinstance(first, float):
            return float(second - first)
        second.synchronize()
        return float(first.elapsed_time(second)) / 1000

    def synchronise(self) -> None:
        """Wait until everything queued on the device is done."""
        import torch

        if self.kind in ("cuda", "rocm"):
            torch.cuda.synchronize(self.index)
        elif self.kind == "mps":
            torch.mps.synchronize()
        elif self.kind == "xpu":
            torch.xpu.synchronize(self.index)

    @contextlib.contextmanager
    def autocast(self, precision: str) -> Iterator[None]:
        """Compute in `precision` inside, where the operation allows it; `fp32` changes nothing."""
        import torch

        if precision == "fp32":
            yield
            return
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        with torch.autocast(self.torch_device.partition(":")[0], dtype=dtype):
            yield

    @contextlib.contextmanager
    def full_precision(self) -> Iterator[None]:
        """Multiply fp32 as fp32 inside, whatever the process allows outside.

        cuDNN's default for convolutions, TF32, moves the logits of MobileNetV2 by 4e-3 of their size (its rounding
        imitated on a CPU), which is more than a bundle's canaries may differ.
        """
        import torch

        convolutions, products = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
        torch.backends.cudnn.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32 = convolutions
            torch.set_float32_matmul_precision(products)

    @contextlib.contextmanager
    def repeatable(self, seed: int, num_threads: int | None = None) -> Iterator[None]:
        """Seed torch's generators, and use repeatable kernels and `num_threads` threads inside."""
        import torch

        threads_before, cudnn = torch.get_num_threads(), torch.backends.cudnn
        cudnn_before = cudnn.benchmark, cudnn.deterministic
        torch.manual_seed(seed)
        if num_threads is not None and self.kind == "cpu":
            torch.set_num_threads(num_threads)
        cudnn.benchmark, cudnn.deterministic = False, True  # timing picks another kernel on another day
        try:
            yield
        finally:
            torch.set_num_threads(threads_before)
            cudnn.benchmark, cudnn.deterministic = cudnn_before

    def memory_bytes(self) -> int:
        """Return the free memory that a resident data set and the training share."""
        if self.kind in ("cuda", "rocm"):
            import torch

            return int(torch.cuda.mem_get_info(self.index)[0])
        return available_memory_bytes()


def _why_unusable(kind: str) -> str | None:
    import torch

    if kind == "cpu":
        return None
    if kind in ("cuda", "rocm"):
        hip = bool(torch.version.hip)
        if not torch.cuda.is_available():
            return f"this torch ({torch.__version__}) finds no {'AMD' if hip or kind == 'rocm' else 'NVIDIA'} GPU"
        if kind == "rocm" and not hip:
            return f"this torch ({torch.__version__}) is not a ROCm build"
        return None
    if kind == "mps":
        return None if torch.backends.mps.is_available() else "torch finds no Apple GPU"
    return None if torch.xpu.is_available() else "torch finds no Intel GPU"


def _hip_or(kind: str) -> str:
    """Return `rocm` for what torch calls cuda on a ROCm build."""
    import torch

    return "rocm" if kind == "cuda" and torch.version.hip else kind


def _count(kind: str) -> int:
    import torch

    if kind in ("cuda", "rocm"):
        return torch.cuda.device_count()
    return torch.xpu.device_count() if kind == "xpu" else 1


def _cpu_multiplies_bf16() -> bool:
    """Return whether the processor has instructions for bf16; elsewhere torch emulates it, slower than fp32.

    The checks are private in torch and not in every version: without them the answer is no.
    """
    import torch

    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)


def _describe(kind: str, index: int, reason: str) -> Device:
    import torch

    precision = "fp32"
    if kind in ("cuda", "rocm"):
        name = torch.cuda.get_device_name(index)
        # Emulated bf16 (before Ampere) is slower than fp32.
        precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    elif kind == "xpu":
        name, precision = torch.xpu.get_device_name(index), "bf16"
    elif kind == "mps":
        name = "Apple GPU"
    else:
        name, precision = "CPU", "bf16" if _cpu_multiplies_bf16() else "fp32"
    return Device(
        kind=kind,
        index=index,
        name=name,
        reason=reason,
        precision=precision,
        fused_optimizer=kind != "mps",  # torch 2.4 has no fused kernels there
        asynchronous=kind != "cpu",
    )


def describe_versions() -> dict[str, Any]:
    """Return the versions that decide a result, for a run's record."""
    import platform

    import numpy
    import torch

    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__}
    return {**versions, "platform": platform.platform()}
