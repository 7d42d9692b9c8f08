"""LeNet-5 as tutorials have it: two convolutions and three dense layers, with ReLU and pooling by the largest value."""

from __future__ import annotations

from torch import nn

WIDTHS = (6, 16)
"""Channels of the two convolutions (LeCun et al. 1998, C1 and C3)."""
HIDDEN = (120, 84)
"""Units of the two dense layers before the classifier (C5 and F6)."""
KERNEL, POOL = 5, 2


def build_lenet(num_classes: int, channels: int, height: int, width: int, dropout: float | None) -> nn.Module:
    """Return Conv 5x5, ReLU, MaxPool twice, then Linear 120, 84 and K; for 32 x 32 pixels 400 numbers reach the first.

    Nothing is padded, as in the original.

    Raises:
        ValueError: a side of less than 16 pixels leaves nothing to the dense layers.
    """
    layers: list[nn.Module] = []
    planes = channels
    for out in WIDTHS:
        layers += [nn.Conv2d(planes, out, KERNEL), nn.ReLU(inplace=True), nn.MaxPool2d(POOL)]
        planes, height, width = out, (height - KERNEL + 1) // POOL, (width - KERNEL + 1) // POOL
    if min(height, width) < 1:
        raise ValueError("the convolutions leave no pixel")
    layers.append(nn.Flatten())
    features = planes * height * width
    for out in HIDDEN:
        layers += [nn.Linear(features, out), nn.ReLU(inplace=True)]
        features = out
    if dropout is not None:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(features, num_classes))
