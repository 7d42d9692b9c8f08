"""The multilayer perceptron of the tutorials: one hidden layer, no notion of an image."""

from __future__ import annotations

from torch import nn

HIDDEN = 128
"""As in Keras' and TensorFlow's first tutorial, so that results compare."""


def build_mlp(num_classes: int, channels: int, height: int, width: int, dropout: float | None) -> nn.Module:
    """Return Flatten, Linear(C H W, 128), ReLU, Dropout if asked for, Linear(128, K)."""
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(channels * height * width, HIDDEN), nn.ReLU()]
    if dropout is not None:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(HIDDEN, num_classes))
