"""The torch backend: builds the bundle's network with `linne.models` and runs it in eval mode, in fp32."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from linne.bundle import Bundle
from linne.errors import BundleError
from linne.preprocess import Floats, Resize

if TYPE_CHECKING:
    from torch import nn

    from linne.device.fallbacks import Fallbacks

MAX_NAMES = 3
"""Tensors named in an error."""


class TorchBackend:
    """A torch network with a bundle's weights on one device."""

    def __init__(self, network: nn.Module, fallbacks: Fallbacks, description: str, resize: Resize) -> None:
        self.network: nn.Module | None = network
        self.device = fallbacks.device
        self.fallbacks = fallbacks
        self.description = description
        self.resize = resize

    @classmethod
    def why_unavailable(cls) -> str | None:
        """Return why torch cannot be imported, or None."""
        try:
            import torch  # noqa: F401
        except ImportError as error:
            return f"torch cannot be imported ({error}); pip install 'linne[train]'"
        return None

    @classmethod
    def open(cls, bundle: Bundle, device: str, *, require_accelerator: bool = False) -> Self:
        """Return the network on `device`. Draws no number from torch's global generator."""
        import torch

        from linne.device import Device
        from linne.device.fallbacks import Fallbacks
        from linne.fast_resize import torch_resize
        from linne.models import build
        from linne.models.provider import ModelRef

        picked = Device.pick(device, require_accelerator=require_accelerator)
        try:
            ref = ModelRef(**bundle.model)
        except TypeError as error:
            raise BundleError(f"bundle `{bundle.path}`: its model cannot be read: {error}") from error
        with torch.random.fork_rng(devices=[]):  # weights are drawn on the CPU
            network = build(ref)
        _load(network, bundle)
        network.eval().requires_grad_(False).to(picked.torch_device)
        fallbacks = Fallbacks(picked, allowed=not require_accelerator)
        return cls(network, fallbacks, f"torch {torch.__version__} on {picked.name}", torch_resize)

    def run(self, images_NCHW: Floats) -> Floats:
        """Return logits N x K; warns once of each set of operators that the device leaves to the CPU."""
        import torch

        if self.network is None:
            raise RuntimeError("the backend is closed")
        known = set(self.fallbacks.counts)
        with torch.no_grad(), self.device.full_precision(), self.fallbacks.watch():
            logits = self.network(torch.from_numpy(images_NCHW).to(self.device.torch_device))
            logits_NK: Floats = logits.float().cpu().numpy()
        self.fallbacks.check()
        if set(self.fallbacks.counts) != known:
            warnings.warn(f"{self.fallbacks.in_words()}", RuntimeWarning, stacklevel=2)
        return logits_NK

    def close(self) -> None:
        """Let go of the network; torch keeps device memory for the next one."""
        self.network = None


def _load(network: nn.Module, bundle: Bundle) -> None:
    """Copy the bundle's weights into `network`, which must have exactly their names and shapes."""
    import torch

    weights = bundle.weights()
    expected = network.state_dict()
    problems = [f"no `{name}`" for name in expected if name not in weights]
    problems += [f"unknown `{name}`" for name in weights if name not in expected]
    problems += [
        f"`{name}` is {_shape(weights[name].shape)}, expected {_shape(expected[name].shape)}"
        for name in expected
        if name in weights and tuple(weights[name].shape) != tuple(expected[name].shape)
    ]
    if problems:
        more = f" and {len(problems) - MAX_NAMES} more" if len(problems) > MAX_NAMES else ""
        raise BundleError(
            f"bundle `{bundle.path}`: the weights do not fit its model: {', '.join(problems[:MAX_NAMES])}{more}",
            hint="the model may have changed with the version of its package; `bundle.json` names the one it had",
        )
    network.load_state_dict({name: torch.from_numpy(value) for name, value in _writable(weights).items()})


def _writable(weights: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Older safetensors give read-only arrays, which torch warns of."""
    return {name: value if value.flags.writeable else np.array(value) for name, value in weights.items()}


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in shape) or "one number"
