"""A graph in int8 as TensorRT reads it: the ranges of linne's export, around zero."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from linne.errors import LinneError

if TYPE_CHECKING:
    from onnx import ModelProto

INSTALL = "pip install 'linne[onnx]'"
QUANTISE, DEQUANTISE = "QuantizeLinear", "DequantizeLinear"
MOVES = ("Flatten", "Identity", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""Operators that give back numbers as they took them."""


def around_zero(content: bytes, name: str) -> bytes:
    """Return the graph `content`, called `name` in errors, with every zero point 0, and all constants floats again.

    TensorRT's parser takes no zero point but 0, no uint8 and no int32, and weights that are quantised in the graph
    rather than before. A range of 0 to 4 becomes one of -4 to 4: one bit of activations that are never negative is
    lost, which `linne verify` measures. What a range cut off is cut off by an operator now: quantising to 0 to 4 was
    the ReLU as well, which ONNX Runtime's tools leave out for that reason. Weights stay as they are: their zero points
    are 0 already.

    Raises:
        LinneError: the package onnx is missing, or it is no graph of linne's in int8.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise LinneError(f"int8 by TensorRT needs the package onnx; {INSTALL}") from error
    model = onnx.load_model_from_string(content)
    stored = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    nodes: list[Any] = []
    ranges: dict[str, tuple[str, ...]] = {}  # of tensors that a pair has cut off already
    for node in model.graph.node:
        if node.op_type == DEQUANTISE and node.input[0] in stored:
            nodes += _constant(model, node, stored)
            continue
        before = tuple(node.input[1:3])
        if node.op_type in (QUANTISE, DEQUANTISE):
            cut = _symmetric(model, node, stored, name)
            if node.op_type == QUANTISE and ranges.get(node.input[0]) != before:
                nodes += cut
                node.input[0] = cut[0].output[0] if cut else node.input[0]
            ranges[node.output[0]] = before
        elif node.op_type in MOVES and node.input[0] in ranges:
            ranges[node.output[0]] = ranges[node.input[0]]
        nodes.append(node)
    kept = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    used = {taken for node in kept for taken in node.input}
    left = [item for item in model.graph.initializer if item.name in used]
    floats = [type(item).FromString(item.SerializeToString()) for item in left]
    del model.graph.initializer[:]
    model.graph.initializer.extend(floats)
    return bytes(model.SerializeToString())


def _symmetric(model: ModelProto, node: Any, stored: dict[str, Any], name: str) -> list[Any]:
    """Give a pair around an activation the zero point 0 and a scale that covers what it covered.

    Returns:
        The operator that cuts off what it cut off and does no longer, to come before it; nothing where there is none.
    """
    from onnx import helper, numpy_helper

    if len(node.input) < 3 or node.input[1] not in stored or node.input[2] not in stored:
        raise LinneError(f"`{name}`: `{node.name}` has no scale and zero point of its own")
    scale, zero = stored[node.input[1]], stored[node.input[2]].astype(np.int64)
    bounds = np.iinfo(stored[node.input[2]].dtype)
    below, above = zero - bounds.min, bounds.max - zero
    reach = np.maximum(below, above)
    _put(model, stored, node, 1, (scale * (reach / 127)).astype(np.float32))
    _put(model, stored, node, 2, np.zeros(zero.shape, np.int8))
    if scale.ndim or abs(int(above - below)) <= 1:
        return []
    taken, given = node.input[0], f"{node.output[0]}_cut"
    if below == 0:
        return [helper.make_node("Relu", [taken], [given], name=given)]
    ends = {f"{given}_low": -below * scale, f"{given}_high": above * scale}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(end, np.float32), key) for key, end in ends.items()
    )
    return [helper.make_node("Clip", [taken, *ends], [given], name=given)]


def _constant(model: ModelProto, node: Any, stored: dict[str, Any]) -> list[Any]:
    """Return what takes the place of a quantised constant: a float; of int8 with the pair that quantises it again."""
    from onnx import helper, numpy_helper

    value, scale = stored[node.input[0]], stored[node.input[1]]
    zero = stored[node.input[2]] if len(node.input) > 2 else np.zeros(scale.shape, value.dtype)
    axis = next((item.i for item in node.attribute if item.name == "axis"), 1)
    shape = [-1 if place == axis % value.ndim else 1 for place in range(value.ndim)] if scale.ndim else []
    floats = (value.astype(np.float32) - zero.astype(np.float32).reshape(shape)) * scale.reshape(shape)
    plain = node.output[0] if value.dtype != np.int8 else f"{node.output[0]}_float"
    model.graph.initializer.append(numpy_helper.from_array(floats.astype(np.float32), plain))
    if value.dtype != np.int8:
        return []
    eights = f"{node.output[0]}_int8"
    options: Any = {"axis": axis} if scale.ndim else {}
    return [
        helper.make_node(kind, [taken, *node.input[1:]], [given], name=given, **options)
        for kind, taken, given in ((QUANTISE, plain, eights), (DEQUANTISE, eights, node.output[0]))
    ]


def _put(model: ModelProto, stored: dict[str, Any], node: Any, place: int, value: Any) -> None:
    """Make `value` what `node` reads at `place`; others may still read what was there."""
    from onnx import numpy_helper

    before = node.input[place]
    # Two that read the same scale may have other zeros, and need other values: each gets a name of its own.
    names = (f"{before}_around_zero{number or ''}" for number in itertools.count())
    after = next(name for name in names if name not in stored or np.array_equal(stored[name], value))
    if after not in stored:
        model.graph.initializer.append(numpy_helper.from_array(value, after))
        stored[after] = value
    node.input[place] = after
