"""Checkpoints of Microsoft's DirectML samples, known by where they lie: they say nothing about themselves.

Their `cv/train.py` writes the weights of a network of torchvision, trained on CIFAR-10 at 224 pixels, to
`checkpoints/MODEL/DEVICE/checkpoint.pth`, and evaluates with Resize(256), CenterCrop(224) and ImageNet's scaling.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from linne.data.sources.cifar import CIFAR10_LABELS
from linne.preprocess import InputSpec
from linne.weights import Weights
from linne.weights.answers import SCALINGS

FILE, FOLDER = "checkpoint.pth", "checkpoints"


def sample_model(typed: str) -> str | None:
    """Return the network whose folder the path `typed` is in, where it is such a checkpoint's place; None elsewhere."""
    parts = Path(typed).expanduser().absolute().parts
    if len(parts) < 4 or parts[-1] != FILE or parts[-4] != FOLDER:
        return None
    return f"torchvision/{parts[-3]}"


def as_in_sample(weights: Weights) -> Weights:
    """Return `weights` with CIFAR-10's labels and the samples' preparation of images, where they say none."""
    scaling = SCALINGS["imagenet"]
    spec = InputSpec(
        channels=3,
        height=224,
        width=224,
        mean=scaling.mean,
        std=scaling.std,
        interpolation="bilinear",
        crop_pct=224 / 256,
    )
    return dataclasses.replace(weights, labels=weights.labels or CIFAR10_LABELS, input=weights.input or spec)
