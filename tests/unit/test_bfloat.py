"""Graphs in bf16: what ONNX lets be bf16 is, what it does not stays in fp32, and OpenVINO runs them here."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs `linne[onnx]`")
pytest.importorskip("onnxruntime", reason="needs `linne[onnx]`")

from fixtures.graphs import image_graph, write_graph_bundle  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

import linne  # noqa: E402
from linne.bundle import Bundle  # noqa: E402
from linne.errors import LinneError, RecipeError  # noqa: E402
from linne.exporting.bfloat import to_bfloat  # noqa: E402
from linne.exports import open_export  # noqa: E402
from linne.preprocess import InputSpec  # noqa: E402

SPEC = InputSpec(channels=3, height=16, width=16, mean=(0.5,) * 3, std=(0.25,) * 3)
LABELS = ("ant", "bee", "cow")


@pytest.fixture
def bundle(tmp_path: Any) -> Bundle:
    return write_graph_bundle(tmp_path / "bundle", LABELS, SPEC)


def graph_of(nodes: list[Any], stored: dict[str, Any], opset: int = 18) -> bytes:
    """Return a graph from `x`, 1 x 1 x 4 x 4, to `y`."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, None, None]) for name in ("x", "y")]
    weights = [numpy_helper.from_array(value, name) for name, value in stored.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def types_of(content: bytes) -> dict[str, int]:
    model = onnx.load_model_from_string(content)
    return {item.name: item.data_type for item in model.graph.initializer}


def test_weights_are_bf16_and_input_and_output_stay_as_they_are() -> None:
    model = onnx.load_model_from_string(to_bfloat(image_graph(3, SPEC).SerializeToString()))
    assert {item.data_type for item in model.graph.initializer} == {TensorProto.BFLOAT16}
    ends = (*model.graph.input, *model.graph.output)
    assert [item.type.tensor_type.elem_type for item in ends] == [TensorProto.FLOAT] * 2
    assert [item.name for item in ends] == ["pixels", "scores"]
    assert model.opset_import[0].version >= 22, "older convolutions take no bf16"


def test_numbers_are_rounded_to_the_nearest_and_from_the_middle_to_the_even_one() -> None:
    step = 2.0**-7  # between 1 and 2, bf16 has 7 bits behind the point
    given = np.array([1 + 0.49 * step, 1 + 0.51 * step, 1 + 0.5 * step, 1 + 1.5 * step, -3e38, 1e-39], np.float32)
    weights = given.reshape(1, 1, 2, 3)
    content = to_bfloat(graph_of([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": weights}))
    found = numpy_helper.to_array(onnx.load_model_from_string(content).graph.initializer[0]).astype(np.float32).ravel()
    assert found[:4].tolist() == [1, 1 + step, 1, 1 + 2 * step]
    np.testing.assert_allclose(found[4:5], given[4:5], rtol=2**-8)  # half a step of 8 bits
    assert np.isfinite(found).all(), "bf16 reaches as far as fp32"


def test_fp32s_lowest_number_a_usual_mask_stays_finite_and_infinity_infinite() -> None:
    from linne.exporting.bfloat import _rounded

    edges = np.array([np.finfo(np.float32).min, np.finfo(np.float32).max, -np.inf, np.inf], np.float32)
    found = numpy_helper.to_array(_rounded(numpy_helper.from_array(edges, "edges"))).astype(np.float32)
    assert np.isfinite(found[:2]).all()
    np.testing.assert_array_equal(np.isinf(found), [False, False, True, True])
    np.testing.assert_array_equal(np.sign(found), [-1, 1, -1, 1])


def test_constants_that_an_operator_takes_in_fp32_alone_stay_so() -> None:
    stored = {"roi": np.zeros(0, np.float32), "scales": np.array([1, 1, 2, 2], np.float32), "w": np.ones(1, np.float32)}
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["wide"]),
        helper.make_node("Resize", ["wide", "roi", "scales"], ["y"], mode="nearest"),
    ]
    types = types_of(to_bfloat(graph_of(nodes, stored)))
    assert types == {"roi": TensorProto.FLOAT, "scales": TensorProto.FLOAT, "w": TensorProto.BFLOAT16}


def test_constants_in_nodes_and_casts_to_float_are_bf16_as_well() -> None:
    nodes = [
        helper.make_node("Constant", [], ["two"], value=helper.make_tensor("t", TensorProto.FLOAT, [], [2.0])),
        helper.make_node("Constant", [], ["half"], value_float=0.5),
        helper.make_node("Cast", ["x"], ["whole"], to=TensorProto.INT32),
        helper.make_node("Cast", ["whole"], ["again"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["again", "two"], ["twice"]),
        helper.make_node("Mul", ["twice", "half"], ["y"]),
    ]
    assert set(types_of(to_bfloat(graph_of(nodes, {}))).values()) == {TensorProto.BFLOAT16}


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([helper.make_node("Shrink", ["x"], ["y"])], "the graph cannot be written in bf16: .*Shrink"),
        (
            [
                helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("t", TensorProto.BOOL, [], [True])),
                helper.make_node(
                    "If",
                    ["yes"],
                    ["y"],
                    name="choice",
                    **{
                        f"{branch}_branch": helper.make_graph(
                            [helper.make_node("Identity", ["x"], [f"{branch}_y"])],
                            branch,
                            [],
                            [helper.make_tensor_value_info(f"{branch}_y", TensorProto.FLOAT, [1, 1, None, None])],
                        )
                        for branch in ("then", "else")
                    },
                ),
            ],
            "`choice` holds a graph of its own",
        ),
    ],
)
def test_what_cannot_be_bf16_is_refused_by_name(nodes: list[Any], reason: str) -> None:
    with pytest.raises(LinneError, match=reason):
        to_bfloat(graph_of(nodes, {}))


def test_a_graph_is_exported_in_bf16_and_verified_by_a_runtime_that_runs_it(bundle: Bundle) -> None:
    pytest.importorskip("openvino", reason="bf16 is verified by OpenVINO: pip install 'linne[openvino]'")
    from linne.graphs.openvino_model import OpenVinoModel

    made = linne.export(bundle.path, "onnx", precision="bf16", quiet=True)
    assert made.export == open_export(bundle, "onnx", "bf16")
    assert 0 < made.agreement.worst <= made.agreement.bound
    # In fp32 it is the rounding of the weights that is left, whatever the processor: 8 bits, over a layer or two.
    canaries_NK = np.array(made.export.canary_logits, np.float32)
    images = np.random.default_rng(0).normal(0, 1, (5, 3, 16, 16)).astype(np.float32)
    exact_NK = OpenVinoModel((bundle.path / "model.onnx").read_bytes(), "exact", device="cpu").run(images)
    found_NK = OpenVinoModel(made.export.main_file.read_bytes(), "rounded", device="cpu").run(images)
    assert 0 < np.abs(found_NK - exact_NK).max() < 0.02 * np.abs(exact_NK).max()
    assert canaries_NK.shape == (len(bundle.canaries), len(LABELS))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"bake_preprocessing": True}, "`--bake-preprocessing` goes with fp32, fp16 and int8, not with bf16"),
        ({"opset": 18}, "operator set 18 has no convolutions in bf16"),
    ],
)
def test_what_does_not_go_with_bf16_is_refused(bundle: Bundle, asked: dict[str, Any], message: str) -> None:
    pytest.importorskip("openvino", reason="bf16 is verified by OpenVINO: pip install 'linne[openvino]'")
    with pytest.raises(RecipeError) as caught:
        linne.export(bundle.path, "onnx", precision="bf16", quiet=True, **asked)
    assert caught.value.message == message


def test_without_a_runtime_that_runs_it_no_graph_is_written_in_bf16(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        LinneError, match="ONNX Runtime has no operators for bf16 on a CPU, and to verify by OpenVINO: op"
    ):
        linne.export(bundle.path, "onnx", precision="bf16", quiet=True)
    assert not (bundle.path / "exports").exists()


def test_onnx_runtime_says_itself_that_it_does_not_compute_in_bf16(bundle: Bundle) -> None:
    from linne.inference.backends.base import RunOptions, require_known
    from linne.inference.backends.onnx_runtime import OnnxRuntimeBackend

    with pytest.raises(RecipeError, match="backend `onnxruntime` does not compute in bf16"):
        require_known("onnxruntime", OnnxRuntimeBackend, RunOptions(precision="bf16"))
