"""A child process: a bundle's network made a TensorFlow Lite file by litert-torch, for one image.

    python -m linne.exporting.convert_tflite BUNDLE FILE planes|pixels trust|-

It is a process of its own, since the converter brings JAX, whose threads forbid to fork, and compilers in C++ that talk
to the terminal and may end the process that they are in.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linne.child import say
from linne.errors import LinneError
from linne.exporting.torch_talk import first_line

if TYPE_CHECKING:
    from torch import nn

    from linne.bundle import Bundle

IMAGES, LOGITS = "images", "logits"
PACKAGES = ("litert-torch", "litert-converter")


def main(words: list[str]) -> None:
    """Convert, and report `converted`, `refused` with what is wrong with the bundle, or `failed` with the error."""
    from linne.host import prepare_for_torch

    bundle, file, form, trust = words
    prepare_for_torch()
    try:
        from linne.bundle import open_bundle
        from linne.exporting.answers import network_to_export

        opened = open_bundle(bundle)
        network = network_to_export(opened, trust_code=trust == "trust")
        Path(file).write_bytes(converted(network, opened, pixels=form == "pixels"))
        say("converted", versions={name: metadata.version(name) for name in PACKAGES})
    except LinneError as error:
        say("refused", why=error.message, hint=error.hint)
    except Exception as error:  # whatever the converter raises
        say("failed", error=first_line(error))


def converted(network: nn.Module, bundle: Bundle, *, pixels: bool) -> bytes:
    """Return the TensorFlow Lite file of `network`, which takes `images` and gives `logits`.

    Args:
        pixels: whether it takes uint8 N x H x W x C and scales them, instead of float32 N x C x H x W.
    """
    import litert_torch
    import torch

    from linne.preprocess import scale_and_bias

    spec = bundle.input
    scale_C, bias_C = (torch.from_numpy(values) for values in scale_and_bias(spec))

    class Whole(torch.nn.Module):
        """The network with names for what goes in and comes out."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            if pixels:
                images = (images.to(torch.float32) * scale_C + bias_C).permute(0, 3, 1, 2)
            return {LOGITS: self.network(images)}

    size = (spec.height, spec.width, spec.channels) if pixels else (spec.channels, spec.height, spec.width)
    example = torch.zeros((1, *size), dtype=torch.uint8 if pixels else torch.float32)
    made: Any = litert_torch.convert(Whole().eval(), sample_kwargs={IMAGES: example})
    return bytes(made.model_content())


if __name__ == "__main__":
    main(sys.argv[1:])
