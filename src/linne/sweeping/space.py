"""What a sweep may change: fields of the recipe, each with a range or with choices, as typed or as chosen."""

from __future__ import annotations

import json
import math
import tomllib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linne.errors import RecipeError
from linne.planning import SPLIT_OPTIONS
from linne.recipe import Recipe, parse_value, recipe_fields

DIGITS = 4
"""Significant digits of a drawn number: finer steps change no training that anyone could tell apart."""
FIXED = {
    "data.source": "trials are compared on the same images",
    **{f"data.{option}": "trials are compared on the same images" for option in SPLIT_OPTIONS},
    "seed": "the luckiest seed is not the best recipe; --seeds repeats the best with other seeds",
}
"""Fields that are the same in every trial, and why."""


@dataclass(frozen=True, slots=True)
class Range:
    """A field that takes any number between two."""

    path: str
    low: float
    high: float
    log: bool
    """Whether each factor, rather than each difference, is as likely as any other."""
    whole: bool
    """Whether only whole numbers are taken."""

    def holds(self, value: Any) -> bool:
        """Return whether `value` is one of those that can be drawn."""
        return isinstance(value, (int, float)) and not isinstance(value, bool) and self.low <= value <= self.high

    def rounded(self, value: Any) -> Any:
        """Return a drawn number as it is trained with, shown and written."""
        if self.whole:
            return int(value)
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}{':log' if self.log else ''}"


@dataclass(frozen=True, slots=True)
class Choice:
    """A field that takes one of some values."""

    path: str
    values: tuple[Any, ...]

    def holds(self, value: Any) -> bool:
        """Return whether `value` is one of those that can be drawn."""
        return any(value == each and type(value) is type(each) for each in self.values)

    def rounded(self, value: Any) -> Any:
        """Return a drawn value as it is."""
        return value

    def __str__(self) -> str:
        return ",".join(map(shown, self.values))


Dimension = Range | Choice


def shown(value: Any) -> str:
    """Return a field's value as it is typed."""
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def parse_space(typed: Mapping[str, Any], base: Recipe) -> tuple[Dimension, ...]:
    """Return the space that `typed` describes, as {"optim.lr": "1e-4..1e-1:log", "optim.optimizer": ["sgd", "adamw"]}.

    Raises:
        RecipeError: no such field, one that has to stay as it is, or a value that it cannot have; the field is named.
    """
    space = tuple(_parse(path, value) for path, value in typed.items())
    for dimension in space:
        ends = (dimension.low, dimension.high) if isinstance(dimension, Range) else dimension.values
        for value in ends:
            base.override({dimension.path: int(value) if isinstance(dimension, Range) and dimension.whole else value})
    return space


def _parse(path: str, typed: Any) -> Dimension:
    fields = recipe_fields()
    if path in FIXED:
        raise RecipeError(f"{path} cannot be searched: {FIXED[path]}")
    if path not in fields:
        parse_value(path, typed)  # says so, with the nearest name
    words = typed.split(",") if isinstance(typed, str) else typed
    if isinstance(typed, str) and ".." in typed:
        return _parse_range(path, typed)
    if not isinstance(words, Sequence) or isinstance(words, str):
        words = [words]
    values = tuple(parse_value(path, word.strip() if isinstance(word, str) else word) for word in words)
    if any(isinstance(value, tuple) for value in values):
        raise RecipeError(f"{path} cannot be searched: it holds several numbers")
    if len(set(values)) < 2:
        raise RecipeError(
            f"{path} is searched over `{','.join(map(str, words))}` alone, expected two values or more, or a range",
            hint=f"a field with one value is set: --set {path}={shown(values[0])}",
        )
    return Choice(path, values)


def _parse_range(path: str, typed: str) -> Range:
    ends, _, scale = typed.partition(":")
    low_text, _, high_text = (part.strip() for part in ends.partition(".."))
    kind = recipe_fields()[path]
    kinds = {kind, *typing.get_args(kind)}
    if not kinds & {int, float} or bool in kinds:
        raise RecipeError(f"{path} cannot have a range like `{typed}`", hint=f"name its values: --search {path}=A,B")
    low, high = parse_value(path, low_text), parse_value(path, high_text)
    if scale not in ("", "log"):
        raise RecipeError(f"{path} has the scale `{scale}`, expected `log` or nothing", hint=f"{path}={ends}:log")
    if low is None or high is None or not math.isfinite(low) or not math.isfinite(high) or not low < high:
        raise RecipeError(f"{path} is searched from `{low_text}` to `{high_text}`, expected a number and a larger one")
    if scale and low <= 0:
        raise RecipeError(f"{path} starts at {low:g}, and a log range needs a start above 0")
    return Range(path, low, high, bool(scale), int in kinds)


def read_space(file: Path) -> dict[str, Any]:
    """Return what a space file says, by dotted path; JSON or TOML, nested or not.

    Raises:
        RecipeError: it cannot be read.
    """
    try:
        text = file.read_text(encoding="utf-8")
        content = tomllib.loads(text) if file.suffix.lower() == ".toml" else json.loads(text)
    except OSError as error:
        raise RecipeError(f"the space `{file}` cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RecipeError(
            f"the space `{file}` is not {'TOML' if file.suffix.lower() == '.toml' else 'JSON'}: {error}"
        ) from error
    if not isinstance(content, dict) or not content:
        raise RecipeError(f"the space `{file}` names no fields", hint='write {"optim.lr": "1e-4..1e-1:log"}')
    return _flattened(content, "")


def _flattened(content: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat |= _flattened(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def default_space(recipe: Recipe) -> dict[str, Any]:
    """Return what is searched when nothing is said: how fast, how restrained and how varied training is.

    The rates are a factor of ten around the recipe's own. The number of epochs stays: more would nearly always be a
    little better, and the comparison would be of patience.
    """
    optim, augment = recipe.optim, recipe.augment
    side = min(recipe.data.height, recipe.data.width)
    decay = optim.weight_decay or 1e-3
    space: dict[str, Any] = {
        "optim.lr": f"{optim.lr / 10:.3g}..{optim.lr * 10:.3g}:log",
        "optim.weight_decay": f"{decay / 10:.3g}..{decay * 10:.3g}:log",
        "optim.label_smoothing": "0..0.2",
    }
    if augment.resized_crop_area is not None:
        space["augment.resized_crop_area"] = "0.2..0.9"
    else:
        space["augment.crop_padding"] = _strengths(augment.crop_padding, side // 16 or 1, side // 8)
        space["augment.cutout"] = _strengths(augment.cutout, side // 4, side // 2)
    return {path: typed for path, typed in space.items() if isinstance(typed, str) or len(typed) > 1}


def _strengths(*pixels: int | None) -> list[int | None]:
    """Return the strengths to try, off first."""
    return [None, *sorted({p for p in pixels if p})]
