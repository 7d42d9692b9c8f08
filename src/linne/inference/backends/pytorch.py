"""The torch backend: builds the bundle's network with `linne.models` and runs it in eval mode, in fp32."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Self

from linne.bundle import WEIGHTS, Bundle
from linne.preprocess import Floats, Resize

if TYPE_CHECKING:
    from torch import nn

    from linne.device.fallbacks import Fallbacks


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
    def why_not(cls, bundle: Bundle) -> str | None:
        """Return that it holds a graph, or None."""
        return None if bundle.network_file == WEIGHTS else f"it holds a graph, `{bundle.network_file}`, and no weights"

    @classmethod
    def open(cls, bundle: Bundle, device: str, *, require_accelerator: bool = False, trust_code: bool = False) -> Self:
        """Return the network on `device`. Draws no number from torch's global generator."""
        import torch

        from linne.device import Device
        from linne.device.fallbacks import Fallbacks
        from linne.fast_resize import torch_resize
        from linne.models.from_bundle import network_of

        picked = Device.pick(device, require_accelerator=require_accelerator)
        network = network_of(bundle, trust_code=trust_code).to(picked.torch_device)
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
