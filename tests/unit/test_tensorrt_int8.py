"""What an int8 graph computes after its ranges were moved around zero, as TensorRT wants them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs `linne[onnx]`")
pytest.importorskip("onnxruntime", reason="needs `linne[onnx]`")

from linne.graphs.session import GraphSession
from linne.graphs.tensorrt_int8 import around_zero


def test_pairs_that_share_a_scale_and_not_a_zero_keep_their_own_ranges() -> None:
    from onnx import TensorProto, helper, numpy_helper

    stored = {"scale": np.array(0.1, np.float32), "none": np.array(0, np.uint8), "middle": np.array(128, np.uint8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "middle"], ["a"], name="q1"),
        helper.make_node("DequantizeLinear", ["a", "scale", "middle"], ["b"], name="d1"),
        helper.make_node("Add", ["b", "b"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "scale", "none"], ["d"], name="q2"),
        helper.make_node("DequantizeLinear", ["d", "scale", "none"], ["y"], name="d2"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in "xy"]
    weights = [numpy_helper.from_array(value, name) for name, value in stored.items()]
    graph = helper.make_graph(nodes, "two pairs", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()
    x = np.array([[1, 5, 11, -12]], np.float32)
    before, after = (GraphSession(content, "two pairs").run(x) for content in (model, around_zero(model, "two pairs")))
    # Half a step of each pair is lost once more: 0.05 of the first, doubled, and 0.1 of the second, in both graphs.
    np.testing.assert_allclose(after, before, atol=0.35)
