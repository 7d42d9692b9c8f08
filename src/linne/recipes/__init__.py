"""Which values a run gets: those the user gives, then those a named recipe fixes, then a choice with its reason.

A recipe is a function without arguments that returns the fields it fixes, as {"optim.lr": 0.01}; recipes build on
each other by merging dicts. Everything they leave open is chosen by `linne.recipes.auto`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from linne.errors import RecipeError, suggest
from linne.recipe import Recipe, parse_value

RECIPES = {
    "accurate": "linne.recipes.goals:accurate",
    "cifar10-cnn": "linne.recipes.tutorials:cifar10_cnn",
    "fashion-mnist-dense": "linne.recipes.tutorials:fashion_mnist_dense",
    "fast": "linne.recipes.goals:fast",
    "imagenet": "linne.recipes.imagenet:imagenet",
    "imagenet-a3": "linne.recipes.imagenet:imagenet_a3",
    "imagenet-resnet50-finetune": "linne.recipes.imagenet:imagenet_resnet50_finetune",
    "long-tail": "linne.recipes.goals:long_tail",
    "mnist": "linne.recipes.tutorials:mnist",
    "quick": "linne.recipes.quick:quick",
    "speedrun": "linne.recipes.goals:speedrun",
    "tiny-data": "linne.recipes.goals:tiny_data",
    "tiny-imagenet-inception": "linne.recipes.imagenet:tiny_imagenet_inception",
}

FORMAT_VERSION = 1


def read_recipe(name: str) -> dict[str, Any]:
    """Return the fields that `name` fixes: a built-in recipe, `FILE.py:function`, or a run's `recipe.json`.

    `FILE.py` is run as Python, with all that this allows it: name only files you trust.

    Raises:
        RecipeError: there is no such recipe, file, function or field.
    """
    if name in RECIPES:
        module, _, function = RECIPES[name].partition(":")
        fields: Any = getattr(importlib.import_module(module), function)()
        return _checked(fields, name)
    path, _, function = name.rpartition(":")
    if path.endswith(".py"):
        return _checked(_call(Path(path), function), name)
    if name.endswith(".py"):
        raise RecipeError(f"`{name}` names a file and no function in it", hint=f"use {name}:FUNCTION")
    if name.endswith(".json"):
        return _checked(Recipe.from_dict(read_run(Path(name))["recipe"]).to_fields(), name)
    raise RecipeError(
        f"no recipe `{name}`",
        hint=suggest(name, RECIPES) or f"use one of {', '.join(RECIPES)}, FILE.py:function or a run's recipe.json",
    )


def recipe_document(recipe: Recipe, reasons: Mapping[str, str], **facts: Any) -> dict[str, Any]:
    """Return what a run's recipe.json holds."""
    return {"format": FORMAT_VERSION, **facts, "recipe": recipe.to_dict(), "reasons": dict(reasons)}


def read_run(path: Path) -> dict[str, Any]:
    """Return what a run's recipe.json holds.

    Raises:
        RecipeError: it cannot be read, or is not one.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"the recipe `{path}` cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RecipeError(f"the recipe `{path}` is not JSON: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("recipe"), dict):
        raise RecipeError(f"`{path}` is not a run's recipe.json: it has no `recipe`")
    if document.get("format") != FORMAT_VERSION:
        raise RecipeError(
            f"`{path}` has format {document.get('format')}, this linne reads {FORMAT_VERSION}",
            hint="pip install --upgrade linne",
        )
    return document


def _call(path: Path, function: str) -> Any:
    if not path.is_file():
        raise RecipeError(f"no recipe file `{path}`")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None  # a .py file always has a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise RecipeError(f"the recipe file `{path}` cannot be run: {type(error).__name__}: {error}") from error
    found = getattr(module, function, None)
    if not callable(found):
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise RecipeError(f"no function `{function}` in `{path}`", hint=suggest(function, names))
    try:
        return found()
    except Exception as error:
        raise RecipeError(f"recipe `{path}:{function}` failed: {type(error).__name__}: {error}") from error


def _checked(fields: Any, name: str) -> dict[str, Any]:
    if not isinstance(fields, Mapping):
        raise RecipeError(f'recipe `{name}` returned {type(fields).__name__}, expected fields as {{"optim.lr": 0.01}}')
    return {path: parse_value(path, value) for path, value in fields.items()}
