"""Values of recipe fields: from what was typed to a field's type, what is allowed, and how to say what is expected."""

from __future__ import annotations

import math
import types
import typing
from typing import Any, Literal

from linne.errors import RecipeError

LIMITS: dict[str, tuple[int, int | None]] = {
    "data.batch_size": (1, None),
    "data.height": (1, 8192),
    "data.width": (1, 8192),
    "data.num_workers": (0, 256),
    "data.repeats": (2, None),
    "data.max_bad_images": (0, None),
    "data.split_seed": (0, 2**63 - 1),
    "data.folds": (2, 1000),
    "data.fold": (1, 1000),
    "model.patch_stride": (1, 64),
    "model.unfreeze_epochs": (1, None),
    "optim.epochs": (1, None),
    "optim.patience": (1, None),
    "optim.step_epochs": (1, None),
    "optim.plateau_epochs": (1, None),
    "optim.average_epochs": (1, None),
    "augment.crop_padding": (1, None),
    "augment.cutout": (1, None),
    "augment.rand_magnitude": (0, 30),
    "augment.rand_num_ops": (1, 8),
    "augment.augmix_severity": (1, 10),
    "augment.augmix_width": (1, 8),
    "augment.augmix_depth": (1, 8),
    "augment.size_tune_epochs": (1, None),
    "device.micro_batch": (1, None),
    "device.num_threads": (1, 4096),
    "checkpoint.every_steps": (1, None),
    "checkpoint.keep": (1, None),
    "seed": (0, 2**63 - 1),
    "log_every": (1, None),
}
"""Smallest and largest value of the whole-number fields; None is without end."""


def convert(kind: Any, value: Any) -> Any:
    """Return `value`, which may be a text as typed, as the type `kind` of a field.

    Raises:
        TypeError, ValueError, OverflowError: it is no such value.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None or (isinstance(value, str) and value.lower() in ("none", "off")):
            return None
        return _convert_to_one(tuple(a for a in args if a is not type(None)), value)
    if origin is Literal:
        if value not in args:
            raise ValueError(value)
        return value
    if origin is tuple:
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(convert(args[0], part) for part in parts)
    if kind is bool:
        if isinstance(value, str):
            return {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}[_known(value)]
        if not isinstance(value, bool):
            raise TypeError(value)
        return value
    if kind is int:
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise TypeError(value)
        return int(value)
    if kind is float:
        number = float(value)
        if isinstance(value, bool) or math.isnan(number):
            raise ValueError(value)
        return number
    if not isinstance(value, str) or not value:
        raise TypeError(value)
    return value


def _convert_to_one(kinds: tuple[Any, ...], value: Any) -> Any:
    """Return `value` as the first of `kinds` that it can be."""
    for kind in kinds[:-1]:
        try:
            return convert(kind, value)
        except (TypeError, ValueError, OverflowError):
            continue
    return convert(kinds[-1], value)


def _known(text: str) -> str:
    lowered = text.lower()
    if lowered not in ("true", "yes", "on", "false", "no", "off"):
        raise ValueError(text)
    return lowered


def describe(kind: Any) -> str:
    """Return what a value of the type `kind` looks like when it is typed."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("none" if a is type(None) else describe(a) for a in args)
    if origin is Literal:
        return ("one of " if len(args) > 1 else "") + ", ".join(f"`{a}`" for a in args)
    if origin is tuple:
        return "numbers with commas between"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[kind]


def check_limits(section: Any, prefix: str) -> None:
    """Raise RecipeError when a whole-number field of `section`, whose path begins with `prefix`, is out of range."""
    for path in LIMITS:
        name = path.removeprefix(prefix)
        if path.startswith(prefix) and "." not in name:
            check_limit(path, getattr(section, name))


def check_limit(path: str, value: Any) -> None:
    """Raise RecipeError when `value` is out of the range of the whole-number field `path`."""
    smallest, largest = LIMITS[path]
    if value is not None and (value < smallest or (largest is not None and value > largest)):
        expected = f"{smallest} or more" if largest is None else f"{smallest} to {largest}"
        raise RecipeError(f"{path} is {value}, expected {expected}")


def check_fraction(name: str, value: float) -> None:
    """Raise RecipeError unless `value` is between 0 and 1, neither included."""
    if not 0 < value < 1:
        raise RecipeError(f"{name} is {value:g}, expected more than 0 and less than 1")
