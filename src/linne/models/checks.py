"""What every provider checks: its package, names and options, and whether a network takes an input."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from linne.errors import LinneError, RecipeError, suggest
from linne.models.provider import ModelRef, Variant

if TYPE_CHECKING:
    from torch import nn

Build = Callable[[ModelRef], "nn.Module"]
At = Callable[[int, int, int, Mapping[str, Any]], ModelRef]
"""From (channels, height, width, further arguments of the constructor) to a reference."""
Wishes = Mapping[str, Mapping[str, Any]]
"""By the field of `Variant` that asks for them: arguments of the constructor."""

WITHOUT = {"dropout": "none", "drop_path": "none", "blur_pool": "false", "width": "none", "patch_stride": "none"}
"""The value of each field of `Variant` that wishes nothing, as it is typed."""

WITH_HEADS = ("torchvision/googlenet", "torchvision/inception_v3")
"""Networks that have auxiliary classifiers for training."""
SIZES = (16, 24, 32, 48, 64, 75, 96, 112, 128, 160, 192, 224, 256, 299, 320, 384, 448, 512)
"""Sides tried for a hint: powers of two, multiples of the usual patches and windows, and what inception needs."""


def import_failure(package: str, error: Exception, extra: str = "train") -> str:
    """Return in one sentence why `package` cannot be imported."""
    if isinstance(error, ModuleNotFoundError) and error.name == package:
        return f'{package} is not installed; install it with `pip install "linne[{extra}]"`'
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return f"{package} is installed but cannot be imported: {reason}"


def require_known(provider: str, name: str, names: Collection[str]) -> None:
    """Raise RecipeError with the nearest match unless `name` is one of `names`."""
    if name not in names:
        raise RecipeError(f"no model `{name}` in {provider}", hint=suggest(name, names))


def require_options(ref: ModelRef, known: Collection[str]) -> None:
    """Raise RecipeError when `ref` carries an option that `describe` never writes.

    A bundle may come from anywhere, and constructors take arguments that read files or fetch them.
    """
    for option in ref.options:
        if option not in known:
            raise RecipeError(f"`{ref.full_name}` is described with an option `{option}` that linne does not know")


def wishes(variant: Variant, arguments: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return of `arguments`, which are by field of `Variant`, those for which `variant` asks."""
    return {f.name: arguments[f.name] for f in fields(variant) if getattr(variant, f.name) != f.default}


def takes_no(ref: ModelRef, wish: str) -> RecipeError:
    """Return the error for a network that has no way to do what the field `wish` of `Variant` asks."""
    return RecipeError(
        f"`{ref.full_name}` takes no {wish.replace('_', ' ')}", hint=f"use `--set model.{wish}={WITHOUT[wish]}`"
    )


def checked(
    at: At, build: Build, channels: int, height: int, width: int, wished: Wishes, designed: int = 32
) -> ModelRef:
    """Return `at(channels, height, width, ...)` with all that is wished, having run its network on shapes alone.

    Args:
        designed: the side in pixels that the network was made for; tried as well when others are looked for.

    Raises:
        RecipeError: it cannot; the message says whether a wish, the size or the channels are the reason, found by
            trying others.
    """
    ref = at(channels, height, width, _together(wished))
    failure = why_not(build, ref)
    if failure is None:
        return ref
    name = ref.full_name
    for wish in wished:
        others = {other: arguments for other, arguments in wished.items() if other != wish}
        if why_not(build, at(channels, height, width, _together(others))) is None:
            raise takes_no(ref, wish) from failure

    def works(channels: int, side: int) -> bool:
        return why_not(build, at(channels, side, side, {})) is None

    # The nearest that works, upwards first: what is too small for a network is the usual case.
    known, longest = sorted({*SIZES, designed}), max(height, width)
    sides = [side for side in known if side >= longest] + [side for side in reversed(known) if side < longest]
    side = next((side for side in sides if works(channels, side)), None)
    if side is not None:
        hint = f"use `--set data.height={side} --set data.width={side}`"
        raise RecipeError(f"`{name}` cannot take {height} x {width} pixels", hint=hint) from failure
    if channels == 1 and works(3, designed):
        raise RecipeError(f"`{name}` cannot take grey images", hint="use `--set data.channels=3`") from failure
    reason = (str(failure).strip().splitlines() or [type(failure).__name__])[0]
    raise RecipeError(f"`{name}` cannot be built: {reason}") from failure


def _together(wished: Wishes) -> dict[str, Any]:
    return {name: value for arguments in wished.values() for name, value in arguments.items()}


def shapes_alone(build: Build, ref: ModelRef) -> nn.Module:
    """Return the network with shapes and no numbers, where it can be built like that; draws no random number."""
    import torch

    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return build(ref)
        except (NotImplementedError, RuntimeError):  # some networks look at numbers while they are built
            return build(ref)


def why_not(build: Build, ref: ModelRef, size: tuple[int, int] | None = None) -> Exception | None:
    """Return the error with which `ref`'s network refuses its input, or None when it gives logits N x K.

    `size` is the height and width of another input than that which it is built for.

    Runs in evaluation mode on the meta device, which has shapes but no numbers: no memory, and no random number
    is drawn. Networks that need numbers while they are built are run on the CPU instead.

    Raises:
        RecipeError: it gives something else, whatever the input.
    """
    for device in ("meta", "cpu"):
        try:
            _run(build, ref, device, size or (ref.height, ref.width))
            return None
        except LinneError:
            raise
        except Exception as error:  # a network refuses an input with whatever its author chose, often a bare assert
            needs_numbers = isinstance(error, NotImplementedError) or "meta" in str(error)
            if device == "cpu" or not needs_numbers:
                return error
    return None


def _run(build: Build, ref: ModelRef, device: str, size: tuple[int, int]) -> None:
    import torch

    with torch.random.fork_rng(devices=[]), torch.device(device), torch.no_grad():
        logits_NK = build(ref).eval()(torch.zeros(2, ref.channels, *size))
    expected = (2, ref.num_classes)
    found = tuple(logits_NK.shape) if isinstance(logits_NK, torch.Tensor) else type(logits_NK).__name__
    if found != expected:
        raise RecipeError(f"`{ref.full_name}` is no classifier: two images give {found}, expected logits {expected}")
