"""Which weights decay, how fast each layer learns, and what Muon works on."""

from __future__ import annotations

from typing import Any

from torch import nn

from linne.errors import RecipeError
from linne.models.layers import layers_of, matrices_of, norms_of
from linne.recipe import OptimConfig

BETA1_BESIDE_MUON = 0.9
"""Of the AdamW that updates what Muon does not; `momentum` is Muon's."""


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Return `model`'s trained weights in groups for a torch optimiser, one for each set of values that they share.

    Biases and norms (one dimension) do not decay. `lr_scale` is what the learning rate is multiplied by: with
    `layer_decay` d, d to the number of layers between a weight and the classifier (Clark et al. 2020; BEiT); with
    `norm_bias_lr`, that for the biases of norms.

    Raises:
        RecipeError: Muon finds nothing to work on, or `norm_bias_lr` no norms.
    """
    scales = _learning_rate_scales(model, config)
    hidden = _hidden(model) if config.optimizer == "muon" else set()
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim > 1
        values: dict[str, Any] = {"weight_decay": config.weight_decay if decays else 0.0}
        if scales:
            values["lr_scale"] = scales[name]
        if config.optimizer == "lamb":
            values["always_adapt"] = decays
        if config.optimizer == "muon":
            values |= {"use_fallback": True, "eps": 1e-8} if name not in hidden else {"nesterov": True}
        groups.setdefault(tuple(values.items()), {**values, "params": []})["params"].append(parameter)
    return sorted(groups.values(), key=lambda group: -group["weight_decay"])


def _learning_rate_scales(model: nn.Module, config: OptimConfig) -> dict[str, float]:
    """Return by a parameter's name what its learning rate is multiplied by; nothing where all have the same."""
    if config.layer_decay is None and config.norm_bias_lr is None:
        return {}
    decay = config.layer_decay or 1.0
    from_top = enumerate(reversed(layers_of(model)))
    scales = {name: decay**distance for distance, names in from_top for name in names}
    if config.norm_bias_lr is not None:
        biases = [f"{path}.bias" for path in norms_of(model)]
        if not biases:
            raise RecipeError(
                "optim.norm_bias_lr is for the biases of norms, and this network has no norms",
                hint="use --set optim.norm_bias_lr=none",
            )
        for name in biases:
            scales[name] *= config.norm_bias_lr
    return scales


def _hidden(model: nn.Module) -> set[str]:
    """Return the names of the matrices between the first layer and the classifier, convolutions among them.

    Muon is for those (Jordan et al. 2024): what comes in and what goes out is better off with AdamW.
    """
    between = {name for names in layers_of(model)[1:-1] for name in names} & matrices_of(model)
    if not between:
        raise RecipeError(
            "optim.optimizer=muon updates the layers between the first and the last, and this network has none",
            hint="use --set optim.optimizer=adamw",
        )
    return between
