"""linne's own network: a small residual convolutional network, sized by the input, made to be trained in minutes.

Chosen by measuring accuracy for the same CPU time (docs/benchmarks/small-network.md):
halving the map early and pooling right after each widening convolution buys more epochs than it costs accuracy.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

LAST_WIDTH = 256
"""Channels of the last stage for colour images."""
MIN_WIDTH = 16
MANY_CLASSES = 50


def build_small(
    num_classes: int, channels: int, height: int, width: int, dropout: float | None, scale: float | None = None
) -> nn.Module:
    """Return the network for `channels` x `height` x `width` images, `scale` times as wide as we would have it.

    Grey images get half the channels of colour ones, more than 50 classes twice as many.
    """
    last = LAST_WIDTH if channels == 3 else LAST_WIDTH // 2
    if num_classes > MANY_CLASSES:
        last *= 2
    if scale is not None:
        last = max(MIN_WIDTH, 8 * round(last * scale / 8))
    side = min(height, width)
    stride = 1 if side < 16 else 2 if side < 160 else 4
    # Each stage halves the map; enough of them to leave about 2 x 2.
    num_stages = max(1, min(6, round(math.log2(max(side / stride, 2))) - (1 if stride > 1 else 0)))
    widths = [max(MIN_WIDTH, last >> (num_stages - 1 - i)) for i in range(num_stages)]
    map_size = (height // stride, width // stride)
    return SmallNet(num_classes, channels, stride, widths, map_size, dropout)


class SmallNet(nn.Module):
    """A strided stem, then stages of convolution, pooling and a residual convolution; the last without it."""

    def __init__(
        self,
        num_classes: int,
        channels: int,
        stride: int,
        widths: list[int],
        map_size: tuple[int, int],
        dropout: float | None,
    ) -> None:
        """`map_size` is the height and width that the stem leaves."""
        super().__init__()
        width = max(MIN_WIDTH, widths[0] // 2)
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3 if stride == 1 else 2 * stride, stride, max(stride // 2, 1), bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        stages: list[nn.Module] = []
        for position, out in enumerate(widths):
            pool = (min(2, map_size[0]), min(2, map_size[1]))  # a side of one pixel stays
            map_size = (map_size[0] // pool[0], map_size[1] // pool[1])
            stages.append(Narrow(width, out, pool))
            if position < len(widths) - 1:
                stages.append(Residual(out))
            width = out
        self.stages = nn.Sequential(*stages)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.head = nn.Linear(width, num_classes)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """Return logits N x K."""
        features_NCHW = self.stages(self.stem(images_NCHW))
        # Not `amax`, whose gradient multiplies numbers with truths: on DirectML that gives truths (its issue 737).
        # As plain numbers, which recording a run (ONNX, TorchScript) needs.
        size = [int(side) for side in features_NCHW.shape[2:]]
        peaks_NC = functional.max_pool2d(features_NCHW, size).flatten(1)
        logits_NK: torch.Tensor = self.head(self.dropout(peaks_NC))
        return logits_NK


class Narrow(nn.Sequential):
    """Convolution to more channels, then half the map: pooling before the norm makes the norm four times cheaper."""

    def __init__(self, channels_in: int, channels_out: int, pool: tuple[int, int]) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
            nn.MaxPool2d(pool),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )


class Residual(nn.Module):
    """A convolution beside its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        )

    def forward(self, features_NCHW: torch.Tensor) -> torch.Tensor:
        """Return the input plus what the convolution finds in it."""
        return features_NCHW + self.body(features_NCHW)  # type: ignore[no-any-return]
