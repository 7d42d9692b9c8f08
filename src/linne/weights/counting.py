"""How many classes a file of weights has, before the network is built for as many."""

from __future__ import annotations

from functools import partial

from torch import nn

from linne import models
from linne.models.checks import shapes_alone
from linne.weights import Weights
from linne.weights.fitting import other_network
from linne.weights.naming import name_for


def num_classes_in(weights: Weights, full_name: str, *, trust_code: bool = False) -> int:
    """Return `weights.num_classes_in` of the same arguments.

    The classifier is what differs in shape between the network for 7 classes and that for 11.
    """
    first, other = (_shapes_alone(full_name, num_classes, trust_code) for num_classes in (7, 11))
    theirs = other.state_dict()
    depend = [name for name, tensor in first.state_dict().items() if tensor.shape != theirs[name].shape]
    found = name_for(first, weights.tensors).tensors
    counts = {found[name].shape[0] for name in depend if name in found and found[name].ndim}
    if len(counts) != 1:
        raise other_network(f"they have no `{depend[-1]}`", weights, full_name)
    return counts.pop()


def _shapes_alone(full_name: str, num_classes: int, trust_code: bool) -> nn.Module:
    """Return the network with shapes and no numbers, where it can be built like that."""
    designed = models.input_defaults(full_name)
    height, width = (designed.height, designed.width) if designed else (32, 32)
    ref = models.describe(
        full_name, num_classes=num_classes, channels=3, height=height, width=width, trust_code=trust_code
    )
    return shapes_alone(partial(models.build, trust_code=trust_code), ref)
