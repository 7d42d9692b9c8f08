"""Values of recipe fields: from what was typed to a field's type, and how to say what is expected."""

from __future__ import annotations

import math
import types
import typing
from typing import Any, Literal


def convert(kind: Any, value: Any) -> Any:
    """Return `value`, which may be a text as typed, as the type `kind` of a field.

    Raises:
        TypeError, ValueError, OverflowError: it is no such value.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None or (isinstance(value, str) and value.lower() in ("none", "off")):
            return None
        return convert(next(a for a in args if a is not type(None)), value)
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


def _known(text: str) -> str:
    lowered = text.lower()
    if lowered not in ("true", "yes", "on", "false", "no", "off"):
        raise ValueError(text)
    return lowered


def describe(kind: Any) -> str:
    """Return what a value of the type `kind` looks like when it is typed."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return f"{describe(next(a for a in args if a is not type(None)))} or none"
    if origin is Literal:
        return "one of " + ", ".join(f"`{a}`" for a in args)
    if origin is tuple:
        return "numbers with commas between"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[kind]
