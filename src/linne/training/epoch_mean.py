"""The mean of the weights of the last epochs, and running statistics that belong to such weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from linne.data.loading.loader import Batch
from linne.device import Device
from linne.models.loading import load_weights
from linne.training.joined import move_towards
from linne.training.running_statistics import batch_norms


class EpochMean:
    """A copy of a network with the mean of its weights at the end of each of the last epochs.

    Stochastic weight averaging (Izmailov et al. 2018) with a rate that is held meanwhile; without, what is known as
    checkpoint averaging.
    """

    def __init__(self, model: nn.Module, num_epochs: int, total_epochs: int, *, joined: bool = True) -> None:
        """`joined`: whether the device takes many tensors in one call."""
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self._after = total_epochs - num_epochs
        self._num_averaged, self._last, self._joined = 0, 0, joined
        self._mine, self._theirs = ([p.detach() for p in network.parameters()] for network in (self.model, model))

    @property
    def ready(self) -> bool:
        """Whether there is a mean yet."""
        return self._num_averaged > 0

    @torch.no_grad()
    def end_epoch(self, epoch: int, planned: float | None = None) -> None:
        """Take the weights at the end of `epoch`, counted from 1, into the mean, if it is one of the last.

        `planned`: how many epochs of the plan are done: more than `epoch` where training was shortened. An epoch that
        is in it already changes nothing: a run may be cut off while it is validated.
        """
        if (epoch if planned is None else planned) > self._after and epoch > self._last:
            self._num_averaged, self._last = self._num_averaged + 1, epoch
            move_towards(self._mine, self._theirs, 1 / self._num_averaged, joined=self._joined)

    def state(self) -> dict[str, Any]:
        """Return what a restart needs: numbers and tensors, which go on changing."""
        weights = {f"weights.{name}": tensor for name, tensor in self.model.state_dict().items()}
        return {"num_averaged": self._num_averaged, "last": self._last, **weights}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._num_averaged, self._last = state["num_averaged"], state["last"]
        load_weights(self.model, {name: state[f"weights.{name}"] for name in self.model.state_dict()})


@torch.no_grad()
def measure_norms(model: nn.Module, batches: Iterable[Batch], device: Device, precision: str) -> None:
    """Replace the running statistics of `model`'s batch norms by those of `batches`, each counting the same.

    The statistics of averaged weights are not the average of statistics. As `torch.optim.swa_utils.update_bn`, but
    everything else stays in evaluation mode, as it will be used: no dropout, and no random number is drawn.
    """
    norms = batch_norms(model)
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's sign for a mean over all batches
        norm.train()
    for batch in batches:
        with device.autocast(precision):
            model(batch.images_NCHW)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
