"""A bundle as a file that torch alone opens: written, opened again from the same bytes, and compared."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from linne.bundle import WEIGHTS, Bundle
from linne.errors import CheckFailed, RecipeError
from linne.exporting.agreement import SHARES, compare, require_agreement, trial_of
from linne.exporting.answers import answers_of, network_to_export
from linne.exporting.torch_talk import first_line, quietly
from linne.exporting.wish import Made, Wish
from linne.exports import Precision
from linne.preprocess import Floats, UInt8

if TYPE_CHECKING:
    import torch
    from torch import nn

LABELS, INPUT = "labels.json", "input.json"
"""Texts that torch keeps in the file beside the network, and gives to who asks for `extra_files`."""

Write = Callable[["nn.Module", "torch.Tensor", dict[str, str]], bytes]
Read = Callable[[bytes], Callable[["torch.Tensor"], "torch.Tensor"]]


def make_torch_file(
    bundle: Bundle,
    wish: Wish,
    kind: str,
    main: str,
    say: Callable[[str], None],
    *,
    write: Write,
    read: Read,
    precisions: Sequence[str] = ("fp32",),
) -> Made:
    """Return the file `main` of `bundle`, verified.

    Args:
        write: returns the file of a network, given an example batch and the texts that go with it.
        read: returns what computes logits, from the bytes of such a file. They were written a moment ago by this very
            process; linne opens no such file otherwise, since both formats can carry code.
        precisions: those that `kind` can be in.

    Raises:
        RecipeError: the bundle is a graph, or the wish is none that `kind` can fulfil.
        CheckFailed: torch cannot write or read it, or it does not answer as the bundle does.
    """
    wish.require_plain(kind, precisions)
    if bundle.network_file != WEIGHTS:
        raise RecipeError(
            f"bundle `{bundle.path}` holds a graph, `{bundle.network_file}`, which torch does not run",
            hint="use its graph, or --to onnx --precision fp16",
        )
    import torch

    trial = trial_of(bundle)
    if trial.note is not None:
        say(trial.note)
    say(f"answering {len(trial.images_NHWC)} images with the bundle: {trial.what}")
    expected_NK = answers_of(bundle, trial, trust_code=wish.trust_code)
    texts = {LABELS: json.dumps(list(bundle.labels)), INPUT: json.dumps(bundle.input.to_dict())}
    example = torch.from_numpy(trial.images_NCHW[:2])
    say(f"exporting with torch {torch.__version__} to {kind}")
    started = time.perf_counter()
    try:
        with quietly():
            network = in_precision(network_to_export(bundle, trust_code=wish.trust_code), wish.precision)
            content = write(network, example, texts)
            run = _running(read(content))
        say(f"exported in {time.perf_counter() - started:.1f} s, {len(content) / 1e6:.1f} MB")
        agreement = compare(trial, expected_NK, run, share=SHARES[wish.precision])
    except Exception as error:  # of torch's own many kinds
        raise CheckFailed(f"bundle `{bundle.path}` cannot be exported to {kind}: {first_line(error)}") from error
    require_agreement(agreement, f"the {kind} file")
    say(agreement.line())
    canaries_NK = run(trial.images_NCHW[: len(bundle.canaries)])
    return Made(files={main: content}, main=main, canary_logits_NK=canaries_NK, agreement=agreement, facts={})


def in_precision(network: nn.Module, precision: Precision) -> nn.Module:
    """Return `network` with weights in `precision`, which takes and gives float32."""
    if precision == "fp32":
        return network
    import torch
    from torch import nn

    number = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network.to(number)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.network(images.to(number))
            return logits.float()

    return Half().eval()


def _running(network: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Floats | UInt8], Floats]:
    """Return `network` from arrays to arrays."""

    def run(images_NCHW: Floats | UInt8) -> Floats:
        import torch

        with torch.no_grad():
            answers: Any = network(torch.from_numpy(np.ascontiguousarray(images_NCHW)))
        logits_NK: Floats = answers.numpy()
        return logits_NK

    return run
