"""A network as a row of layers: which weights come first, and which are the classifier's."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

HEADS = ("AuxLogits", "aux1", "aux2")
"""What torchvision calls the auxiliary classifiers of Inception v3 and GoogLeNet."""
MOST = 0.9
"""A child with more than this share of a network's weights is the network, and is looked into."""


def layers_of(model: nn.Module) -> list[list[str]]:
    """Return the names of `model`'s parameters by layer, from the one that reads the image to the classifier.

    timm's networks say themselves what their layers are (`group_matcher`). Of others a layer is a child that is not a
    plain `nn.Sequential` or `nn.ModuleList`: those are looked into. What has weights of one dimension only, a norm,
    belongs to the layer before it; weights outside all children, such as a position embedding, to the first. Auxiliary
    classifiers go with the classifier.
    """
    if hasattr(model, "group_matcher"):
        from timm.models import group_parameters

        groups: dict[int, list[str]] = group_parameters(model, model.group_matcher(coarse=False))  # type: ignore[operator]
        return [groups[number] for number in sorted(groups)]
    layers: list[list[str]] = []
    heads = auxiliary_of(model)
    for prefix, unit in _units(model, "", len(list(model.parameters()))):
        names = [f"{prefix}.{name}" for name, _ in unit.named_parameters()]
        if heads.issuperset(names):
            continue
        if layers and all(parameter.ndim <= 1 for parameter in unit.parameters()):
            layers[-1] += names
        else:
            layers.append(names)
    inside = {name for layer in layers for name in layer} | heads
    outside = [name for name, _ in model.named_parameters() if name not in inside]
    if heads:
        layers[-1] += [name for name, _ in model.named_parameters() if name in heads]
    return [outside + layers[0], *layers[1:]] if layers else [outside]


def auxiliary_of(model: nn.Module) -> set[str]:
    """Return the names of the tensors of `model`'s auxiliary classifiers, which answer in training alone."""
    if not getattr(model, "aux_logits", False):
        return set()
    return {name for name in model.state_dict() if name.partition(".")[0] in HEADS}


def _units(module: nn.Module, prefix: str, num_weights: int) -> Iterator[tuple[str, nn.Module]]:
    """Yield the path and the module of every child that has weights and is not looked into."""
    for name, child in module.named_children():
        path = f"{prefix}.{name}" if prefix else name
        count = len(list(child.parameters()))
        is_row = type(child) in (nn.Sequential, nn.ModuleList)
        if is_row or (count > MOST * num_weights and any(child.children())):
            yield from _units(child, path, num_weights)
        elif count:
            yield path, child


def matrices_of(model: nn.Module) -> set[str]:
    """Return the names of the weights of linear layers, convolutions and attention, which multiply their input."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention)
    return {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if isinstance(module, kinds)
        for name, weight in module.named_parameters(recurse=False)
        if weight.ndim > 1 and "bias" not in name
    }


def norms_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return by their path the batch, instance, layer and group norms that have a scale and a bias a channel."""
    kinds = (_NormBase, nn.LayerNorm, nn.GroupNorm)
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, kinds) and module.weight is not None and module.bias is not None
    }
