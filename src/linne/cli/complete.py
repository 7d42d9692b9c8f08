"""What Tab offers for sources and models, without importing any framework."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import click
from click.shell_completion import CompletionItem

REGISTERED = re.compile(r"^@register_model(?:\(\))?\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)
"""How timm and torchvision mark the functions that are models' names."""

OWN = ["small", "speedrun", "lenet", "mlp"]
PROVIDERS = ["timm", "torchvision"]


def sources(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the sources that start with `incomplete`, or else ask the shell for folders."""
    from linne.data import SOURCES

    names = [CompletionItem(name) for name in SOURCES if name.startswith(incomplete)]
    return names or [CompletionItem(incomplete, type="dir")]


def models(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the networks that start with `incomplete`; with nothing typed, linne's own and the providers."""
    names = [*OWN, *(f"{provider}/" for provider in PROVIDERS)]
    if incomplete:  # all names and not `timm/` alone, after which the shell would set a space
        names = [*OWN, *(f"{provider}/{name}" for provider in PROVIDERS for name in names_in_source(provider))]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def recipes(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the built-in recipes that start with `incomplete`, or else ask the shell for files."""
    from linne.recipes import RECIPES

    names = [CompletionItem(name) for name in RECIPES if name.startswith(incomplete)]
    return names or [CompletionItem(incomplete, type="file")]


def fields(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the recipe's fields that start with `incomplete`."""
    from linne.recipe import recipe_fields

    return [CompletionItem(f"{path}=") for path in recipe_fields() if path.startswith(incomplete)]


def names_in_source(provider: str) -> list[str]:
    """Return the models of timm or torchvision as their source text registers them, sorted.

    Reading the text takes a tenth of a second, importing either library several: too long for a key press.
    """
    found = importlib.util.find_spec(provider)
    if found is None or not found.submodule_search_locations:
        return []
    folder = Path(found.submodule_search_locations[0]) / "models"
    return sorted({name for file in folder.glob("*.py") for name in REGISTERED.findall(file.read_text("utf-8"))})
