"""A file's names of tensors turned into the network's: wrappers' prefixes, old spellings, the authors' layouts."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import nn

Tensors = dict[str, torch.Tensor]

PREFIXES = (
    "module.",
    "_orig_mod.",
    "_fsdp_wrapped_module.",
    "_checkpoint_wrapped_module.",
    "model.",
    "backbone.",
    "net.",
    "network.",
    "encoder.",
    "student.",
    "teacher.",
)
"""What wrappers (DDP, compile, FSDP, Lightning and training scripts) put before every name."""
MAX_PREFIXES = 4
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(\d+)\.")
"""torchvision's densenets were saved when a layer could have a dot in its name."""


@dataclass(frozen=True, slots=True)
class Named:
    """A file's tensors under the network's names, as far as that could be found out."""

    tensors: Tensors
    notes: tuple[str, ...]


def name_for(network: nn.Module, tensors: Mapping[str, torch.Tensor]) -> Named:
    """Return `tensors` under names of `network`. A step is taken only where more names match after it than before."""
    wanted = set(network.state_dict())
    named, notes = dict(tensors), []
    for _ in range(MAX_PREFIXES):
        prefix, stripped = _best_strip(named, wanted)
        if not prefix:
            break
        named = stripped
        notes.append(f"`{prefix}` taken off the names")
    respelt = {OLD_DENSENET.sub(r"\1\2.", name): tensor for name, tensor in named.items()}
    if _matches(respelt, wanted) > _matches(named, wanted):
        named = respelt
        notes.append("old densenet names respelt")
    return _by_timm(network, named, wanted, notes)


def _best_strip(tensors: Tensors, wanted: Collection[str]) -> tuple[str, Tensors]:
    """Return the prefix whose removal makes most names match, and the names without it; "" where none helps."""
    best, best_count, result = "", _matches(tensors, wanted), tensors
    for first in PREFIXES:
        if not any(name.startswith(first) for name in tensors):
            continue
        for chain in ("", *PREFIXES):
            prefix = first + chain
            stripped = _strip(tensors, prefix)
            count = _matches(stripped, wanted)
            if count > best_count:
                best, best_count, result = prefix, count, stripped
    return best, result


def _strip(tensors: Tensors, prefix: str) -> Tensors:
    """Return the tensors without `prefix`; one with it wins over another that had the name already."""
    plain = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
    return plain | {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _matches(tensors: Collection[str], wanted: Collection[str]) -> int:
    return sum(name in wanted for name in tensors)


def _by_timm(network: nn.Module, tensors: Tensors, wanted: Collection[str], notes: list[str]) -> Named:
    """Return the tensors after timm's own conversion for the network's family, where it has one.

    It turns the original authors' names into timm's and resizes position embeddings for the network's input size.
    """
    convert = _converter(network)
    if convert is None:
        return Named(tensors, tuple(notes))
    try:
        converted = convert(dict(tensors), network)
    except Exception as error:  # it expects files of its own family, and these may be of any other
        return Named(tensors, (*notes, f"timm's conversion for this network failed: {error!r:.120}"))
    if not isinstance(converted, dict) or _matches(converted, wanted) < _matches(tensors, wanted):
        return Named(tensors, tuple(notes))
    if _matches(converted, wanted) > _matches(tensors, wanted):
        notes.append("names converted from the authors' layout by timm")
    return Named({name: t for name, t in converted.items() if isinstance(t, torch.Tensor)}, tuple(notes))


def _converter(network: nn.Module) -> Callable[[Tensors, nn.Module], Tensors] | None:
    """Return the function beside the network's class with which timm reads foreign files of that family, or None.

    It is a convention of timm's modules, not an interface: what it returns is checked, and doing without it is fine.
    """
    module = type(network).__module__
    if not module.startswith("timm.models."):
        return None
    found: Callable[[Tensors, nn.Module], Tensors] | None = getattr(
        importlib.import_module(module), "checkpoint_filter_fn", None
    )
    return found
