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
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from linne.data.images.decode import decode_file
from linne.preprocess import InputSpec, normalise, resize_and_crop

FOLDER = Path(__file__).parent / "photographs"
SHOWN = {
    "cat.jpg": ("tabby", "tiger cat", "egyptian cat"),
    "coffee.jpg": ("espresso", "coffee mug", "cup"),
    "rocket.jpg": ("missile", "projectile", "space shuttle"),
    "astronaut.jpg": (),
}
"""By photograph: ImageNet's names for what is on it; none where it has no name for it."""
TOP = 5

LARGEST_FIRST = 1.2
"""Of the gap at the first batch norm, which sees what the pixels were scaled to.

Measured on torchvision's MobileNetV2: 0.3 as trained; 1.9 with mean and deviation 0.5, 3.2 with pixels of 0 to 1.
"""
LARGEST_MEDIAN = 1.0
"""Of the gaps at all batch norms. Measured there: 0.2 as trained; 2.3 and 2.7 with SiLU and Hardswish for ReLU6."""

SCALINGS = {
    "ImageNet's mean and deviation": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "mean and deviation 0.5": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "pixels of 0 to 1": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "pixels of 0 to 255": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
}
"""What networks are trained with, by what people call it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """What the photographs showed."""

    first_gap: float | None
    """Median over channels of |log(variance seen / variance kept)| at the first batch norm; None without one."""
    median_gap: float | None
    """The same, median over all batch norms."""
    num_named: int | None
    """Photographs for which one of the first five labels is right; None where the labels have no names for them."""
    num_asked: int | None
    problem: str | None
    """Why these weights are not to be used like this, or None."""
    hint: str | None = None

    def line(self) -> str:
        """Return what was found, in one line."""
        if self.problem is not None:
            return self.problem
        found = []
        if self.num_named is not None:
            found.append(f"{self.num_named} of {self.num_asked} photographs named right")
        if self.median_gap is not None:
            found.append("batch norms see what they saw in training")
        return ", ".join(found) or "answers are finite; nothing else can be checked without batch norms or known labels"


def prove(network: nn.Module, spec: InputSpec, labels: Sequence[str] | None) -> Proof:
    """Return what `network`, in evaluation mode and at the input `spec` of its weights, answers to the photographs.

    Args:
        labels: of its logits, where they are known.
    """
    network.eval()
    logits_NK, gaps = _look(network, spec)
    asked = [position for position, accepted in enumerate(SHOWN.values()) if _positions(labels, accepted)]
    named = [p for p in asked if _positions(labels, list(SHOWN.values())[p]) & _top(logits_NK[p])]
    first, median = (gaps[0], float(torch.tensor(gaps).median())) if gaps else (None, None)
    problem, hint = None, None
    if not torch.isfinite(logits_NK).all():
        problem = "answers to photographs are not finite numbers"
    elif first is not None and first > LARGEST_FIRST:
        problem = (
            f"the first batch norm sees variances e^{first:.1f} times as large or small as those it was trained on"
        )
        hint = _better_scaling(network, spec, first)
    elif median is not None and median > LARGEST_MEDIAN:
        problem = (
            f"batch norms see variances e^{median:.1f} times as large or small as those they were trained on: the "
            "layers fit, and something between them is another network's"
        )
        hint = "another variant of this architecture: other activations, strides or epsilon"
    elif asked and 2 * len(named) < len(asked):
        problem = f"of {len(asked)} photographs {len(named)} got a right name among the first five"
        hint = "labels in another order, or another network's weights"
    return Proof(
        first_gap=first,
        median_gap=median,
        num_named=len(named) if asked else None,
        num_asked=len(asked) if asked else None,
        problem=problem,
        hint=hint,
    )


def _positions(labels: Sequence[str] | None, accepted: Sequence[str]) -> set[int]:
    """Return which labels are names that are `accepted`. Lists write several names of a class with commas."""
    wanted = set(accepted)
    return {
        position
        for position, label in enumerate(labels or ())
        if not wanted.isdisjoint(name.strip().lower().replace("_", " ") for name in label.split(","))
    }


def _top(logits_K: torch.Tensor) -> set[int]:
    return set(logits_K.topk(min(TOP, len(logits_K))).indices.tolist())


@torch.no_grad()
def _look(network: nn.Module, spec: InputSpec) -> tuple[torch.Tensor, list[float]]:
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
        images = [resize_and_crop(decode_file(FOLDER / name, spec.channels), spec) for name in SHOWN]
        batch_NCHW = torch.stack([torch.from_numpy(normalise(image[None], spec)[0]) for image in images])
        device = next(network.parameters()).device
        logits_NK = network(batch_NCHW.to(device)).float().cpu()
    finally:
        for hook in hooks:
            hook.remove()
    return logits_NK, gaps


def _better_scaling(network: nn.Module, spec: InputSpec, gap: float) -> str | None:
    """Return a hint that names the usual scaling with which the first batch norm sees what it saw, if there is one."""
    if spec.channels != 3:
        return None
    found = {}
    for name, (mean, std) in SCALINGS.items():
        gaps = _look(network, dataclasses.replace(spec, mean=mean, std=std))[1]
        found[name] = gaps[0]
    name = min(found, key=lambda scaling: found[scaling])
    if found[name] > LARGEST_FIRST or found[name] > gap / 2:
        return None
    mean, std = SCALINGS[name]
    typed = " ".join(
        f"{key}={','.join(f'{value:.4g}' for value in values)}" for key, values in (("mean", mean), ("std", std))
    )
    return f"they fit {name}: {typed}"
