"""The network of a bundle, with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from linne.bundle import Bundle
from linne.errors import BundleError
from linne.models import build
from linne.models.loading import load_weights
from linne.models.provider import ModelRef

MAX_NAMES = 3
"""Tensors named in an error."""


def network_of(bundle: Bundle, *, trust_code: bool = False) -> nn.Module:
    """Return the network in evaluation mode on the CPU, not to be trained. Draws no number from the global generator.

    Raises:
        BundleError: model or weights cannot be read, or do not fit each other.
        RecipeError: the model cannot be built here, or is the user's own Python and `trust_code` is not said.
    """
    try:
        ref = ModelRef(**bundle.model)
    except TypeError as error:
        raise BundleError(f"bundle `{bundle.path}`: its model cannot be read: {error}") from error
    weights = bundle.weights()
    with torch.random.fork_rng(devices=[]):  # weights are drawn on the CPU
        network = build(ref, trust_code=trust_code)
    _load(network, bundle, weights)
    return network.eval().requires_grad_(False)


def _load(network: nn.Module, bundle: Bundle, weights: Mapping[str, NDArray[Any]]) -> None:
    """Copy `weights`, the bundle's, into `network`, which must have exactly their names and shapes."""
    expected = network.state_dict()
    problems = [f"no `{name}`" for name in expected if name not in weights]
    problems += [f"unknown `{name}`" for name in weights if name not in expected]
    problems += [
        f"`{name}` is {_shape(weights[name].shape)}, expected {_shape(expected[name].shape)}"
        for name in expected
        if name in weights and tuple(weights[name].shape) != tuple(expected[name].shape)
    ]
    if problems:
        more = f" and {len(problems) - MAX_NAMES} more" if len(problems) > MAX_NAMES else ""
        raise BundleError(
            f"bundle `{bundle.path}`: the weights do not fit its model: {', '.join(problems[:MAX_NAMES])}{more}",
            hint="the model may have changed with the version of its package; `bundle.json` names the one it had",
        )
    load_weights(network, {name: torch.from_numpy(value) for name, value in _writable(weights).items()})


def _writable(weights: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Older safetensors give read-only arrays, which torch warns of."""
    return {name: value if value.flags.writeable else np.array(value) for name, value in weights.items()}


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in shape) or "one number"
