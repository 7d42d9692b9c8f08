"""Batch norm over the whole batch where several processes share it, as one process would compute it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from linne.errors import RecipeError

Gather = Callable[[torch.Tensor], torch.Tensor]
"""From D numbers of this process to size x D of all processes; gradients flow back to where the numbers are from."""
PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def share_statistics(model: nn.Module, gather: Gather, *, on_accelerator: bool) -> None:
    """Replace the batch norms inside `model` by ones over all processes, with the same weights and buffers.

    torch's own, and timm's around it, know accelerators only.

    Raises:
        RecipeError: a batch norm is of a kind that does something else besides.
    """
    norms = {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
    for name, module in norms.items():
        if type(module) not in PLAIN and not _has_activation(module):
            raise RecipeError(
                f"`{name}` of the network is a {type(module).__name__}, whose statistics cannot be shared",
                hint="--set model.sync_batch_norm=false normalises over each process's part of the batch",
            )
    if on_accelerator:
        _convert(model)
        return
    for name, module in norms.items():
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, SharedBatchNorm(module, gather))


def _convert(model: nn.Module) -> None:
    if "timm" in sys.modules:
        from timm.layers.norm_act import convert_sync_batchnorm

        convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    else:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]


def _has_activation(module: nn.Module) -> bool:
    """Return whether this is one of timm's norms that are followed by an activation in the same module."""
    return type(module).__module__.startswith("timm.") and hasattr(module, "act") and hasattr(module, "drop")


class SharedBatchNorm(_BatchNorm):
    """A batch norm that trains with the mean and variance over all processes' images."""

    def __init__(self, norm: _BatchNorm, gather: Gather) -> None:
        """Takes the place of `norm`, whose parameters, buffers and modules it shares."""
        nn.Module.__init__(self)
        self.__dict__.update(norm.__dict__)
        self._gather = gather

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  torch's name
        """Return the normalised input, after its activation where it has one."""
        output = self._normalised(input) if self.training else super().forward(input)
        act, drop = self._modules.get("act"), self._modules.get("drop")
        return output if act is None or drop is None else act(drop(output))

    def _normalised(self, values: torch.Tensor) -> torch.Tensor:
        over = [dim for dim in range(values.ndim) if dim != 1]
        wide = values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
        var_C, mean_C = torch.var_mean(wide, over, correction=0)
        count = values.numel() // values.shape[1]
        all_PD = self._gather(torch.cat((mean_C.new_tensor([count]), mean_C, var_C)))
        counts_P1, (means_PC, vars_PC) = all_PD[:, :1], all_PD[:, 1:].chunk(2, 1)
        total = counts_P1.sum()
        # The parts' means and variances, put together as Chan, Golub and LeVeque (1983) do: no digits cancel.
        mean_C = (counts_P1 * means_PC).sum(0) / total
        var_C = (counts_P1 * (vars_PC + (means_PC - mean_C) ** 2)).sum(0) / total
        if self.track_running_stats:
            self._track(mean_C.detach(), var_C.detach() * total / (total - 1).clamp_min(1))
        scale_C = (var_C + self.eps).rsqrt()
        if self.weight is not None:
            scale_C = scale_C * self.weight
        shift_C = -mean_C * scale_C if self.bias is None else self.bias - mean_C * scale_C
        shape = [1, -1] + [1] * (values.ndim - 2)
        return (wide * scale_C.view(shape) + shift_C.view(shape)).to(values.dtype)

    @torch.no_grad()
    def _track(self, mean_C: torch.Tensor, var_C: torch.Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share: Any = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean_C, share)
        self.running_var.lerp_(var_C, share)

    def _check_input_dim(self, input: torch.Tensor) -> None:  # noqa: A002  torch's name
        """Take any number of dimensions: what was replaced has checked its own."""
