"""Whether pretrained weights answer to photographs as they did where they were trained.

Names and shapes can all fit and the answers be wrong: pixels scaled otherwise, another activation in the same
architecture, labels in another order. Two things are compared on four photographs that come with the package: what
each batch norm sees with the statistics that it keeps from training, and the names with what is on the photographs.

What this does not find: exchanged colour channels, which such networks hardly mind, a resize that is slightly
different, and wrong scaling before a network without batch norms and without names for these photographs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from linne.preprocess import Floats, InputSpec
from linne.weights.answers import SCALINGS, Proof, names_of, photographs

LARGEST_FIRST = 1.2
"""Of the gap at the first batch norm, which sees what the pixels were scaled to.

Measured on torchvision's MobileNetV2: 0.3 as trained; 1.9 with mean and deviation 0.5, 3.2 with pixels of 0 to 1.
"""
LARGEST_MEDIAN = 1.0
"""Of the gaps at all batch norms. Measured there: 0.2 as trained; 2.3 and 2.7 with SiLU and Hardswish for ReLU6."""


def prove(network: nn.Module, spec: InputSpec, labels: Sequence[str] | None) -> Proof:
    """Return what `network`, in evaluation mode and at the input `spec` of its weights, answers to the photographs.

    Args:
        labels: of its logits, where they are known.
    """
    network.eval()
    logits_NK, gaps = _look(network, spec)
    names = names_of(logits_NK, labels)
    first, median = (gaps[0], float(torch.tensor(gaps).median())) if gaps else (None, None)
    problem, hint = names.problem, names.hint
    finite = bool(np.isfinite(logits_NK).all())
    if finite and first is not None and first > LARGEST_FIRST:
        problem = (
            f"the first batch norm sees variances e^{first:.1f} times as large or small as those it was trained on"
        )
        hint = _better_scaling(network, spec, first)
    elif finite and median is not None and median > LARGEST_MEDIAN:
        problem = (
            f"batch norms see variances e^{median:.1f} times as large or small as those they were trained on: the "
            "layers fit, and something between them is another network's"
        )
        hint = "another variant of this architecture: other activations, strides or epsilon"
    return Proof(
        first_gap=first,
        median_gap=median,
        num_named=names.num_named,
        num_asked=names.num_asked,
        problem=problem,
        hint=hint,
    )


@torch.no_grad()
def _look(network: nn.Module, spec: InputSpec) -> tuple[Floats, list[float]]:
    """Return logits N x K of the photographs, and each batch norm's gap in the order in which they are called."""
    gaps: list[float] = []

    def compare(norm: _BatchNorm, inputs: tuple[torch.Tensor, ...]) -> None:
        assert norm.running_var is not None
        seen_C = inputs[0].float().transpose(0, 1).flatten(1).var(dim=1)
        ratio_C = (seen_C + norm.eps) / (norm.running_var + norm.eps)
        gaps.append(float(ratio_C.log().abs().median()))

    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_var is not None]
    hooks = [norm.register_forward_pre_hook(compare) for norm in norms]
    try:
        device = next(network.parameters()).device
        logits_NK: Floats = network(torch.from_numpy(photographs(spec)).to(device)).float().cpu().numpy()
    finally:
        for hook in hooks:
            hook.remove()
    return logits_NK, gaps


def _better_scaling(network: nn.Module, spec: InputSpec, gap: float) -> str | None:
    """Return a hint that names the usual scaling with which the first batch norm sees what it saw, if there is one."""
    if spec.channels != 3:
        return None
    found = {}
    for word, scaling in SCALINGS.items():
        gaps = _look(network, dataclasses.replace(spec, mean=scaling.mean, std=scaling.std))[1]
        found[word] = gaps[0]
    word = min(found, key=lambda word: found[word])
    if found[word] > LARGEST_FIRST or found[word] > gap / 2:
        return None
    return f"they fit {SCALINGS[word].name}: {SCALINGS[word].typed()}"
