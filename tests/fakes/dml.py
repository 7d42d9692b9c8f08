"""DirectML as torch-directml 0.2.5 has it: what it cannot do, what it leaves to the CPU, and where it answers wrongly.

Numbers in brackets are issues of github.com/microsoft/DirectML, all with 0.2.5.dev240914 on torch 2.4.1 unless a
version stands beside them. Which operators are left to the CPU was read from the package's dispatcher
(fixtures/directml); that only the first of them is ever named, by running it.
"""

from __future__ import annotations

import csv
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch

from fakes.device import DeviceTensor, Rules

NO_DOUBLE = "The GPU device does not support Double (Float64) operations!"
"""[438], [430]: of GPUs without it, Intel's for example."""
NO_BFLOAT16 = "Invalid or unsupported data type BFloat16."
"""[688]. Where this raises, the real one writes it down and ends the process."""
NO_INFERENCE_MODE = "Cannot set version_counter for inference tensor"
"""[602], [622]."""
NOT_OURS = (
    'tensor.device().type() == at::DeviceType::PrivateUse1 INTERNAL ASSERT FAILED at "DMLTensor.cpp":31, please report '
    "a bug to PyTorch. unbox expects Dml at::Tensor as inputs"
)
"""[540], [397]."""
FALLS_BACK = (
    "The operator '{}' is not currently supported on the DML backend and will fall back to run on the CPU. This may "
    "have performance implications."
)

_warned: set[bool] = set()


@cache
def fallbacks() -> dict[str, str]:
    """Return the operators without a DML kernel, each with the name that its warning has."""
    path = Path(__file__).parent.parent / "fixtures" / "directml" / "fallbacks.csv"
    with path.open(newline="") as lines:
        return {row["operator"]: row["warned_as"] for row in csv.DictReader(lines)}


def refuse(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise or warn as the real device does before it computes."""
    if torch.is_inference_mode_enabled():
        raise RuntimeError(NO_INFERENCE_MODE)
    if op.name() == "aten::rsub.Scalar":
        raise RuntimeError(NO_DOUBLE)  # `1.0 - x`, not `1.0 + x` [699]; nobody has tried `1 - x`
    warned_as = fallbacks().get(op.name())
    if warned_as is not None and (torch.is_warn_always_enabled() or not _warned):
        _warned.add(True)
        warnings.warn(FALLS_BACK.format(warned_as), UserWarning, stacklevel=2)


def compute(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what the device answers, which is not always right."""
    if op.name() in ("aten::mul.Tensor", "aten::mul_.Tensor"):
        types = {value.dtype for value in args if isinstance(value, torch.Tensor)}
        if torch.bool in types and len(types) > 1:  # [686], [737]: the product of a number and a truth is a truth
            truths = torch.mul(*args).bool()
            return truths if op.name() == "aten::mul.Tensor" else args[0].copy_(truths)
    if op.name() == "aten::nll_loss_backward" and args[4] == 0:  # [739], [740]: reduction="none" has no gradient
        return torch.zeros_like(args[1])
    return op(*args, **kwargs)


def rules(*, float64: bool) -> Rules:
    """Return what a DirectML device does, with or without double precision."""
    unknown = {torch.bfloat16: NO_BFLOAT16} | ({} if float64 else {torch.float64: NO_DOUBLE})
    return Rules(refuse=refuse, compute=compute, mixed=NOT_OURS, unknown_dtypes=unknown)


__all__ = ["FALLS_BACK", "NO_DOUBLE", "NO_INFERENCE_MODE", "DeviceTensor", "compute", "fallbacks", "refuse", "rules"]
