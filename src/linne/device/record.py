"""The record of one device, and what is done on it in the same words whatever it is."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from linne.device.capabilities import Capabilities, Hardware
from linne.device.repeating import repeating_kernels
from linne.host import available_memory_bytes
from linne.recipe import Determinism, Precision

if TYPE_CHECKING:
    import torch

Mark = Any
"""A point in a device's time: an event of torch's, or seconds of this process's clock."""

_UNTOLD_MEMORY_BYTES = 2**30
"""What may be used of a device that does not say how much it has: half of what the smallest cards have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """One usable device: what it is, why it was picked, and what it can do."""

    kind: str
    """One of `linne.device.KINDS`, or the name that a backend from outside torch gave itself."""
    torch_type: str
    """What torch calls the kind: ROCm devices are torch's `cuda`."""
    index: int
    name: str
    """The hardware's own name."""
    reason: str
    """Why this one."""
    precision: Precision
    """Fastest arithmetic that trains classifiers as well as fp32 here."""
    hardware: Hardware
    can: Capabilities

    @classmethod
    def pick(cls, text: str = "auto", *, require_accelerator: bool = False) -> Device:
        """Return the device that `text` names: `auto`, `cpu`, `cuda`, `cuda:1`, `rocm`, `xpu`, `npu`, `mps`, `dml`.

        Raises:
            DeviceError: no such kind of device, or it cannot be used here, or it is the CPU where an accelerator is
                required. Nothing falls back to the CPU.
        """
        from linne.device.picking import pick  # which describes devices by this class

        return pick(text, require_accelerator=require_accelerator)

    @property
    def address(self) -> str:
        """What `--device` takes for exactly this one: `cpu`, `cuda:0`, `rocm:1`."""
        return "cpu" if self.kind == "cpu" else f"{self.kind}:{self.index}"

    @property
    def torch_device(self) -> str:
        """What torch calls it: `cpu`, `cuda:0`, `privateuseone:0`."""
        return "cpu" if self.kind == "cpu" else f"{self.torch_type}:{self.index}"

    @property
    def is_accelerator(self) -> bool:
        """Whether it is anything but the CPU."""
        return self.kind != "cpu"

    @property
    def pins_memory(self) -> bool:
        """Whether copies are worth page-locked memory."""
        return self.can.pinned_memory.holds

    @property
    def optimizer_speed(self) -> dict[str, bool]:
        """The arguments with which an optimiser of torch's is fastest here, all of them named.

        Left to itself torch takes `foreach` for every backend from outside, where it may run on the CPU instead.
        """
        fused = self.can.fused.holds
        return {"fused": fused, "foreach": not fused and self.can.foreach.holds}

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return `tensor` on this device, without waiting for the copy where it can overlap."""
        if not self.is_accelerator:
            return tensor
        pinned = tensor.pin_memory() if self.pins_memory and tensor.device.type == "cpu" else tensor
        return pinned.to(self.torch_device, non_blocking=self.can.non_blocking.holds)

    def mark(self) -> Mark:
        """Return a mark in the device's queue behind what is in it, for `seconds_between`.

        Without the device's own clock it is the time at which this process came here.
        """
        if not self.is_accelerator or not self.can.timed_events.holds:
            return time.perf_counter()
        event = self._module().Event(enable_timing=True)
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
        if not self.is_accelerator:
            return
        if not self.can.synchronise.holds:
            import torch

            torch.zeros((), device=self.torch_device).item()  # the queue is in order: a number read is the last
        elif self.kind == "mps":
            self._module().synchronize()
        else:
            self._module().synchronize(self.index)

    @contextlib.contextmanager
    def autocast(self, precision: str) -> Iterator[None]:
        """Compute in `precision` inside, where the operation allows it; `fp32` changes nothing."""
        import torch

        if precision == "fp32":
            yield
            return
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        with torch.autocast(self.torch_type, dtype=dtype):
            yield

    def grad_scaler(self) -> torch.amp.GradScaler:
        """Return what scales a loss against underflow in fp16."""
        import torch

        return torch.amp.GradScaler(self.torch_type)

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
    def repeatable(
        self, seed: int, num_threads: int | None = None, determinism: Determinism = "repeatable"
    ) -> Iterator[None]:
        """Seed torch's generators inside, with `num_threads` threads and kernels as `linne.device.repeating` says."""
        import torch

        threads_before = torch.get_num_threads()
        torch.manual_seed(seed)
        if num_threads is not None and not self.is_accelerator:
            torch.set_num_threads(num_threads)
        try:
            with repeating_kernels(determinism):
                yield
        finally:
            torch.set_num_threads(threads_before)

    def select(self) -> None:
        """Make it the one that is meant where this process names a kind and no number, such as `cuda`."""
        set_device = getattr(self._module(), "set_device", None) if self.is_accelerator else None
        if set_device is not None:  # MPS has one device, and no way to choose
            set_device(self.index)

    def seed(self, number: int) -> None:
        """Seed the device's own generator; the CPU has none, its is torch's."""
        seed = getattr(self._module(), "manual_seed", None) if self.is_accelerator else None
        if seed is not None:
            seed(number)

    def random_state(self) -> torch.Tensor | None:
        """Return the state of the device's own generator; None where it has none, as the CPU, whose is torch's."""
        ask = getattr(self._module(), "get_rng_state", None) if self.is_accelerator else None
        if ask is None:
            return None
        state: torch.Tensor = ask() if self.kind == "mps" else ask(self.torch_device)
        return state

    def set_random_state(self, state: torch.Tensor) -> None:
        """Give the device's generator a state that `random_state` returned."""
        if self.kind == "mps":
            self._module().set_rng_state(state)
        elif self.is_accelerator and hasattr(self._module(), "set_rng_state"):
            self._module().set_rng_state(state, self.torch_device)

    def release_memory(self) -> None:
        """Give back what torch holds of the device's memory for later, where it holds any."""
        empty = getattr(self._module(), "empty_cache", None)
        if self.is_accelerator and empty is not None:
            empty()

    def memory_bytes(self) -> int:
        """Return the free memory that a resident data set and the training share; a gigabyte where nothing says it."""
        if not self.is_accelerator:
            return available_memory_bytes()
        if not self.can.memory_statistics.holds:
            return min(available_memory_bytes(), self.hardware.memory_bytes or _UNTOLD_MEMORY_BYTES)
        if self.kind == "mps":  # shared with the CPU, of which the GPU may hold a part
            most = int(self._module().recommended_max_memory())
            return min(available_memory_bytes(), most - int(self._module().driver_allocated_memory()))
        return int(self._module().mem_get_info(self.index)[0])

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values, for a run's record and `linne doctor --json`."""
        return {**asdict(self), "address": self.address, "can": self.can.to_dict()}

    def _module(self) -> Any:
        """Return torch's module for the kind, such as `torch.xpu`; backends from outside register theirs there."""
        import torch

        return getattr(torch, self.torch_type)


def describe_versions() -> dict[str, Any]:
    """Return the versions that decide a result, for a run's record."""
    import platform

    import numpy
    import torch

    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__}
    return {**versions, "platform": platform.platform()}
