"""A file's tensors into a network: what is kept, what is adapted, what stays random, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from linne.errors import RecipeError
from linne.models import input_defaults
from linne.weights import Fit, Weights
from linne.weights.adapting import adapt_position, adapt_stem, describe_resize
from linne.weights.coverage import network_like, share_of
from linne.weights.naming import Named, name_for
from linne.weights.roles import Roles, is_derived, is_spare, roles_of

Tensors = Mapping[str, torch.Tensor]


@dataclass(slots=True)
class _Plan:
    """What is to become of each of the network's tensors."""

    taken: dict[str, torch.Tensor] = field(default_factory=dict)
    kept: int = 0
    adapted: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    misfits: list[str] = field(default_factory=list)


def fit(network: nn.Module, weights: Weights, *, full_name: str) -> Fit:
    """Return `fit_weights` of the same arguments."""
    named, roles, own = name_for(network, weights.tensors), roles_of(network), network.state_dict()
    plan = _plan(own, named, roles)
    share = share_of(own, named.tensors, roles, frozenset(plan.misfits))
    if not share.enough and not share_of(own, named.tensors, roles, frozenset()).enough:
        raise other_network(str(share), weights, full_name)
    if plan.misfits:  # the same names: another size or width of the same network
        raise _misfit(plan.misfits, own, named.tensors, weights, full_name)
    _check_values(plan.taken, own, weights)
    with torch.no_grad():
        for name, tensor in plan.taken.items():
            own[name].copy_(tensor)
    dropped = [f"`{name}`: {_why_dropped(name)}" for name in named.tensors if name not in own]
    return Fit(plan.kept, tuple(plan.adapted), tuple(plan.fresh), tuple(dropped), _notes(weights, named, full_name))


def _notes(weights: Weights, named: Named, full_name: str) -> tuple[str, ...]:
    notes = [f"from the checkpoint's `{weights.part}`"] if weights.part else []
    said = None if full_name.startswith("hf:") else weights.model  # where those say only which kind of network
    if said not in (None, full_name):  # tensors alike are no proof: timm's tf_ networks pad differently
        notes.append(f"made for `{weights.model}`, whose tensors are the same; what it computes may not be")
    return (*notes, *named.notes)


def _plan(own: Tensors, named: Named, roles: Roles) -> _Plan:
    plan = _Plan()
    heads = roles.classifier | roles.auxiliary
    for name, mine in own.items():
        found = named.tensors.get(name)
        if is_derived(name):
            continue
        if name.endswith(".num_batches_tracked") and (found is None or found.is_floating_point()):
            continue  # no such count before torch 0.4.1, and some halve it with the rest; nothing here reads it
        if found is None or (found.shape != mine.shape and name in heads):
            plan.fresh.append(name)
        elif found.shape == mine.shape:
            plan.taken[name] = found
            if name in named.resized:
                plan.adapted.append(f"`{name}`: {describe_resize(name, named.resized[name], mine.shape)}")
            else:
                plan.kept += 1
        elif change := adapt_stem(name, found, mine, roles) or adapt_position(name, found, mine):
            plan.taken[name] = change.tensor
            plan.adapted.append(f"`{name}`: {change.how}")
        else:
            plan.misfits.append(name)
    return plan


def other_network(reason: str, weights: Weights, full_name: str) -> RecipeError:
    """Return the error for weights that are not of the network, with the one that they look like."""
    return RecipeError(
        f"`{weights.origin}` does not hold weights of `{full_name}`: {reason}",
        hint=_what_they_are(weights, full_name),
    )


def _misfit(names: list[str], own: Tensors, found: Tensors, weights: Weights, full_name: str) -> RecipeError:
    name, more = names[0], f"; {len(names) - 1} more differ" if len(names) > 1 else ""
    sizes = f"is {_shape(found[name])}, and `{full_name}` has it as {_shape(own[name])}"
    return RecipeError(f"`{weights.origin}`: `{name}` {sizes}{more}", hint=_what_they_are(weights, full_name))


def _what_they_are(weights: Weights, full_name: str) -> str:
    """Return the hint for weights that do not fit: what they are of, or how the network has to be for them."""
    said = weights.model if weights.model not in (None, full_name) else None
    likely = said or network_like(weights.tensors, full_name, weights.origin)
    if likely is None:
        return "`linne models` lists the networks there are"
    if likely != full_name:
        return f"they look like weights of `{likely}`"
    size = weights.input or input_defaults(full_name)
    if size is None:
        return f"they are of `{full_name}` in its plain form; leave out what changes it"
    return (
        f"they are of `{full_name}` for {size.height} x {size.width} pixels: "
        f"`--set data.height={size.height} --set data.width={size.width}`"
    )


def _check_values(taken: Tensors, own: Tensors, weights: Weights) -> None:
    """Raise RecipeError unless every number is finite, and of a kind that becomes the network's own."""
    for name, tensor in taken.items():
        if own[name].is_floating_point() != tensor.is_floating_point():
            found, expected = (str(t.dtype).removeprefix("torch.") for t in (tensor, own[name]))
            raise RecipeError(f"`{weights.origin}`: `{name}` holds {found}, expected {expected}")
        if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
            raise RecipeError(
                f"`{weights.origin}`: `{name}` holds values that are not finite",
                hint="the training that wrote it had gone wrong; use an earlier checkpoint",
            )


def _why_dropped(name: str) -> str:
    return is_spare(name) or ("the network works it out" if is_derived(name) else "the network has none of this name")


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(str(side) for side in tensor.shape) or "one number"
