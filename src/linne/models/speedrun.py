"""The network of the CIFAR-10 speed records, sized by the input: few layers, each of which learns in few steps.

A first layer of small patches, then three groups of two convolutions, each group halving the map, as in the networks
of Page (2018), Balsam (2023) and Jordan (2024, arXiv 2404.00498). What makes it fast is how it starts and learns, by
fields of its own: `model.whiten`, `model.dirac`, `optim.norm_bias_lr`, `optim.optimizer=muon`.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

MOST_DIRECTIONS = 96
"""Large patches vary little in most directions, which cost as much as the others."""
WIDTHS = (64, 256, 256)
"""Channels of the three groups; those of the record (Jordan 2024)."""
NORM_MOMENTUM = 0.4
"""Of the running statistics, against torch's 0.1: a short run changes faster than that average would follow."""


def build_speedrun(
    num_classes: int,
    channels: int,
    height: int,
    width: int,
    dropout: float | None,
    scale: float | None,
    stride: int | None,
) -> nn.Module:
    """Return the network for `channels` x `height` x `width` images, its groups `scale` times as wide.

    A patch lies every `stride` pixels, and its side is twice that: every pixel is in four of them. The records have
    one at every pixel; where time is counted on a CPU, one at every second is as accurate in two thirds of it
    (docs/guides/recipes.md).
    """
    if stride is None:
        side = min(height, width)
        stride = 1 if side < 16 else 2 if side < 160 else 4
    widths = [max(8, 8 * round(planes * (scale or 1) / 8)) for planes in WIDTHS]
    return SpeedrunNet(num_classes, channels, (height, width), stride, widths, dropout)


class SpeedrunNet(nn.Module):
    """Patches, groups of two convolutions, the largest value of each channel, a classifier."""

    def __init__(
        self,
        num_classes: int,
        channels: int,
        size: tuple[int, int],
        stride: int,
        widths: list[int],
        dropout: float | None,
    ) -> None:
        """`size` is the height and width of the images."""
        super().__init__()
        side = 2 * stride
        planes = min(2 * channels * side**2, MOST_DIRECTIONS)  # every direction of a patch, and its opposite
        self.patches = nn.Conv2d(channels, planes, side, stride)
        groups: list[nn.Module] = []
        map_size = ((size[0] - side) // stride + 1, (size[1] - side) // stride + 1)
        for out in widths:
            pool = (min(2, map_size[0]), min(2, map_size[1]))  # a side of one pixel stays
            map_size = (map_size[0] // pool[0], map_size[1] // pool[1])
            groups.append(Group(planes, out, pool))
            planes = out
        self.groups = nn.Sequential(*groups)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.head = nn.Linear(planes, num_classes, bias=False)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """Return logits N x K."""
        features_NCHW = self.groups(functional.gelu(self.patches(images_NCHW)))
        # As plain numbers, which recording a run (ONNX, TorchScript) needs.
        size = [int(side) for side in features_NCHW.shape[2:]]
        peaks_NC = functional.max_pool2d(features_NCHW, size).flatten(1)
        logits_NK: torch.Tensor = self.head(self.dropout(peaks_NC))
        return logits_NK


class Group(nn.Sequential):
    """Two convolutions, with half the map between the first and its norm, which makes the norm four times cheaper."""

    def __init__(self, channels_in: int, channels_out: int, pool: tuple[int, int]) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
            nn.MaxPool2d(pool),
            nn.BatchNorm2d(channels_out, momentum=NORM_MOMENTUM),
            nn.GELU(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out, momentum=NORM_MOMENTUM),
            nn.GELU(),
        )
