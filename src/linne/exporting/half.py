"""A graph in fp16: what overflows is found in fp32, by what each operator really handles, and stays there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from linne.errors import LinneError
from linne.exporting.agreement import Trial
from linne.exporting.runtime_tools import importable
from linne.graphs.session import GraphSession

if TYPE_CHECKING:
    from onnx import ModelProto

LARGEST = float(np.finfo(np.float16).max)
HEADROOM = 2.0
"""How much larger than on the images tried numbers may become on others."""
AT_ONCE = 4
"""Images whose numbers are looked at together: every operator's output is kept."""


def to_half(content: bytes, trial: Trial) -> tuple[bytes, Mapping[str, float]]:
    """Return the graph in fp16, input and output in fp32, and which operators stay in fp32 with their largest number.

    Raises:
        LinneError: the graph cannot be converted.
    """
    import onnx

    model = onnx.load_model_from_string(content)
    name_nodes(model)
    largest = largest_numbers(model, trial)
    kept = {}
    for node in model.graph.node:
        most = max((largest.get(name, 0.0) for name in (*node.input, *node.output)), default=0.0)
        if not most <= LARGEST / HEADROOM:
            kept[node.name] = most
    try:
        changed = _convert(model, list(kept))
        _join_casts(changed)
        sort_nodes(changed)
        onnx.checker.check_model(changed)
    except Exception as error:  # the converter's own kinds
        raise LinneError(f"the graph cannot be converted to fp16: {type(error).__name__}: {error}") from error
    return bytes(changed.SerializeToString()), kept


def name_nodes(model: ModelProto) -> None:
    """Give each node a name that no other has: what stays in fp32 goes by names."""
    taken: set[str] = set()
    for position, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{position}"
        while node.name in taken:
            node.name += "_"
        taken.add(node.name)


def largest_numbers(model: ModelProto, trial: Trial) -> dict[str, float]:
    """Return the largest |number| in each fp32 tensor: of the weights, and of what is computed for `trial`."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    found = {
        item.name: float(np.abs(numpy_helper.to_array(item)).max(initial=0.0))
        for item in model.graph.initializer
        if item.data_type == TensorProto.FLOAT
    }
    probe = onnx.shape_inference.infer_shapes(model)
    known = {item.name: item.type.tensor_type.elem_type for item in (*probe.graph.value_info, *probe.graph.output)}
    names = [name for node in probe.graph.node for name in node.output if known.get(name) == TensorProto.FLOAT]
    for position, name in enumerate(names):
        size, most, one = (f"linne_{word}_{position}" for word in ("size", "most", "one"))
        probe.graph.node.extend(
            [
                helper.make_node("Abs", [name], [size]),
                helper.make_node("ReduceMax", [size], [most], keepdims=0),
                helper.make_node("Reshape", [most, "linne_row"], [one]),
            ]
        )
    probe.graph.initializer.append(helper.make_tensor("linne_row", TensorProto.INT64, [1], [1]))
    ends = [f"linne_one_{position}" for position in range(len(names))]
    probe.graph.node.append(helper.make_node("Concat", ends, ["linne_all"], axis=0))
    del probe.graph.output[:]
    probe.graph.output.append(helper.make_tensor_value_info("linne_all", TensorProto.FLOAT, [len(names)]))
    session = GraphSession(probe.SerializeToString(), "the graph with the sizes of its numbers")
    images_NCHW = trial.images_NCHW
    rows = [session.run(images_NCHW[i : i + AT_ONCE]) for i in range(0, len(images_NCHW), AT_ONCE)]
    most_T = np.concatenate(rows).reshape(-1, len(names)).max(axis=0)
    return found | dict(zip(names, most_T.tolist(), strict=True))


def _convert(model: ModelProto, kept: list[str]) -> Any:
    """Return the graph as ONNX Runtime's own converter writes it in fp16."""
    with importable():
        from onnxruntime.transformers.float16 import convert_float_to_float16
    return convert_float_to_float16(model, keep_io_types=True, node_block_list=kept)


def _join_casts(model: Any) -> None:
    """Take out Casts to fp16 and back between two operators in fp32: in between, the numbers would overflow."""
    from onnx import TensorProto

    def casts(to: int) -> dict[str, Any]:
        return {
            node.output[0]: node
            for node in model.graph.node
            if node.op_type == "Cast" and any(a.name == "to" and a.i == to for a in node.attribute)
        }

    down, up = casts(TensorProto.FLOAT16), casts(TensorProto.FLOAT)
    origin = {name: down[node.input[0]].input[0] for name, node in up.items() if node.input[0] in down}
    outputs = {item.name for item in model.graph.output}
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            if name in origin:
                node.input[position] = origin[name]
        if node.op_type == "Cast" and node.output[0] in origin and node.output[0] in outputs:
            node.op_type = "Identity"
            del node.attribute[:]
            node.input[0] = origin[node.output[0]]
    _drop_unused(model)


def _drop_unused(model: Any) -> None:
    """Take out Casts that nothing reads any more."""
    while True:
        read = {name for node in model.graph.node for name in node.input} | {item.name for item in model.graph.output}
        unused = [node for node in model.graph.node if node.op_type == "Cast" and node.output[0] not in read]
        if not unused:
            return
        for node in unused:
            model.graph.node.remove(node)


def sort_nodes(model: Any) -> None:
    """Put every node after those whose outputs it reads, as ONNX asks; the converter writes its Casts at the end."""
    makers = {name: position for position, node in enumerate(model.graph.node) for name in node.output}
    nodes, order, done = list(model.graph.node), [], set[int]()
    for first in range(len(nodes)):
        waiting = [first]
        while waiting:
            position = waiting[-1]
            needed = [makers[name] for name in _reads(nodes[position]) if name in makers and makers[name] not in done]
            if position in done or not needed:
                waiting.pop()
                if position not in done:
                    done.add(position)
                    order.append(nodes[position])
            else:
                waiting += needed
    sorted_nodes = [type(node).FromString(node.SerializeToString()) for node in order]
    del model.graph.node[:]
    model.graph.node.extend(sorted_nodes)


def _reads(node: Any) -> list[str]:
    """Return what a node reads, also in graphs inside it."""
    names = list(node.input)
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            names += [name for inner in graph.node for name in _reads(inner)]
    return names
