"""What CUDA and ROCm share: torch calls both `cuda`, and answers for both through `torch.cuda`."""

from __future__ import annotations

from linne.device.capabilities import Capabilities, Fact, unknown, yes
from linne.device.kinds.kernels import fused_optimizers, recorded_activities


def why_absent(vendor: str) -> str | None:
    """Return why `torch.cuda` finds no GPU, in torch's own words where it gives any, or None."""
    import torch

    if torch.cuda.is_available() and torch.cuda.device_count() > 0:
        return None
    said = ""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:  # without a driver, with one too old, with no device
        said = str(error).strip().partition(". ")[0].partition("\n")[0].rstrip(".")
    finds = f"this torch ({torch.__version__}) finds no {vendor} GPU"
    return f"{finds}: {said[:1].lower()}{said[1:]}" if said else finds


def capabilities(bf16: Fact, channels_last: Fact) -> Capabilities:
    """Return what a GPU of either vendor can do."""
    return Capabilities(
        dtypes={
            "fp64": yes("torch's kernels, on consumer cards at a fraction of the speed"),
            "fp32": yes("every GPU that torch supports has it"),
            "bf16": bf16,
            "fp16": yes("every GPU that torch supports has it"),
        },
        autocast=yes("torch supports it"),
        autocast_dtype="fp16",
        grad_scaler=yes("torch supports it"),
        foreach=yes("one kernel over many tensors"),
        fused=fused_optimizers("CUDA"),
        pinned_memory=yes("torch allocates it"),
        non_blocking=yes("copies are queued"),
        channels_last=channels_last,
        compile_backends=("inductor",),
        synchronise=yes("torch.cuda.synchronize"),
        timed_events=yes("torch.cuda.Event"),
        memory_statistics=yes("torch.cuda.mem_get_info"),
        profiler_activities=("CPU", *recorded_activities("CUDA")),
        deterministic=yes("torch.use_deterministic_algorithms, where the operation has such a kernel"),
    )


def total_memory_bytes(index: int) -> int:
    """Return all the memory of a GPU."""
    import torch

    return int(torch.cuda.get_device_properties(index).total_memory)


def unknown_speed() -> Fact:
    """Return the fact that nobody measured bf16 on such a GPU."""
    return unknown("nobody has said whether it multiplies bf16 itself")
