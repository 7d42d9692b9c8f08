"""A graph in bf16: every number of it but those of its input and output, and constants that operators take in fp32."""

from __future__ import annotations

from typing import Any

import numpy as np

from linne.errors import LinneError
from linne.exporting.half import name_nodes, sort_nodes

LARGEST = float(np.array([0x7F7F0000], np.uint32).view(np.float32)[0])
"""Finite number of bf16: 3.39e38, where fp32 has 3.40e38."""

OPSET = 22
"""The first of ONNX's operator sets in which convolutions and pooling take bf16."""
IR_VERSION = 10
"""Of files with that operator set."""
BF16 = "tensor(bfloat16)"


def to_bfloat(content: bytes) -> bytes:
    """Return the graph in bf16, input and output in fp32, in operator set 22 or later.

    Weights are rounded to the nearest. bf16 reaches as far as fp32, to within a hundredth.

    Raises:
        LinneError: an operator of the graph does not take bf16, or nothing converts it to such an operator set.
    """
    import onnx
    from onnx import version_converter

    model = onnx.load_model_from_string(content)
    try:
        if _opset(model) < OPSET:
            model = version_converter.convert_version(model, OPSET)
        _constants_to_initializers(model)
        _change(model)
        _cast_ends(model)
        del model.graph.value_info[:]  # they name the types of before
        name_nodes(model)
        sort_nodes(model)
        model.ir_version = max(model.ir_version, IR_VERSION)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker's and the converter's own kinds
        reason = " ".join(str(error).split())[:300]
        raise LinneError(f"the graph cannot be written in bf16: {reason}") from error
    return bytes(model.SerializeToString())


def _opset(model: Any) -> int:
    return max(int(item.version) for item in model.opset_import if item.domain in ("", "ai.onnx"))


def _constants_to_initializers(model: Any) -> None:
    """Give what nodes hold as constants the form of weights."""
    from onnx import numpy_helper

    rest = []
    for node in model.graph.node:
        value = next((item for item in node.attribute if item.name in ("value", "value_float", "value_floats")), None)
        if node.op_type != "Constant" or value is None:
            rest.append(type(node).FromString(node.SerializeToString()))
            continue
        if value.name == "value":
            array = numpy_helper.to_array(value.t)
        else:
            array = np.array(value.f if value.name == "value_float" else list(value.floats), np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(rest)


def _change(model: Any) -> None:
    """Round weights, and let operators that make floats make bf16; a constant that is taken in fp32 alone stays so."""
    from onnx import TensorProto

    opset = _opset(model)
    stored = {item.name: item for item in model.graph.initializer}
    in_fp32: set[str] = set()
    for node in model.graph.node:
        if any(item.HasField("g") or item.graphs for item in node.attribute):
            raise LinneError(f"`{node.name or node.op_type}` holds a graph of its own")
        for place, name in enumerate(node.input):
            if name in stored and not _takes_bf16(node, place, opset):
                in_fp32.add(name)
        for item in node.attribute:
            if node.op_type == "Cast" and item.name == "to" and item.i == TensorProto.FLOAT:
                item.i = TensorProto.BFLOAT16
            if node.op_type == "ConstantOfShape" and item.name == "value" and item.t.data_type == TensorProto.FLOAT:
                item.t.CopyFrom(_rounded(item.t))
    for name, item in stored.items():
        if item.data_type == TensorProto.FLOAT and name not in in_fp32:
            item.CopyFrom(_rounded(item))


def _takes_bf16(node: Any, place: int, opset: int) -> bool:
    """Return whether ONNX lets an operator take bf16 at a place; what takes no floats there does as well."""
    from onnx import defs

    if node.domain not in ("", "ai.onnx"):
        return True  # the checker does not know it either
    taken = defs.get_schema(node.op_type, opset, "").inputs
    types = taken[min(place, len(taken) - 1)].types
    return BF16 in types or "tensor(float)" not in types


def _rounded(item: Any) -> Any:
    """Return a tensor of fp32 in bf16, the nearest of two, the even one where both are as near; none becomes infinite.

    A mask is often fp32's lowest number, whose nearest in bf16 would be.
    """
    from onnx import TensorProto, helper, numpy_helper

    values = np.ascontiguousarray(numpy_helper.to_array(item), np.float32)
    values = np.where(np.isfinite(values), np.clip(values, -LARGEST, LARGEST), values)
    bits = values.view(np.uint32)
    halves = ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return helper.make_tensor(item.name, TensorProto.BFLOAT16, list(item.dims), halves.tobytes(), raw=True)


def _cast_ends(model: Any) -> None:
    """Put a Cast behind each input and before each output."""
    from onnx import TensorProto, helper

    graph = model.graph
    stored = {item.name for item in graph.initializer}
    taken = [item.name for item in graph.input if item.name not in stored]
    given = [item.name for item in graph.output]
    inside = {name: f"{name}_bf16" for name in (*taken, *given)}
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = inside.get(name, name)
    graph.node.extend(helper.make_node("Cast", [name], [inside[name]], to=TensorProto.BFLOAT16) for name in taken)
    graph.node.extend(helper.make_node("Cast", [inside[name]], [name], to=TensorProto.FLOAT) for name in given)
