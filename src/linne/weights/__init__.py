"""Pretrained weights: from a file or folder on this machine into a network.

`read_weights` reads tensors, never code, and what lies beside them; `fit_weights` puts them into a network that may
have other classes, another number of channels or another image size than the one they were trained in.
Importing this module imports no framework.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from linne.preprocess import InputSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["Fit", "Weights", "fit_weights", "input_for_channels", "num_classes_in", "read_weights"]

MOST_NAMES = 3
"""Tensors named in a line for people."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Tensors as a file holds them, on the CPU, and what the file or folder says about them."""

    tensors: Mapping[str, torch.Tensor]
    origin: str
    """What to call them to a person: the path as typed."""
    sha256: str
    """Of the file; of a sharded set, of the bytes of its index and its shards in order."""
    labels: tuple[str, ...] | None
    """What output k is for, where something beside the tensors says so."""
    input: InputSpec | None
    """How pixels were prepared for them; None where unsaid."""
    model: str | None
    """The full name of the network they say they are for: `timm/resnet18`, `hf:vit`; None where unsaid."""
    part: str | None = None
    """Which entry of a checkpoint they are, where it is not the file as a whole: `state_dict_ema`."""
    licence: str | None = None
    """As a bundle states that of the published weights it was made or trained from; None where unsaid."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What became of a file's tensors in a network. All names are of tensors, in backticks where text follows."""

    kept: int
    """Tensors taken as they were."""
    adapted: tuple[str, ...]
    """Tensors changed on the way, and how: "`conv1.weight`: 3 channels summed to 1"."""
    fresh: tuple[str, ...]
    """The network's tensors that keep their random values, such as a classifier of other classes."""
    dropped: tuple[str, ...]
    """The file's tensors that nobody took, and why: "`aux1.fc1.weight`: the network has no auxiliary classifier"."""
    notes: tuple[str, ...] = ()
    """How the file was read: the entry taken from a checkpoint, the prefix taken off every name."""

    def lines(self) -> list[str]:
        """Return the fit for people: at most a few lines, whatever the size of the network."""
        lines = [f"{self.kept} tensors taken as they are", *self.notes]
        lines += [f"adapted {item}" for item in self.adapted[:MOST_NAMES]]
        if len(self.adapted) > MOST_NAMES:
            lines.append(f"adapted {len(self.adapted) - MOST_NAMES} more in the same way")
        if self.fresh:
            lines.append(f"random: {_few(tuple(f'`{name}`' for name in self.fresh))}")
        if self.dropped:
            lines.append(f"left out: {_few(self.dropped)}")
        return lines


def read_weights(path: Path) -> Weights:
    """Return the tensors in `path` and what is said beside them. No code in a file is run, nothing is fetched.

    Args:
        path: a `.safetensors`, torch (`.pth`, `.pt`, `.bin`, `.tar`, `.ckpt`) or `.onnx` file; a folder of timm or
            Hugging Face; a bundle; or a run's folder.

    Raises:
        LinneError: nothing there, of a kind that is not read (with the way out), damaged, or over a limit.
    """
    from linne.weights.reading import read

    return read(path)


def fit_weights(network: nn.Module, weights: Weights, *, full_name: str) -> Fit:
    """Return what became of `weights` in `network`, which is changed in place, or left alone when this raises.

    Args:
        full_name: what the user calls the network, for errors: `timm/resnet18`.

    Raises:
        RecipeError: these are weights of another network, a tensor has a shape that nothing explains, or a value
            that is not finite.
    """
    from linne.weights.fitting import fit

    return fit(network, weights, full_name=full_name)


def num_classes_in(weights: Weights, full_name: str, *, trust_code: bool = False) -> int:
    """Return how many classes the classifier in `weights` has, if they are of the network `full_name`.

    With `trust_code` that may be a Python file.

    Raises:
        RecipeError: they hold no classifier of that network.
    """
    from linne.weights.counting import num_classes_in as count

    return count(weights, full_name, trust_code=trust_code)


def input_for_channels(spec: InputSpec, channels: int) -> InputSpec:
    """Return `spec` for images of `channels`, to go with a first layer that `fit_weights` adapted.

    From colour to grey: a grey value g was seen as (g - m_c) / s_c in colour c; the one number nearest to the three
    is their average, which is (g - m) / s with 1/s the average of 1/s_c and m = s times the average of m_c / s_c.
    It is exact when the colours share one mean and deviation; with ImageNet's each is off by at most 0.21 deviations.
    From grey to colour every colour gets the grey one's.
    """
    from dataclasses import replace

    if channels == spec.channels:
        return spec
    if channels == 1:
        std = spec.channels / sum(1 / s for s in spec.std)
        mean = std * sum(m / s for m, s in zip(spec.mean, spec.std, strict=True)) / spec.channels
        return replace(spec, channels=1, mean=(mean,), std=(std,))
    return replace(spec, channels=channels, mean=spec.mean * channels, std=spec.std * channels)


def _few(items: tuple[str, ...]) -> str:
    more = f" and {len(items) - MOST_NAMES} more" if len(items) > MOST_NAMES else ""
    return ", ".join(items[:MOST_NAMES]) + more
