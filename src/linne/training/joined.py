"""Work on many tensors: in one call where the device has kernels for that, and else on one after the other.

`joined` is what `device.can.foreach` says. Without it torch's own functions would be called all the same for devices
from outside torch, which then compute on the CPU.
"""

from __future__ import annotations

import torch


def move_towards(mine: list[torch.Tensor], theirs: list[torch.Tensor], share: float, *, joined: bool) -> None:
    """Set each of `mine` to (1 - share) * mine + share * theirs."""
    if joined:
        torch._foreach_lerp_(mine, theirs, share)
        return
    for one, other in zip(mine, theirs, strict=True):
        one.mul_(1 - share).add_(other, alpha=share)  # DirectML has no kernel for lerp


def copy_into(targets: list[torch.Tensor], sources: list[torch.Tensor], *, joined: bool) -> None:
    """Set each of `targets` to its source."""
    if joined:
        torch._foreach_copy_(targets, sources)
        return
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


def total_norm(tensors: list[torch.Tensor], *, joined: bool) -> torch.Tensor:
    """Return the Euclidean norm of all tensors together."""
    norms = torch._foreach_norm(tensors) if joined else [torch.linalg.vector_norm(t) for t in tensors]
    length: torch.Tensor = torch.linalg.vector_norm(torch.stack(list(norms)))
    return length


def add_scaled(targets: list[torch.Tensor], steps: list[torch.Tensor], scale: torch.Tensor, *, joined: bool) -> None:
    """Add `scale * step` to each of `targets`; changes the steps."""
    if joined:
        torch._foreach_mul_(steps, scale)
        torch._foreach_add_(targets, steps)
        return
    for target, step in zip(targets, steps, strict=True):
        target.add_(step.mul_(scale))
