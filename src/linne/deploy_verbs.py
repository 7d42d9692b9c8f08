"""Verbs that bring a bundle to where it runs, as functions: export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from linne.host import prepare_for_torch
from linne.log import Narrator

if TYPE_CHECKING:
    from linne.exporting.wish import Exported, Exporter
    from linne.exports import Precision


def export(
    bundle: str | Path,
    to: str,
    *,
    precision: Precision = "fp32",
    bake_preprocessing: bool = False,
    exporter: Exporter = "auto",
    opset: int | None = None,
    replace: bool = False,
    trust_code: bool = False,
    quiet: bool = False,
) -> Exported:
    """Return what was made of `bundle` for another runtime, verified, in the bundle's `exports/`.

    Args:
        to: "onnx", "torch-export" or "torchscript".
        precision: "fp32", or of "onnx" also "fp16".
        bake_preprocessing: Of "onnx": take uint8 N x H x W x C of the bundle's input size, and scale it in the graph.
        exporter: Which of torch's two writers of ONNX, "dynamo" or "script"; "auto" keeps the first that verifies.
        opset: ONNX's operator set; None for 18.
        replace: Put it in the place of an export of the same name.
        trust_code: Whether the Python file may be run that a bundle of your own network names.
        quiet: Say nothing on stderr.

    Raises:
        LinneError: the bundle cannot be exported like this, or there is such an export.
        CheckFailed: what was made does not answer as the bundle does; nothing is written.
    """
    prepare_for_torch()
    from linne.bundle import open_bundle
    from linne.exporting import export_bundle
    from linne.exporting.wish import Wish

    wish = Wish(precision=precision, pixels=bake_preprocessing, exporter=exporter, opset=opset, trust_code=trust_code)
    return export_bundle(open_bundle(bundle), to, wish, replace=replace, say=Narrator(quiet=quiet).line)
