"""Steps whose gradients are not finite numbers: seen before they reach the weights, or before a checkpoint does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from linne.errors import CheckFailed
from linne.training.distributed import own_part
from linne.training.joined import total_norm

MOST_IN_A_ROW = 20
"""A bad batch or a spike is over in a few steps; what goes on is a run that has diverged."""


@dataclass(slots=True)
class Skips:
    """How many steps were left out because they were not finite."""

    total: int = 0
    in_a_row: int = 0

    def add(self, step: int) -> None:
        """Count `step`, from 1.

        Raises:
            CheckFailed: there were too many in a row.
        """
        self.total += 1
        self.in_a_row += 1
        if self.in_a_row > MOST_IN_A_ROW:
            raise CheckFailed(f"{self.in_a_row} steps in a row were not finite, the last of them step {step}")


def all_finite(parameters: Iterable[nn.Parameter]) -> bool:
    """Return whether all gradients are finite; waits for the device. A norm beyond fp32 counts as infinite.

    With several processes gradients are the same in all of them by now, and so is the answer.
    """
    norms = [torch.linalg.vector_norm(p.grad) for p in parameters if p.grad is not None]
    return not norms or bool(torch.isfinite(torch.linalg.vector_norm(torch.stack(norms))))


@torch.no_grad()
def marked(loss: torch.Tensor, parameters: Iterable[nn.Parameter], *, joined: bool) -> torch.Tensor:
    """Return `loss`, to the bit, or NaN where a gradient is not finite; nothing waits for the device.

    `joined`: whether the device takes many tensors in one call.
    """
    gradients = [own_part(p.grad) for p in parameters if p.grad is not None]
    return loss + 0.0 * total_norm(gradients, joined=joined) if gradients else loss


@torch.no_grad()
def is_good(losses: list[torch.Tensor], parameters: Iterable[nn.Parameter]) -> bool:
    """Return whether the losses of the latest steps, and the weights, are finite; waits for the device."""
    found = [*losses, *(torch.linalg.vector_norm(own_part(p)) for p in parameters)]
    return not found or bool(torch.isfinite(torch.stack(found)).all())
