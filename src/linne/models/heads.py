"""Which networks have auxiliary classifiers, that help in training and are not asked afterwards."""

from __future__ import annotations

import torch

from linne.errors import RecipeError
from linne.models.checks import WITH_HEADS, Build
from linne.models.provider import ModelRef


def require_heads(build: Build, ref: ModelRef, trained: ModelRef) -> None:
    """Raise RecipeError unless `trained`, which is `ref` with auxiliary heads, can be built and takes its input."""
    hint = "use --set model.aux_weight=none"
    if ref.full_name not in WITH_HEADS:
        known = " and ".join(f"`{name}`" for name in WITH_HEADS)
        raise RecipeError(f"`{ref.full_name}` has no auxiliary heads for model.aux_weight; {known} have", hint=hint)
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.no_grad():
            build(trained)(torch.zeros(2, ref.channels, ref.height, ref.width))
    except RuntimeError as error:
        size = f"{ref.height} x {ref.width}"
        raise RecipeError(f"the auxiliary head of `{ref.full_name}` cannot take {size} pixels", hint=hint) from error
