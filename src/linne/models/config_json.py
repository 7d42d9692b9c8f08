"""A bundle's `config.json`: the layout in which timm and transformers keep a classifier on disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from linne.models.provider import ModelRef


def timm_layout(
    architecture: str,
    labels: tuple[str, ...],
    input_spec: Mapping[str, Any],
    *,
    model_args: Mapping[str, Any],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what `timm.models.save_for_hf` would write, restricted to what was learned and how pixels are prepared.

    Args:
        architecture: timm's name.
        input_spec: from `InputSpec.to_dict`.
        model_args: further arguments of `timm.create_model`, without num_classes. transformers builds from these
            and the architecture alone, so whatever changes a weight's shape must be here.
        about: further entries of `pretrained_cfg`. Never a place to load from (`url`, `file`, `hf_hub_id`),
            `label_offset` or a test-time size: they describe timm's own weights.
    """
    return {
        "architecture": architecture,
        "num_classes": len(labels),
        "label_names": list(labels),
        **({"model_args": dict(model_args)} if model_args else {}),
        "pretrained_cfg": {
            "input_size": [input_spec["channels"], input_spec["height"], input_spec["width"]],
            "mean": list(input_spec["mean"]),
            "std": list(input_spec["std"]),
            "interpolation": input_spec["interpolation"],
            "crop_pct": input_spec["crop_pct"],
            "crop_mode": input_spec["crop_mode"],
            "num_classes": len(labels),
            **about,
        },
    }


def foreign_layout(ref: ModelRef, labels: tuple[str, ...], input_spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same keys for a network that is not timm's.

    timm refuses the architecture, which holds a slash, and transformers the model type. Without that type,
    transformers would hand the name to timm, whose older releases drop everything up to the slash and so build
    their own `resnet18` for `torchvision/resnet18`.
    """
    architecture = f"{ref.provider}/{ref.name}"
    layout = timm_layout(architecture, labels, input_spec, model_args=ref.options, about={})
    return {"model_type": "linne", **layout}
