"""Where networks come from: a table of providers, and the functions that turn a name into a network.

A name is `small`, `speedrun`, `lenet`, `mlp`, `timm/NAME`, `torchvision/NAME`, a bare NAME that only one of them has,
`hf:PLACE` or `python:FILE.py:NAME`. With a tag, `timm/NAME.TAG`, it also says which of the published weights are meant.
Importing this module imports no framework; a provider imports its own when it is asked for something.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linne.errors import RecipeError, suggest
from linne.models.provider import (
    BY_PLACE,
    HubFile,
    InputDefaults,
    ModelRef,
    Pretrained,
    Provider,
    Variant,
    WebFile,
    full_name,
)
from linne.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "PROVIDERS",
    "HubFile",
    "InputDefaults",
    "ModelRef",
    "Pretrained",
    "Provider",
    "Variant",
    "WebFile",
    "build",
    "code_of",
    "config",
    "describe",
    "describe_recipe",
    "full_name",
    "full_name_and_tag",
    "in_training",
    "input_defaults",
    "is_name",
    "load_provider",
    "pretrained",
    "resolve",
    "spellings",
    "split_tag",
]

PROVIDERS = {
    "linne": "linne.models.own:OwnModels",
    "timm": "linne.models.from_timm:TimmModels",
    "torchvision": "linne.models.from_torchvision:TorchvisionModels",
    "hf": "linne.models.from_huggingface:HuggingFaceModels",
    "python": "linne.models.from_python:PythonModels",
}
"""Where each provider lives. `linne` is the one whose names are typed without a prefix."""

OWN = "linne"


def load_provider(name: str, *, trust_code: bool = False) -> Provider:
    """Return the provider `name`, a key of `PROVIDERS`.

    Args:
        trust_code: Whether the user said, on the command line or in a call, that files of Python may be run. Only
            the provider `python` can use it. Never taken from a recipe or a bundle.

    Raises:
        RecipeError: there is no such provider.
    """
    if name not in PROVIDERS:
        raise RecipeError(f"no model provider `{name}`", hint=f"known: {', '.join(f'`{p}`' for p in PROVIDERS)}")
    module, _, attribute = PROVIDERS[name].partition(":")
    provider: Provider = getattr(importlib.import_module(module), attribute)(
        **({"trust_code": trust_code} if name == "python" else {})
    )
    return provider


def split_tag(name: str) -> tuple[str, str | None]:
    """Return the network that `name` names, for `resolve`, and the tag of the weights that it asks for, or None.

    `timm/resnet18.a1_in1k` is `timm/resnet18` and `a1_in1k`. Neither is looked up.
    """
    if name.partition(":")[0] in BY_PLACE:
        return name, None
    network, dot, tag = name.partition(".")
    return (network, tag) if dot and tag else (name, None)


def pretrained(name: str, tag: str = "default") -> Pretrained:
    """Return the weights `tag` published for the network `name`, which has no tag itself. Nothing is fetched.

    Raises:
        RecipeError: the name cannot be resolved, nobody published weights for it, or none are called `tag`.
    """
    provider, own_name = resolve(name)
    network = full_name(provider, own_name)
    found = load_provider(provider).pretrained(own_name)
    if not found:
        raise RecipeError(
            f"there are no pretrained weights of `{network}`", hint="leave `--weights` out to start from random ones"
        )
    if tag == "default":
        return found[0]
    for weights in found:
        if weights.tag == tag:
            return weights
    tags = [weights.tag for weights in found]
    hint = suggest(tag, tags) or f"there are {', '.join(f'`{known}`' for known in tags)}"
    raise RecipeError(f"`{network}` has no weights `{tag}`", hint=hint)


def full_name_and_tag(typed: str) -> tuple[str, str | None]:
    """Return the network that `typed` names, with its provider, and the tag of the weights that it asks for, or None.

    Raises:
        RecipeError: as `resolve`.
    """
    name, tag = split_tag(typed)
    return full_name(*resolve(name)), tag


def code_of(full_name: str) -> list[Path]:
    """Return the file in which the user's own network of this name is written; none for every other."""
    provider, _, place = full_name.partition(":")
    return [Path(place.rpartition(":")[0]).expanduser()] if provider == "python" else []


def is_name(typed: str) -> bool:
    """Return whether `typed` can only be a network: it names a provider, and no file or folder is called so."""
    prefixed = typed.partition("/")[0] in PROVIDERS or typed.partition(":")[0] in BY_PLACE
    return prefixed and not os.path.lexists(typed)


def spellings(bare: str) -> list[str]:
    """Return the full names of other libraries' networks that are called `bare`, which may hold a tag.

    Imports every provider, which takes seconds.
    """
    network, tag = split_tag(bare)
    names, _ = _names_of(*(provider for provider in PROVIDERS if provider not in (OWN, *BY_PLACE)))
    found = [full_name(provider, network) for provider in names if network in names[provider]]
    return [name if tag is None else f"{name}.{tag}" for name in found]


def resolve(name: str) -> tuple[str, str]:
    """Return (provider, the provider's own name) for what a user typed, without a tag (see `split_tag`).

    The names of linne's own networks are taken as they are; finding any other bare name imports every provider.

    Raises:
        RecipeError: unknown, known to two providers, of a provider that is not installed, or with a weights tag.
    """
    prefix, colon, place = name.partition(":")
    if colon and prefix in BY_PLACE:
        problem = load_provider(prefix).why_unavailable()
        if problem is not None:
            raise RecipeError(f"`{name}` cannot be used: {problem}")
        return prefix, place
    prefix, slash, rest = name.partition("/")
    if slash and prefix in PROVIDERS and prefix not in BY_PLACE:
        names, missing = _names_of(prefix)
        if missing:
            raise RecipeError(f"`{name}` cannot be used: {missing[prefix]}")
        if rest in names[prefix]:
            return prefix, rest
        raise _unknown(name, rest, names, {})
    if name in load_provider(OWN).names():
        return OWN, name

    names, missing = _names_of(*(provider for provider in PROVIDERS if provider not in BY_PLACE))
    found = [provider for provider in names if name in names[provider]]
    if len(found) > 1:
        spellings = " or ".join(f"`{provider}/{name}`" for provider in found)
        raise RecipeError(f"`{name}` is a model of {' and of '.join(found)}", hint=f"use {spellings}")
    if found:
        return found[0], name
    raise _unknown(name, name, names, missing)


def describe(
    name: str,
    *,
    num_classes: int,
    channels: int,
    height: int,
    width: int,
    variant: Variant | None = None,
    trust_code: bool = False,
) -> ModelRef:
    """Return the reference from which `build` makes the network `name`, having checked that it can.

    The check runs the network on shapes alone: it costs a fraction of a second, no memory and no random number.

    Raises:
        RecipeError: the name cannot be resolved, or the network cannot take this size or channels, or has no such
            variant.
    """
    provider, own_name = resolve(name)
    size = {"channels": channels, "height": height, "width": width}
    found = load_provider(provider, trust_code=trust_code)
    return found.describe(own_name, num_classes=num_classes, **size, variant=variant or Variant())


def describe_recipe(recipe: Recipe, num_classes: int, *, trust_code: bool = False) -> ModelRef:
    """Return `describe` of the network that `recipe` names, at its input size.

    Raises:
        RecipeError: as `describe`.
    """
    data, model = recipe.data, recipe.model
    ref = describe(
        model.name,
        num_classes=num_classes,
        channels=data.channels,
        height=data.height,
        width=data.width,
        variant=Variant(**{field.name: getattr(model, field.name) for field in dataclasses.fields(Variant)}),
        trust_code=trust_code,
    )
    if model.aux_weight is not None:
        # By its name, like a provider: it needs torch, which this module must not.
        importlib.import_module("linne.models.heads").require_heads(build, ref, in_training(ref, recipe))
    return ref


def in_training(ref: ModelRef, recipe: Recipe) -> ModelRef:
    """Return what is built to be trained: the network of `ref`, with its auxiliary heads where the recipe weighs them.

    They answer beside the classifier in training mode and nowhere else, so a bundle has none.
    """
    if recipe.model.aux_weight is None:
        return ref
    return dataclasses.replace(ref, options={**ref.options, "aux_logits": True})


def input_defaults(name: str) -> InputDefaults | None:
    """Return what the network `name` was designed for, or None when it adapts to any size.

    Raises:
        RecipeError: the name cannot be resolved.
    """
    provider, own_name = resolve(name)
    return load_provider(provider).input_defaults(own_name)


def build(ref: ModelRef, *, trust_code: bool = False) -> nn.Module:
    """Return the network with freshly drawn weights, in training mode: images N x C x H x W to logits N x K.

    The weights come from torch's global generator: the same seed gives the same weights. `ref` may come from a
    bundle that somebody else made: names and options are compared with what `describe` can write.

    Raises:
        RecipeError: an unknown provider, name or option.
    """
    return load_provider(ref.provider, trust_code=trust_code).build(ref)


def config(ref: ModelRef, labels: tuple[str, ...], input_spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `config.json` of a bundle with this network, labels and `InputSpec.to_dict()`."""
    return load_provider(ref.provider).config(ref, labels, input_spec)


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
    full_names = [full_name(provider, name) for provider in names for name in names[provider]]
    spellings = [full for full in full_names if full.rpartition("/")[2] == architecture]
    if tag and spellings:
        return RecipeError(
            f"`{typed}` names a network together with its weights `{tag}`, expected a network alone",
            hint=f"use {' or '.join(f'`{s}`' for s in spellings)}",
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
