"""A bundle as TorchScript, a `.pt` file: for C++ programs with libtorch that cannot change yet. torch deprecates it."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from linne.bundle import Bundle
from linne.exporting.torch_files import make_torch_file
from linne.exporting.wish import Made, Wish

if TYPE_CHECKING:
    import torch
    from torch import nn

MAIN = "model.pt"


def make(bundle: Bundle, wish: Wish, say: Callable[[str], None]) -> Made:
    """Return the recorded network of `bundle`, verified; raises as `make_torch_file`."""
    say("torch deprecates TorchScript; `--to torch-export` is what replaces it")
    return make_torch_file(bundle, wish, "torchscript", MAIN, say, write=_write, read=_read)


def _write(network: nn.Module, example: torch.Tensor, texts: dict[str, str]) -> bytes:
    import torch

    # torch compares the recording with another run itself; here that is done on more images and batches.
    jit: Any = torch.jit
    recorded = jit.trace(network, example, check_trace=False)
    stream = io.BytesIO()
    jit.save(recorded, stream, _extra_files={name: text.encode() for name, text in texts.items()})
    return stream.getvalue()


def _read(content: bytes) -> Callable[[torch.Tensor], torch.Tensor]:
    import torch

    jit: Any = torch.jit
    network: Callable[[torch.Tensor], torch.Tensor] = jit.load(io.BytesIO(content), map_location="cpu")
    return network
