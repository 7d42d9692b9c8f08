"""A bundle as torch.export's program, a `.pt2` file: for PyTorch itself, AOTInductor and ExecuTorch."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from linne.bundle import Bundle
from linne.exporting.torch_files import make_torch_file
from linne.exporting.wish import Made, Wish

if TYPE_CHECKING:
    import torch
    from torch import nn

MAIN = "model.pt2"
PRECISIONS = ("fp32", "fp16", "bf16")


def make(bundle: Bundle, wish: Wish, say: Callable[[str], None]) -> Made:
    """Return the program of `bundle`, verified; raises as `make_torch_file`."""
    return make_torch_file(bundle, wish, "torch-export", MAIN, say, write=_write, read=_read, precisions=PRECISIONS)


def _write(network: nn.Module, example: torch.Tensor, texts: dict[str, str]) -> bytes:
    import torch

    program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("N")},))
    stream = io.BytesIO()
    torch.export.save(program, stream, extra_files=dict(texts))
    return stream.getvalue()


def _read(content: bytes) -> Callable[[torch.Tensor], torch.Tensor]:
    import torch

    network: Callable[[torch.Tensor], torch.Tensor] = torch.export.load(io.BytesIO(content)).module()
    return network
