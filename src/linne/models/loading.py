"""Weights by name into a network that has just those."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import nn


def load_weights(network: nn.Module, weights: Mapping[str, torch.Tensor], *, strict: bool = True) -> None:
    """Copy `weights`, whose names are those of `network` as its code is today, into it.

    A plain mapping has lost the versions that torch keeps beside a state. Without them some networks take it for that
    of older code, or refuse it (torchvision's MNASNet), so the network's own are said.

    Args:
        strict: Whether every weight has to be there, and no other.

    Raises:
        RuntimeError: names or shapes differ.
    """
    stated: OrderedDict[str, torch.Tensor] = OrderedDict(weights)
    stated._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]
    network.load_state_dict(stated, strict=strict)
