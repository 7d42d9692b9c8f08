"""Gradients kept small: by the norm of all of them, by value, or by unit against its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from linne.models.layers import layers_of
from linne.recipe import OptimConfig

Clip = Callable[[], object]


def make_clip(
    model: nn.Module, parameters: Sequence[nn.Parameter], config: OptimConfig, *, joined: bool = True
) -> Clip | None:
    """Return what clips the gradients of `parameters`, which are `model`'s, or None when nothing does.

    `joined`: whether the device takes many tensors in one call.
    """
    foreach = None if joined else False  # None: wherever torch has kernels for it
    if config.clip_norm is not None:
        return partial(clip_grad_norm_, parameters, config.clip_norm, foreach=foreach)
    if config.clip_value is not None:
        return partial(clip_grad_value_, parameters, config.clip_value, foreach=foreach)
    if config.clip_agc is not None:
        # Seconds to import, and only needed here.
        from timm.utils.agc import adaptive_clip_grad

        classifier = set(layers_of(model)[-1])  # Brock et al. 2021 clip everything but the last layer
        body = [p for name, p in model.named_parameters() if p.requires_grad and name not in classifier]
        return partial(adaptive_clip_grad, body, config.clip_agc)
    return None
