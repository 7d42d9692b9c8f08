"""A graph in int8, as ONNX Runtime's tools write it: QuantizeLinear and DequantizeLinear around what is quantised.

Weights are int8 with a scale for each channel, activations uint8 with one for the tensor. That is what ONNX Runtime
computes fastest on x86 and Arm; it turns int8 activations into uint8 on x86 itself.
"""

from __future__ import annotations

import math
import platform
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from linne.errors import LinneError
from linne.exporting.half import name_nodes, sort_nodes
from linne.exporting.ranges import Ranges
from linne.exporting.runtime_tools import importable
from linne.exporting.torch_talk import first_line, quietly
from linne.graphs.opening import ERRORS_ONLY

if TYPE_CHECKING:
    from onnx import ModelProto

HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that have weights and do the work."""
LIGHT = (
    *("Add", "Mul", "Relu", "Clip", "LeakyRelu", "Sigmoid", "Concat", "Split", "Resize", "Pad"),
    *("MaxPool", "AveragePool", "GlobalAveragePool"),
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"),
)
"""Operators between them that ONNX Runtime has in int8, so that numbers need not become floats and back."""
CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Layer:
    """A part of a graph that is quantised or not as a whole: an operator with weights and the light ones after it."""

    name: str
    """Of its operator with weights."""
    kind: str
    nodes: tuple[str, ...]
    macs: int
    """Multiplications for one image; 0 where the shapes are not known."""


def prepared(content: bytes) -> ModelProto:
    """Return the graph with batch norms folded, constants computed, a name for each node and types for each tensor.

    Raises:
        LinneError: ONNX Runtime cannot open it.
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    # What goes beyond this level is in operators of ONNX Runtime's own, and for this very processor.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "model.onnx")
        try:
            onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            model = onnx.load(options.optimized_model_filepath)
        except Exception as error:  # its own kinds, one for each status
            raise LinneError(f"the graph cannot be prepared for int8: {first_line(error)}") from error
    name_nodes(model)
    return onnx.shape_inference.infer_shapes(model)


def layers_of(model: ModelProto) -> tuple[Layer, ...]:
    """Return the parts of a prepared graph that can be quantised, in order.

    A light operator belongs to the last layer before it on which it depends.
    """
    shapes = _shapes(model)
    stored = {item.name: list(item.dims) for item in model.graph.initializer}
    owner: dict[str, int] = {}
    found: list[tuple[Any, list[str]]] = []
    for node in model.graph.node:
        before = max((owner[name] for name in node.input if name in owner), default=None)
        if node.op_type in HEAVY:
            before = len(found)
            found.append((node, [node.name]))
        elif node.op_type in LIGHT and before is not None:
            found[before][1].append(node.name)
        if before is not None:
            owner |= dict.fromkeys(node.output, before)
    return tuple(
        Layer(node.name, node.op_type, tuple(names), _macs(node, {**shapes, **stored})) for node, names in found
    )


def quantised(
    model: ModelProto, layers: Iterable[Layer], ranges: Ranges, *, in_float: Collection[str], reduce_range: bool
) -> bytes:
    """Return the prepared graph with all of `layers` in int8 but those named in `in_float`; `model` is left as it is.

    Raises:
        LinneError: ONNX Runtime's tools cannot write it.
    """
    import onnx

    with importable():
        from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
        from onnxruntime.quantization.calibrate import TensorsData

    nodes = [name for layer in layers if layer.name not in in_float for name in layer.nodes]
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    if not nodes:  # an empty list would mean all
        return bytes(changed.SerializeToString())
    pairs = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    try:
        with quietly():
            quantizer = QDQQuantizer(
                changed,
                per_channel=True,
                reduce_range=reduce_range,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8,
                tensors_range=TensorsData(CalibrationMethod.MinMax, pairs),
                nodes_to_quantize=nodes,
                nodes_to_exclude=[],
                op_types_to_quantize=[*HEAVY, *LIGHT],
                extra_options={},
            )
            quantizer.quantize_model()
            model_out = quantizer.model.model
            sort_nodes(model_out)
            _drop_metadata(model_out)
            onnx.checker.check_model(model_out)
    except Exception as error:  # of many kinds
        raise LinneError(f"the graph cannot be written in int8: {first_line(error)}") from error
    return bytes(model_out.SerializeToString())


def needs_reduced_range(cpuinfo: Path = CPUINFO, machine: str | None = None) -> tuple[bool, str]:
    """Return whether weights need 7 bits on this processor, and why.

    Products of uint8 and int8 are added in pairs to 16 bits by AVX2 and AVX-512 without VNNI, where two large ones
    stick at 32,767: 255 x 127 x 2 = 64,770. With weights of up to 64 they cannot.
    """
    machine = platform.machine() if machine is None else machine
    if machine.lower() not in ("x86_64", "amd64"):
        return False, f"{machine} adds products of int8 in 32 bits"
    try:
        text = cpuinfo.read_text(encoding="ascii", errors="replace")
    except OSError:
        return True, "the system does not say whether the processor has VNNI, and without it sums of int8 would stick"
    flags = next((line.partition(":")[2].split() for line in text.splitlines() if line.startswith("flags")), [])
    for name in ("avx512_vnni", "avx_vnni"):
        if name in flags:
            return False, f"the processor has {name}"
    return True, "the processor has no VNNI, whose sums would stick at 16 bits"


def share_of_work(layers: Sequence[Layer], names: Collection[str]) -> float:
    """Return what share of the multiplications is in the layers called `names`; of the layers, where none is known."""
    total = sum(layer.macs for layer in layers)
    if not total:
        return len(names) / max(len(layers), 1)
    return sum(layer.macs for layer in layers if layer.name in names) / total


def _drop_metadata(model: Any) -> None:
    """Take out what only ONNX Runtime's tools read: marks of inference, operator sets that no node is of."""
    used = {node.domain for node in model.graph.node}
    sets = [item for item in model.opset_import if item.domain in used]
    kept = [(item.domain, item.version) for item in sets]
    del model.opset_import[:]
    for domain, version in kept:
        item = model.opset_import.add()
        item.domain, item.version = domain, version


def _shapes(model: ModelProto) -> dict[str, list[int]]:
    """Return the shape of each tensor that is known, an open number of images as 1."""
    graph = model.graph
    return {
        item.name: [size.dim_value or 1 for size in item.type.tensor_type.shape.dim]
        for item in (*graph.input, *graph.value_info, *graph.output)
        if item.type.tensor_type.HasField("shape")
    }


def _macs(node: Any, shapes: Mapping[str, list[int]]) -> int:
    """Return the multiplications of one operator with weights for one image."""
    out, first, second = (shapes.get(name) for name in (node.output[0], node.input[0], node.input[1]))
    if out is None or second is None or first is None:
        return 0
    batch = max(out[0], 1) if out else 1
    if node.op_type == "Conv":
        return math.prod(out) * math.prod(second[1:]) // batch
    if node.op_type == "ConvTranspose":
        return math.prod(first) * math.prod(second[1:]) // batch
    flipped = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return math.prod(out) * (first[0] if flipped else first[-1]) // batch
