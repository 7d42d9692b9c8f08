"""The torch backend: builds the bundle's network with `linne.models` and runs it in eval mode."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Self, cast

from linne.bundle import WEIGHTS, Bundle
from linne.exports import Precision
from linne.inference.backends.base import Option, RunOptions
from linne.preprocess import Floats

if TYPE_CHECKING:
    from torch import nn

    from linne.device.fallbacks import Fallbacks


BY_ENVIRONMENT = {
    "miopen_search": ("MIOPEN_FIND_ENFORCE", "3"),
    "tunable_op": ("PYTORCH_TUNABLEOP_ENABLED", "1"),
}
"""Options that libraries read from the environment, before their first use; 3 is MIOpen's SEARCH."""


class TorchBackend:
    """A torch network with a bundle's weights on one device."""

    PRECISIONS: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "bf16")
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "channels_last": Option(("false", "true"), "keep the channels of a pixel together in memory", tried=("true",)),
        "compile": Option(
            ("no", "default", "reduce-overhead", "max-autotune"),
            "torch.compile, which takes its time before the first answer",
            tried=("default",),
        ),
        "cudnn_benchmark": Option(
            ("false", "true"),
            "time cuDNN's or MIOpen's kernels for each shape before the first answer",
            tried=("true",),
            tried_on="gpu",
        ),
        "miopen_search": Option(
            ("off", "on"),
            "let MIOpen search the parameters of its kernels for shapes that it has none of, and keep them",
            tried=("on",),
            tried_on="amd",
        ),
        "tunable_op": Option(
            ("off", "on"),
            "let torch time the kernels of matrix products, and keep the best",
            tried=("on",),
            tried_on="amd",
        ),
    }

    def __init__(self, network: nn.Module, fallbacks: Fallbacks, description: str, how: RunOptions) -> None:
        self.network: nn.Module | None = network
        self.device = fallbacks.device
        self.fallbacks = fallbacks
        self.description = description
        self.batch_size: int | None = None
        self.canary_logits_NK: Floats | None = None
        self.precision = how.precision
        self.channels_last = how.options.get("channels_last") == "true"

    @classmethod
    def why_unavailable(cls) -> str | None:
        """Return why torch cannot be imported, or None."""
        try:
            import torch  # noqa: F401
        except ImportError as error:
            return f"torch cannot be imported ({error}); pip install 'linne[train]'"
        return None

    @classmethod
    def why_not(cls, bundle: Bundle, precision: Precision = "fp32") -> str | None:
        """Return that it holds a graph, or None."""
        return None if bundle.network_file == WEIGHTS else f"it holds a graph, `{bundle.network_file}`, and no weights"

    @classmethod
    def open(cls, bundle: Bundle, how: RunOptions) -> Self:
        """Return the network on the device. Draws no number from torch's global generator.

        The number of threads is torch's own setting, and kernels are searched by torch's and MIOpen's own: for all that
        this process computes with them.
        """
        for option, (name, value) in BY_ENVIRONMENT.items():
            if how.options.get(option) == "on":
                os.environ[name] = value
        import torch

        from linne.device import Device
        from linne.device.fallbacks import Fallbacks
        from linne.models.from_bundle import network_of

        picked = Device.pick(how.device, require_accelerator=how.require_accelerator)
        network = network_of(bundle, trust_code=how.trust_code).to(picked.torch_device)
        if how.options.get("channels_last") == "true":
            network = network.to(memory_format=torch.channels_last)
        if how.options.get("cudnn_benchmark") == "true":
            torch.backends.cudnn.benchmark = True
        if how.num_threads is not None:
            torch.set_num_threads(how.num_threads)
        mode = how.options.get("compile", "no")
        if mode != "no":
            network = cast("nn.Module", torch.compile(network, mode=mode))
        fallbacks = Fallbacks(picked, allowed=not how.require_accelerator)
        how_so = "" if how.precision == "fp32" else f" in {how.precision}"
        compiled = "" if mode == "no" else ", compiled"
        return cls(network, fallbacks, f"torch {torch.__version__} on {picked.name}{how_so}{compiled}", how)

    def run(self, images_NCHW: Floats) -> Floats:
        """Return logits N x K; warns once of each set of operators that the device leaves to the CPU."""
        import torch

        if self.network is None:
            raise RuntimeError("the backend is closed")
        known = set(self.fallbacks.counts)
        images = torch.from_numpy(images_NCHW).to(self.device.torch_device)
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with (
            torch.no_grad(),
            self.device.full_precision(),
            self.device.autocast(self.precision),
            self.fallbacks.watch(),
        ):
            logits_NK: Floats = self.network(images).float().cpu().numpy()
        self.fallbacks.check()
        if set(self.fallbacks.counts) != known:
            warnings.warn(f"{self.fallbacks.in_words()}", RuntimeWarning, stacklevel=2)
        return logits_NK

    def close(self) -> None:
        """Let go of the network; torch keeps device memory for the next one."""
        self.network = None
