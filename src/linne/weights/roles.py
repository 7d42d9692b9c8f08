"""Which of a network's tensors are its classifier and its first layer, and which it works out by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from linne.models.layers import HEADS, auxiliary_of, layers_of

DERIVED = ("relative_position_index", "relative_coords_table", "attn_mask", "position_ids", "attention_bias_idxs")
"""Tables that follow from the network's sizes: never taken from a file, which may have been made for other sizes."""
SPARE = {
    **{f"{head}.": "the network has no auxiliary classifier" for head in HEADS},
    "decoder": "only pretraining uses it",
    "mask_token": "only pretraining uses it",
    "predictor": "only pretraining uses it",
    "projector": "only pretraining uses it",
    "prototypes": "only pretraining uses it",
    "queue": "only pretraining uses it",
    "n_averaged": "a counter of the average",
}
"""What a file may hold in any amount beside the network, by the beginning of the names."""


@dataclass(frozen=True, slots=True)
class Roles:
    """Names of a network's tensors by what may happen to them."""

    classifier: frozenset[str]
    stems: frozenset[str]
    """Weights of the convolutions that read the image."""
    auxiliary: frozenset[str] = frozenset()
    """Tensors of classifiers that only training asks; most files lack them, and none needs them."""


def roles_of(network: nn.Module) -> Roles:
    """Return the roles, as timm's own description of the network has them, or by the order of its layers."""
    about: Mapping[str, Any] = getattr(network, "pretrained_cfg", None) or {}
    heads, stems = _names(about.get("classifier")), _names(about.get("first_conv"))
    parameters = dict(network.named_parameters())
    classifier = {name for name in parameters if name.rpartition(".")[0] in heads}
    first = {f"{stem}.weight" for stem in stems if f"{stem}.weight" in parameters}
    if not first:
        convolutions = (path for path, module in network.named_modules() if isinstance(module, nn.Conv2d))
        first = {f"{path}.weight" for path in list(convolutions)[:1]}
    auxiliary = frozenset(auxiliary_of(network))
    return Roles(frozenset(classifier or layers_of(network)[-1]) - auxiliary, frozenset(first), auxiliary)


def is_derived(name: str) -> bool:
    """Return whether the network works this tensor out by itself."""
    return name.rpartition(".")[2] in DERIVED


def is_spare(name: str) -> str | None:
    """Return why a tensor that only the file has means nothing, or None where it may."""
    return next((why for start, why in SPARE.items() if name.startswith(start)), None)


def _names(value: str | tuple[str, ...] | list[str] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())
