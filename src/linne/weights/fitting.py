"""A file's tensors into a network: what is kept, what is adapted, what stays random, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from linne import models
from linne.errors import RecipeError
from linne.weights import Fit, Weights
from linne.weights.adapting import adapt_position, adapt_stem
from linne.weights.naming import name_for
from linne.weights.roles import is_derived, is_spare, roles_of

LEAST_SHARE = 0.9
"""A network of which less is filled, classifier apart, is another one than the weights are of; the file likewise."""

Shape = tuple[int, ...]


def fit(network: nn.Module, weights: Weights, *, full_name: str) -> Fit:
    """Return `fit_weights` of the same arguments."""
    named = name_for(network, weights.tensors)
    roles = roles_of(network)
    target = network.state_dict()
    taken: dict[str, torch.Tensor] = {}
    adapted: list[str] = []
    fresh: list[str] = []
    misfits: list[str] = []
    kept = 0
    for name, own in target.items():
        found = named.tensors.get(name)
        if is_derived(name):
            continue
        if found is None:
            if not name.endswith("num_batches_tracked"):
                fresh.append(name)
        elif found.shape == own.shape:
            taken[name] = found
            kept += 1
        elif name in roles.classifier:
            fresh.append(name)
        elif (change := adapt_stem(name, found, own, roles) or adapt_position(name, found, own)) is not None:
            taken[name] = change.tensor
            adapted.append(f"`{name}`: {change.how}")
        else:
            misfits.append(name)
    _check_share(target, taken, named.tensors, roles.classifier, weights, full_name, network)
    if misfits:
        raise _misfit(misfits, target, named.tensors, weights, full_name)
    _check_values(taken, target, weights)
    with torch.no_grad():
        for name, tensor in taken.items():
            target[name].copy_(tensor)
    leftover = [name for name in named.tensors if name not in target]
    notes = (*((f"`{weights.part}` of the checkpoint",) if weights.part else ()), *named.notes)
    return Fit(kept, tuple(adapted), tuple(fresh), tuple(_why_dropped(name) for name in leftover), notes)


def num_classes_in(weights: Weights, full_name: str) -> int:
    """Return `weights.num_classes_in` of the same arguments."""
    first, second = (_meta_network(full_name, num_classes) for num_classes in (7, 11))
    other = second.state_dict()
    depend = [name for name, tensor in first.state_dict().items() if tensor.shape != other[name].shape]
    found = name_for(first, weights.tensors).tensors
    counts = {found[name].shape[0] for name in depend if name in found and found[name].ndim}
    if len(counts) != 1:
        raise _other_network(f"they have no `{depend[-1] if depend else 'classifier'}`", weights, full_name)
    return counts.pop()


def _meta_network(full_name: str, num_classes: int) -> nn.Module:
    """Return the network with shapes and no numbers, where it can be built like that."""
    designed = models.input_defaults(full_name)
    height, width = (designed.height, designed.width) if designed else (32, 32)
    ref = models.describe(full_name, num_classes=num_classes, channels=3, height=height, width=width)
    try:
        with torch.device("meta"):
            return models.build(ref)
    except (NotImplementedError, RuntimeError):  # some networks look at numbers while they are built
        return models.build(ref)


def _check_share(
    target: Mapping[str, torch.Tensor],
    taken: Mapping[str, torch.Tensor],
    found: Mapping[str, torch.Tensor],
    classifier: frozenset[str],
    weights: Weights,
    full_name: str,
    network: nn.Module,
) -> None:
    """Raise RecipeError unless most of the network is filled, and most of the file is used."""
    body = {name: own.numel() for name, own in target.items() if name not in classifier and not is_derived(name)}
    total = sum(body.values())
    filled = sum(size for name, size in body.items() if name in taken)
    if filled < LEAST_SHARE * total:
        raise _other_network(f"they fill {filled / total:.0%} of its numbers", weights, full_name)
    own_names = set(target)
    in_file = {name: t.numel() for name, t in found.items() if name not in classifier and not is_spare(name)}
    unused = sum(size for name, size in in_file.items() if name not in own_names)
    if unused > (1 - LEAST_SHARE) * sum(in_file.values()):
        raise _other_network(f"{unused / sum(in_file.values()):.0%} of the file has no place in it", weights, full_name)


def _other_network(reason: str, weights: Weights, full_name: str) -> RecipeError:
    says = weights.model if weights.model not in (None, full_name) else None
    return RecipeError(
        f"`{weights.origin}` does not hold weights of `{full_name}`: {reason}, the classifier apart",
        hint=f"it says that it is `{says}`" if says else None,
    )


def _misfit(
    names: list[str],
    target: Mapping[str, torch.Tensor],
    found: Mapping[str, torch.Tensor],
    weights: Weights,
    full_name: str,
) -> RecipeError:
    name = names[0]
    more = f", and {len(names) - 1} more do not fit" if len(names) > 1 else ""
    sizes = f"is {_shape(found[name])}, and `{full_name}` has it as {_shape(target[name])}"
    return RecipeError(f"`{weights.origin}`: `{name}` {sizes}{more}")


def _check_values(taken: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor], weights: Weights) -> None:
    """Raise RecipeError unless every number is finite, and of a kind that becomes the network's own."""
    for name, tensor in taken.items():
        if target[name].is_floating_point() and not tensor.is_floating_point():
            raise RecipeError(f"`{weights.origin}`: `{name}` holds {tensor.dtype} numbers, expected floating point")
        if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
            raise RecipeError(f"`{weights.origin}`: `{name}` holds values that are not finite")


def _why_dropped(name: str) -> str:
    return f"`{name}`: {is_spare(name) or 'the network has none of this name'}"


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(str(side) for side in tensor.shape) or "one number"
