"""The part of a plan that is about pretrained weights: which they are, and what input they were made for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from linne import models
from linne.errors import RecipeError
from linne.models.fetching import fetch_description
from linne.models.provider import InputDefaults
from linne.preprocess import InputSpec
from linne.recipe import Recipe
from linne.recipes.auto import Designed
from linne.weights import input_for_channels, read_weights
from linne.weights.finding import asked_for, find, licence_of, spec_of

SAID_BY_WEIGHTS = {
    f"data.{name}" for name in ("height", "width", "mean", "std", "interpolation", "crop_pct", "crop_mode")
}
"""Where all of it is given, as in a run that goes on, weights are not asked; they may be gone."""


def designed_for(given: dict[str, Any], reasons: dict[str, str]) -> Designed | None:
    """Return what the network that `given` names, or its weights, were made for; None where any input will do.

    Brings `model.name` in `given` to its full form, and the weights that it names into `model.weights`.

    Raises:
        RecipeError: no such network or weights, or weights that are named twice, or without a network.
    """
    if "model.name" not in given:
        if given.get("model.weights") is not None:
            raise RecipeError(
                f"model.weights={given['model.weights']} does not say of which network", hint="add --model NAME"
            )
        return None
    full_name, tag = models.full_name_and_tag(given["model.name"])
    given["model.name"] = full_name
    if tag is not None:
        given["model.weights"] = asked_for(tag, given.get("model.weights"))
        reasons["model.weights"] = reasons["model.name"]
    defaults, channels = models.input_defaults(full_name), 3
    spec = None if defaults is None else spec_of(defaults, "center")
    if given.get("model.weights") is not None and not given.keys() >= SAID_BY_WEIGHTS:
        found = find(given["model.weights"], full_name)
        defaults, channels = found.input or defaults, given.get("data.channels", 3)
        stated = read_weights(found.path).input if found.path is not None and found.path.is_dir() else None
        spec = spec_of(defaults, given.get("data.crop_mode")) if stated is None and defaults is not None else stated
    return None if spec is None else _designed(spec, defaults, channels)


def _designed(spec: InputSpec, network: InputDefaults | None, channels: int) -> Designed:
    """Return what weights were made for; for another number of channels, with what their first layer then expects."""
    spec = input_for_channels(spec, channels)
    return Designed(
        height=spec.height,
        width=spec.width,
        mean=spec.mean,
        std=spec.std,
        interpolation=spec.interpolation,
        crop_pct=spec.crop_pct,
        crop_mode=spec.crop_mode,
        fixed_size=network is not None and network.fixed_size,
    )


def bring_description(given: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Have what is needed to understand the network's name, where pretrained weights of it are asked for.

    Raises:
        SourceError: it cannot be had.
    """
    if given.get("model.weights") is not None and "model.name" in given:
        fetch_description(given["model.name"], say)


@dataclass(frozen=True, kw_only=True, slots=True)
class StartedFrom:
    """Which pretrained weights a run starts from, as recipe.json and its bundle keep it."""

    weights: str
    """`torchvision/mobilenet_v2.IMAGENET1K_V1`, or a path."""
    sha256: str
    licence: str | None
    """As their provider or their bundle states it; None where nobody does."""


def pin_weights(recipe: Recipe, say: Callable[[str], None]) -> StartedFrom | None:
    """Return which weights the recipe leads to, having brought them here; None where it names none.

    Raises:
        LinneError: they cannot be brought here or read, or are not those that the recipe means.
    """
    if recipe.model.weights is None:
        return None
    found = find(recipe.model.weights, recipe.model.name)
    weights = read_weights(found.fetched(say))
    stated = recipe.model.weights_sha256
    if stated not in (None, weights.sha256):
        raise RecipeError(
            f"the weights `{weights.origin}` have sha256 {weights.sha256[:12]}..., expected {stated[:12]}...",
            hint="bring the file that the run began with, or use --set model.weights_sha256=none",
        )
    return StartedFrom(weights=found.name, sha256=weights.sha256, licence=licence_of(found, weights))
