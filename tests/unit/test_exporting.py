"""What an export is held against, and what is made of a graph: without a framework, in a moment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs `linne[onnx]`")
pytest.importorskip("onnxruntime", reason="needs `linne[onnx]`")

from fixtures.graphs import image_graph, write_graph_bundle  # noqa: E402

import linne  # noqa: E402
from linne.bundle import Bundle  # noqa: E402
from linne.errors import BundleError, CheckFailed, RecipeError  # noqa: E402
from linne.exporting.agreement import BATCHES, FP16_SHARE, FP32_SHARE, Trial, compare, trial_of  # noqa: E402
from linne.exporting.graph_notes import tidy  # noqa: E402
from linne.exporting.half import to_half  # noqa: E402
from linne.exports import exports_of, open_export  # noqa: E402
from linne.graphs.session import GraphSession  # noqa: E402
from linne.inference.predictor import Predictor  # noqa: E402
from linne.preprocess import InputSpec, normalise  # noqa: E402

LABELS = ("ant", "bee", "cow", "d\u00f6g")
SPEC = InputSpec(channels=3, height=24, width=32, mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 0.2), crop_pct=0.9)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_graph_bundle(tmp_path / "bundle", LABELS, SPEC)


@pytest.fixture(scope="module")
def graph() -> bytes:
    content: bytes = image_graph(len(LABELS), SPEC).SerializeToString()
    return content


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    return trial_of(write_graph_bundle(tmp_path_factory.mktemp("trial") / "bundle", LABELS, SPEC))


@pytest.fixture(scope="module")
def expected_NK(graph: bytes, trial: Trial) -> Any:
    session = GraphSession(graph, "plain")
    return np.concatenate([session.run(trial.images_NCHW[i : i + 1]) for i in range(len(trial.images_NHWC))])


def test_an_export_is_tried_with_the_same_64_different_images_each_time(bundle: Bundle, trial: Trial) -> None:
    again = trial_of(bundle)
    np.testing.assert_array_equal(again.images_NHWC, trial.images_NHWC)
    assert trial.images_NHWC.shape == (64, 24, 32, 3)
    assert len(np.unique(trial.images_NHWC.reshape(64, -1), axis=0)) == 64
    assert trial.batches == BATCHES
    assert trial.what == "4 canaries, 4 photographs, 48 cuts of them, 8 of noise"


def test_large_images_are_tried_in_batches_that_fit_the_memory_and_that_is_said(tmp_path: Path) -> None:
    spec = InputSpec(channels=3, height=8, width=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    trial = trial_of(write_graph_bundle(tmp_path / "bundle", LABELS, spec), free_bytes=2 * 1024 * 64 * 10)
    assert trial.batches == (1, 3, 10)
    assert trial.note == "tried with batches of 10 at most instead of 64: 0.0 GB of memory are free"


def test_the_same_network_agrees_whatever_the_batch(graph: bytes, trial: Trial, expected_NK: Any) -> None:
    agreement = compare(trial, expected_NK, GraphSession(graph, "plain").run, share=FP32_SHARE)
    assert agreement.problem is None
    assert set(agreement.worst_by_batch) == {1, 3, 64}
    assert (agreement.num_images, agreement.num_same) == (64, 64)
    assert json.loads(json.dumps(agreement.to_dict()))["worst_by_batch"].keys() == {"1", "3", "64"}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda answers: answers + 0.01 * (len(answers) == 64), "in batches of 64 logits differ by up to 0.01"),
        (lambda answers: answers + 0.01 * (len(answers) == 3), "in batches of 3 logits differ by up to 0.01"),
        (
            lambda answers: answers * np.where(np.arange(4) == 2, np.nan, 1),
            "in batches of 1 its answers are not finite",
        ),
        (lambda answers: answers[:, ::-1], "in batches of 1 logits differ by up to"),
    ],
    ids=["of 64 otherwise", "of 3 otherwise", "not a number", "labels turned round"],
)
def test_what_answers_otherwise_does_not_agree(
    graph: bytes, trial: Trial, expected_NK: Any, change: Any, problem: str
) -> None:
    session = GraphSession(graph, "plain")
    agreement = compare(trial, expected_NK, lambda images: change(session.run(images)), share=FP32_SHARE)
    assert agreement.problem is not None
    assert agreement.problem.startswith(problem)


def test_in_fp32_no_first_label_may_change_and_in_fp16_none_of_which_the_bundle_was_sure(trial: Trial) -> None:
    close_NK = np.tile(np.array([[1.0, 1.0 - 1e-5, 0.0, 0.0]], np.float32), (64, 1))
    swapped = lambda images: np.tile(np.array([[1.0 - 1e-5, 1.0, 0.0, 0.0]], np.float32), (len(images), 1))  # noqa: E731
    assert compare(trial, close_NK, swapped, share=FP32_SHARE).problem == "64 of 64 images get another first label"
    assert compare(trial, close_NK, swapped, share=FP16_SHARE).problem is None


def test_another_number_of_answers_is_no_answer(trial: Trial, expected_NK: Any) -> None:
    with pytest.raises(CheckFailed, match="for a batch of 1 it gives numbers of shape 2 x 4, expected 1 x 4"):
        compare(trial, expected_NK, lambda images: np.zeros((2, 4), np.float32), share=FP32_SHARE)


def test_a_graph_is_a_graph_already(bundle: Bundle) -> None:
    with pytest.raises(RecipeError) as caught:
        linne.export(bundle.path, "onnx", quiet=True)
    assert caught.value.message == f"bundle `{bundle.path}` is a graph already: `{bundle.path / 'model.onnx'}`"
    assert caught.value.hint == "use that file, or --precision fp16, or --bake-preprocessing"
    assert exports_of(bundle) == ()


@pytest.mark.parametrize(
    ("to", "options", "message"),
    [
        ("onxn", {}, "no kind of export `onxn`"),
        ("openvino", {"precision": "bf16"}, "`openvino` is exported in fp32, fp16 and int8, not in bf16"),
        ("torch-export", {"precision": "int8"}, "`torch-export` is exported in fp32, fp16 and bf16, not in int8"),
        ("torchscript", {"precision": "int8"}, "`torchscript` is exported in fp32, not in int8"),
        ("onnx", {"precision": "fp16", "exporter": "dynamic"}, "no exporter `dynamic`"),
        ("onnx", {"precision": "fp16", "opset": 18}, "this bundle is a graph already"),
        ("torch-export", {}, "holds a graph, `model.onnx`, which torch does not run"),
        ("torchscript", {"precision": "fp16"}, "`torchscript` is exported in fp32, not in fp16"),
        ("torch-export", {"opset": 18}, "`--opset` goes with `--to onnx`, not with `torch-export`"),
        ("torch-export", {"bake_preprocessing": True}, "`--bake-preprocessing` goes with `--to onnx`"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_computed(
    bundle: Bundle, to: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        linne.export(bundle.path, to, quiet=True, **options)
    assert not (bundle.path / "exports").exists()


def test_a_graph_is_exported_in_fp16_and_runs_by_that_name(bundle: Bundle) -> None:
    exported = linne.export(bundle.path, "onnx", precision="fp16", quiet=True)
    assert exported.export == open_export(bundle, "onnx", "fp16")
    assert exported.size_bytes < 0.6 * (bundle.path / "model.onnx").stat().st_size
    model = onnx.load(exported.export.main_file)
    assert {item.type.tensor_type.elem_type for item in (*model.graph.input, *model.graph.output)} == {1}  # float
    assert {item.data_type for item in model.graph.initializer} == {10}  # half
    predictor = Predictor.open(bundle, how=linne_how("fp16"))
    assert predictor.backend_name == "onnxruntime"


def linne_how(precision: Any) -> Any:
    from linne.inference.backends.base import RunOptions

    return RunOptions(precision=precision, device="cpu")


def test_numbers_that_fp16_does_not_hold_stay_in_fp32_and_are_named(trial: Trial, expected_NK: Any) -> None:
    from onnx import numpy_helper

    model = image_graph(len(LABELS), SPEC)
    for item in model.graph.initializer:
        factor = {"filters": 1e6, "linear": 1e-6}[item.name]
        item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item) * np.float32(factor), item.name))
    content, kept = to_half(model.SerializeToString(), trial)
    assert [name.split("_")[0] for name in kept] == ["Conv", "Relu", "Flatten", "MatMul"]
    assert min(kept.values()) > 65504
    agreement = compare(trial, expected_NK, GraphSession(content, "in fp16").run, share=FP16_SHARE)
    assert agreement.problem is None, agreement.problem
    # The input alone is rounded: a thousandth at most.
    assert agreement.worst < 2e-3 * agreement.largest_logit


def test_pixels_are_scaled_in_the_graph_as_the_reference_scales_them(bundle: Bundle, expected_NK: Any) -> None:
    exported = linne.export(bundle.path, "onnx", bake_preprocessing=True, quiet=True)
    assert exported.export.name == "onnx-pixels-fp32"
    images_NHWC = trial_of(bundle).images_NHWC
    found_NK = GraphSession(exported.export.main_file, "pixels").run(images_NHWC)
    # The same sums in fp32, in another order at most.
    np.testing.assert_allclose(found_NK, expected_NK, rtol=0, atol=1e-5 * np.abs(expected_NK).max())
    model = onnx.load(exported.export.main_file)
    (taken,) = model.graph.input
    assert taken.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [dim.dim_value or dim.dim_param for dim in taken.type.tensor_type.shape.dim] == ["N", 24, 32, 3]


def test_the_scaling_alone_is_that_of_the_reference_to_a_millionth() -> None:
    from linne.graphs.editing import pixel_form
    from linne.preprocess import scale_and_bias

    levels = np.arange(256, dtype=np.uint8).repeat(9)[: 3 * 24 * 32].reshape(1, 24, 32, 3)
    scale_C, bias_C = scale_and_bias(SPEC)
    alone, _ = pixel_form(image_graph(4, SPEC), 24, 32, scale_C.tolist(), bias_C.tolist())
    gap = np.abs(GraphSession(alone, "scaling").run(levels) - normalise(levels, SPEC)).max()
    assert gap <= 1e-6


def test_an_export_says_its_labels_and_how_images_are_prepared(bundle: Bundle, tmp_path: Path) -> None:
    linne.export(bundle.path, "onnx", precision="fp16", quiet=True)
    linne.export(bundle.path, "onnx", bake_preprocessing=True, quiet=True)
    plain = open_export(bundle, "onnx", "fp16").main_file
    imported = linne.import_weights(plain, tmp_path / "again", quiet=True)
    assert imported.bundle.labels == LABELS
    assert imported.bundle.input == SPEC
    assert imported.labels_from == "the file's own `labels`"
    pixels = open_export(bundle, "onnx-pixels", "fp32").main_file
    imported = linne.import_weights(pixels, tmp_path / "of pixels", quiet=True)
    assert imported.bundle.input.mean == (0.0,) * 3
    assert imported.bundle.input.crop_pct == 0.9
    notes = {item.key: item.value for item in onnx.load(plain).metadata_props}
    assert notes["linne.version"] == linne.__version__
    assert notes["linne.bundle"] == json.loads((plain.parent / "export.json").read_text())["of"]


def test_what_a_file_says_of_its_input_and_cannot_be_read_is_refused(tmp_path: Path) -> None:
    metadata = {"labels": json.dumps(LABELS), "linne.input": '{"channels": "three"}'}
    onnx.save(image_graph(len(LABELS), SPEC, metadata=metadata), tmp_path / "graph.onnx")
    with pytest.raises(RecipeError, match=r"says in `linne\.input` what cannot be read"):
        linne.import_weights(tmp_path / "graph.onnx", tmp_path / "out", quiet=True)


def test_paths_of_the_machine_that_exported_do_not_leave_it() -> None:
    model = image_graph(4, SPEC)
    for node in model.graph.node:
        node.doc_string = "/home/me/secret.py"
        node.metadata_props.add(key="stack_trace", value="/home/me/secret.py")
    model.graph.value_info.add(name="flat", doc_string="/home/me/secret.py")
    assert b"/home/me" in model.SerializeToString()
    assert b"/home/me" not in tidy(model.SerializeToString())


def test_an_altered_export_of_pixels_says_how_to_make_it_again(bundle: Bundle) -> None:
    exported = linne.export(bundle.path, "onnx", bake_preprocessing=True, quiet=True)
    exported.export.main_file.write_bytes(b"")
    with pytest.raises(BundleError) as caught:
        open_export(bundle, "onnx-pixels", "fp32")
    assert caught.value.hint == (
        f"linne export {bundle.path} --to onnx --precision fp32 --bake-preprocessing --replace"
    )


def test_an_export_that_is_there_is_refused_before_anything_is_computed(bundle: Bundle) -> None:
    linne.export(bundle.path, "onnx", precision="fp16", quiet=True)
    with pytest.raises(BundleError, match="already"):
        linne.export(bundle.path, "onnx", precision="fp16", quiet=True)
    linne.export(bundle.path, "onnx", precision="fp16", replace=True, quiet=True)
