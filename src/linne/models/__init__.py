"""Where networks come from: a table of providers, and the functions that turn a name into a network.

A name is `small`, `speedrun`, `lenet`, `mlp`, `timm/NAME`, `torchvision/NAME`, or a bare NAME that only one of them
has.
Importing this module imports no framework; a provider imports its own when it is asked for something.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from linne.errors import RecipeError, suggest
from linne.models.provider import InputDefaults, ModelRef, Provider, Variant
from linne.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "PROVIDERS",
    "InputDefaults",
    "ModelListing",
    "ModelRef",
    "Provider",
    "Variant",
    "build",
    "config",
    "describe",
    "describe_recipe",
    "input_defaults",
    "list_models",
    "load_provider",
    "resolve",
]

PROVIDERS = {
    "linne": "linne.models.own:OwnModels",
    "timm": "linne.models.from_timm:TimmModels",
    "torchvision": "linne.models.from_torchvision:TorchvisionModels",
}
"""Where each provider lives. `linne` is the one whose names are typed without a prefix."""

OWN = "linne"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelListing:
    """One network, as far as it is known without building it."""

    name: str
    """What a user types; `timm/*` when the whole provider is unavailable."""
    provider: str
    height: int | None
    """The size it was designed for; None when it adapts to any."""
    width: int | None
    unavailable: str | None = None
    """Why it cannot be built here, or None."""


def load_provider(name: str) -> Provider:
    """Return the provider `name`, a key of `PROVIDERS`.

    Raises:
        RecipeError: there is no such provider.
    """
    if name not in PROVIDERS:
        raise RecipeError(f"no model provider `{name}`", hint=f"known: {', '.join(f'`{p}`' for p in PROVIDERS)}")
    module, _, attribute = PROVIDERS[name].partition(":")
    provider: Provider = getattr(importlib.import_module(module), attribute)()
    return provider


def resolve(name: str) -> tuple[str, str]:
    """Return (provider, the provider's own name) for what a user typed.

    The names of linne's own networks are taken as they are; finding any other bare name imports every provider.

    Raises:
        RecipeError: unknown, known to two providers, of a provider that is not installed, or with a weights tag.
    """
    prefix, slash, rest = name.partition("/")
    if slash and prefix in PROVIDERS:
        names, missing = _names_of(prefix)
        if missing:
            raise RecipeError(f"`{name}` cannot be used: {missing[prefix]}")
        if rest in names[prefix]:
            return prefix, rest
        raise _unknown(name, rest, names, {})
    if name in load_provider(OWN).names():
        return OWN, name

    names, missing = _names_of(*PROVIDERS)
    found = [provider for provider in names if name in names[provider]]
    if len(found) > 1:
        spellings = " or ".join(f"`{provider}/{name}`" for provider in found)
        raise RecipeError(f"`{name}` is a model of {' and of '.join(found)}", hint=f"use {spellings}")
    if found:
        return found[0], name
    raise _unknown(name, name, names, missing)


def describe(
    name: str, *, num_classes: int, channels: int, height: int, width: int, variant: Variant | None = None
) -> ModelRef:
    """Return the reference from which `build` makes the network `name`, having checked that it can.

    The check runs the network on shapes alone: it costs a fraction of a second, no memory and no random number.

    Raises:
        RecipeError: the name cannot be resolved, or the network cannot take this size or channels, or has no such
            variant.
    """
    provider, own_name = resolve(name)
    size = {"channels": channels, "height": height, "width": width}
    return load_provider(provider).describe(own_name, num_classes=num_classes, **size, variant=variant or Variant())


def describe_recipe(recipe: Recipe, num_classes: int) -> ModelRef:
    """Return `describe` of the network that `recipe` names, at its input size.

    Raises:
        RecipeError: as `describe`.
    """
    data, model = recipe.data, recipe.model
    return describe(
        model.name,
        num_classes=num_classes,
        channels=data.channels,
        height=data.height,
        width=data.width,
        variant=Variant(**{field.name: getattr(model, field.name) for field in dataclasses.fields(Variant)}),
    )


def input_defaults(name: str) -> InputDefaults | None:
    """Return what the network `name` was designed for, or None when it adapts to any size.

    Raises:
        RecipeError: the name cannot be resolved.
    """
    provider, own_name = resolve(name)
    return load_provider(provider).input_defaults(own_name)


def build(ref: ModelRef) -> nn.Module:
    """Return the network with freshly drawn weights, in training mode: images N x C x H x W to logits N x K.

    The weights come from torch's global generator: the same seed gives the same weights. `ref` may come from a
    bundle that somebody else made: names and options are compared with what `describe` can write.

    Raises:
        RecipeError: an unknown provider, name or option.
    """
    return load_provider(ref.provider).build(ref)


def config(ref: ModelRef, labels: tuple[str, ...], input_spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `config.json` of a bundle with this network, labels and `InputSpec.to_dict()`."""
    return load_provider(ref.provider).config(ref, labels, input_spec)


def list_models(pattern: str | None = None) -> list[ModelListing]:
    """Return every network whose name fits, sorted by name; a provider that is missing is one row that says why.

    Imports every provider, which takes seconds.

    Args:
        pattern: a glob (`timm/vit_*`, `resnet1?`) over the full or the bare name, or a part of the full name.
    """
    listings = []
    for key in PROVIDERS:
        provider = load_provider(key)
        problem = provider.why_unavailable()
        if problem is not None:
            row = _full(key, "*")
            listings.append(ModelListing(name=row, provider=key, height=None, width=None, unavailable=problem))
            continue
        for name in provider.names():
            full_name = _full(key, name)
            if pattern is None or _fits(pattern, name, full_name):
                made_for = provider.input_defaults(name)
                height, width = (made_for.height, made_for.width) if made_for else (None, None)
                listings.append(ModelListing(name=full_name, provider=key, height=height, width=width))
    return sorted(listings, key=lambda listing: listing.name)


def _full(provider: str, name: str) -> str:
    return name if provider == OWN else f"{provider}/{name}"


def _fits(pattern: str, name: str, full_name: str) -> bool:
    from fnmatch import fnmatchcase

    pattern = pattern.lower()
    if any(sign in pattern for sign in "*?["):
        return fnmatchcase(name.lower(), pattern) or fnmatchcase(full_name.lower(), pattern)
    return pattern in full_name.lower()


def _names_of(*providers: str) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the names of each provider that can be used, and why the others cannot."""
    names: dict[str, list[str]] = {}
    missing: dict[str, str] = {}
    for key in providers:
        provider = load_provider(key)
        # Our own networks have names even where nothing can be built, and asking would import torch.
        problem = None if key == OWN else provider.why_unavailable()
        if problem is None:
            names[key] = provider.names()
        else:
            missing[key] = problem
    return names, missing


def _unknown(typed: str, bare: str, names: Mapping[str, list[str]], missing: Mapping[str, str]) -> RecipeError:
    """Return the error for `typed`, whose part `bare` is in none of `names`."""
    architecture, _, tag = bare.partition(".")
    full_names = [name if provider == OWN else f"{provider}/{name}" for provider in names for name in names[provider]]
    spellings = [full for full in full_names if full.rpartition("/")[2] == architecture]
    if tag and spellings:
        return RecipeError(
            f"`{typed}` asks for the pretrained weights `{tag}`, and training starts from random weights for now",
            hint=f"use {' or '.join(f'`{s}`' for s in spellings)} to train that network from the beginning",
        )
    prefix, slash, _ = typed.partition("/")
    if slash and prefix not in PROVIDERS:
        message = f"no model `{typed}`: there is no provider `{prefix}`"
    elif slash:
        message = f"no model `{bare}` in {prefix}"
    else:
        message = f"no model `{typed}`"
    for provider, problem in missing.items():
        message += f"; {provider} could not be searched: {problem}"
    # Someone who types a bare name is offered bare names first, which are nearer.
    bare_names = [] if slash else [name for known in names.values() for name in known]
    hint = suggest(typed, dict.fromkeys([*bare_names, *full_names])) if bare else None
    return RecipeError(message, hint=hint or "`linne models` lists them all")
