"""The OpenVINO backend: runs a bundle's graph, or its export to OpenVINO, on Intel's devices and any x86 or Arm CPU."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from linne.bundle import Bundle
from linne.errors import BundleError, DeviceError, LinneError
from linne.exports import Precision, graph_of, has_export, has_graph, open_export
from linne.graphs.openvino_model import OpenVinoModel, why_no_openvino
from linne.inference.backends.base import Option, RunOptions
from linne.preprocess import Floats

KIND = "openvino"


class OpenVinoBackend:
    """A bundle's network compiled by OpenVINO for one device."""

    PRECISIONS: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "bf16", "int8")
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "hint": Option(
            ("latency", "throughput"), "one batch at a time, or parts of it at the same time", tried=("throughput",)
        ),
        "batch": Option(
            ("any", "fixed"), "compile once, or for each batch size: quicker once it is done", tried=("fixed",)
        ),
    }

    def __init__(self, model: OpenVinoModel, canary_logits_NK: Floats | None = None) -> None:
        self.model: OpenVinoModel | None = model
        self.description = model.description
        self.batch_size: int | None = None
        self.canary_logits_NK = canary_logits_NK

    @classmethod
    def why_unavailable(cls) -> str | None:
        """Return why OpenVINO cannot be imported, or None."""
        return why_no_openvino()

    @classmethod
    def why_not(cls, bundle: Bundle, precision: Precision = "fp32") -> str | None:
        """Return that there is nothing that OpenVINO reads, or None."""
        if _export_of(bundle, precision) is not None or has_graph(bundle, _read_as(precision)):
            return None
        kind, asked = (KIND, precision) if precision == "int8" else ("onnx", "fp32")
        return f"it has no graph for OpenVINO: linne export {bundle.path} --to {kind} --precision {asked}"

    @classmethod
    def open(cls, bundle: Bundle, how: RunOptions) -> Self:
        """Return the network compiled; warns where `auto` could not use an accelerator. It has no code to trust."""
        network, name, canary_logits_NK = _network_of(bundle, how.precision)
        try:
            model = OpenVinoModel(
                network,
                name,
                device=how.device,
                precision=how.precision,
                require_accelerator=how.require_accelerator,
                num_threads=how.num_threads,
                hint=how.options.get("hint", "latency"),
                fixed_batch=how.options.get("batch", "any") == "fixed",
            )
        except DeviceError:
            raise
        except LinneError as error:
            raise BundleError(f"bundle `{bundle.path}`: {error.message}", hint=error.hint) from error
        for note in model.notes:
            warnings.warn(note, RuntimeWarning, stacklevel=2)
        return cls(model, canary_logits_NK)

    def run(self, images_NCHW: Floats) -> Floats:
        """Return logits N x K."""
        if self.model is None:
            raise RuntimeError("the backend is closed")
        return self.model.run(images_NCHW)

    def close(self) -> None:
        """Let go of the network; OpenVINO gives its memory back."""
        self.model = None


def _read_as(precision: Precision) -> Precision:
    """Return the precision of the graph that is read: half precision is computed from the one in fp32."""
    return "int8" if precision == "int8" else "fp32"


def _export_of(bundle: Bundle, precision: Precision) -> Precision | None:
    """Return in which precision there is an export to OpenVINO that serves for `precision`, the nearest first."""
    fitting = dict.fromkeys((precision, _read_as(precision)))
    return next((made for made in fitting if has_export(bundle, KIND, made)), None)


def _network_of(bundle: Bundle, precision: Precision) -> tuple[bytes | Path, str, Floats | None]:
    """Return what OpenVINO is given, its name, and what it answered to the canaries: an export to OpenVINO, or a graph.

    Raises:
        BundleError: it was altered, or made of another state of the bundle.
    """
    made = _export_of(bundle, precision)
    if made is not None:
        export = open_export(bundle, KIND, made)
        logits_NK = np.array(export.canary_logits, dtype=np.float32)
        return export.main_file, str(export.main_file.relative_to(bundle.path)), logits_NK
    graph = graph_of(bundle, _read_as(precision))
    name = str(graph.path.relative_to(bundle.path))
    try:
        return graph.path.read_bytes(), name, graph.canary_logits_NK
    except OSError as error:
        raise BundleError(f"bundle `{bundle.path}`: {error.strerror}") from error
