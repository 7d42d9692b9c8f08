"""ONNX files become bundles that are run without torch, whatever their layout, order of channels and output."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs `linne[onnx]`")
pytest.importorskip("onnxruntime", reason="needs `linne[onnx]`")

from fixtures.graphs import image_graph, write_graph_bundle  # noqa: E402

import linne  # noqa: E402
from linne.bundle import canary_batch, open_bundle  # noqa: E402
from linne.errors import BundleError, CheckFailed, DeviceError, LinneError, RecipeError  # noqa: E402
from linne.graphs.session import GraphSession  # noqa: E402
from linne.inference.backends import choose_backend  # noqa: E402
from linne.inference.backends.base import RunOptions  # noqa: E402
from linne.inference.predictor import Predictor  # noqa: E402
from linne.metrics import softmax  # noqa: E402
from linne.preprocess import InputSpec  # noqa: E402
from linne.weights.answers import FOLDER  # noqa: E402

LABELS = ("ant", "bee", "cow", "dog")
SPEC = InputSpec(channels=3, height=24, width=32, mean=(0.5,) * 3, std=(0.5,) * 3)
RAW = dataclasses.replace(SPEC, mean=(0.0,) * 3, std=(1 / 255,) * 3)


@pytest.fixture
def labels(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("\n".join(LABELS))
    return file


def written(tmp_path, **changes):
    path = tmp_path / "graph.onnx"
    onnx.save(image_graph(len(LABELS), SPEC, **changes), path)
    return path


def expected_logits(spec):
    return GraphSession(image_graph(len(LABELS), SPEC).SerializeToString(), "plain").run(canary_batch(spec))


@pytest.mark.parametrize(
    ("changes", "words", "spec"),
    [
        ({}, {"scaling": "half"}, SPEC),
        ({"batch": 3}, {"scaling": "half"}, SPEC),
        ({"layout": "NHWC"}, {"scaling": "half"}, SPEC),
        ({"bgr": True}, {"scaling": "half", "order": "bgr"}, SPEC),
        ({"bgr": True, "layout": "NHWC", "batch": 1}, {"scaling": "half", "order": "bgr"}, SPEC),
        ({"kind": "DOUBLE"}, {"scaling": "half"}, SPEC),
        ({"kind": "UINT8", "layout": "NHWC"}, {}, RAW),
    ],
    ids=["plain", "three at once", "channels last", "blue first", "blue first and last", "double", "bytes"],
)
def test_whatever_a_graph_takes_its_bundle_takes_rgb_planes(tmp_path, labels, changes, words, spec):
    path = written(tmp_path, **changes)
    imported = linne.import_weights(path, tmp_path / "out", labels=labels, preprocess=words, quiet=True)
    assert imported.bundle.input == spec
    assert imported.bundle.network_file == "model.onnx"
    predictor = Predictor.open(tmp_path / "out")
    assert predictor.backend_name == "onnxruntime"
    expected_NK = expected_logits(spec)
    # The same sums in fp32, in another order at most.
    np.testing.assert_allclose(
        predictor.backend.run(canary_batch(spec)), expected_NK, rtol=0, atol=1e-5 * np.abs(expected_NK).max()
    )


def test_what_goes_into_the_last_softmax_are_the_logits(tmp_path, labels):
    asked = {"labels": labels, "preprocess": {"scaling": "half"}, "quiet": True}
    imported = linne.import_weights(written(tmp_path, softmax=True), tmp_path / "out", **asked)
    assert "logits are what goes into the Softmax before `probabilities`" in imported.notes
    logits_NK = np.array([canary.logits for canary in imported.bundle.canaries])
    np.testing.assert_allclose(logits_NK, expected_logits(SPEC), rtol=0, atol=1e-4)


def test_probabilities_that_are_made_otherwise_become_logarithms(tmp_path, labels):
    from onnx import helper

    model = image_graph(len(LABELS), SPEC, softmax=True)
    model.graph.node.append(helper.make_node("Neg", ["probabilities"], ["negative"]))
    model.graph.node.append(helper.make_node("Neg", ["negative"], ["answers"]))
    model.graph.output[0].name = "answers"
    onnx.save(model, tmp_path / "graph.onnx")
    asked = {"labels": labels, "preprocess": {"scaling": "half"}, "quiet": True}
    imported = linne.import_weights(tmp_path / "graph.onnx", tmp_path / "out", **asked)
    assert "`answers` are probabilities, of which the bundle takes logarithms" in imported.notes
    logits_NK = np.array([canary.logits for canary in imported.bundle.canaries])
    np.testing.assert_allclose(softmax(logits_NK), softmax(expected_logits(SPEC)), rtol=0, atol=1e-5)


def test_one_number_for_two_classes_becomes_two_where_a_sigmoid_makes_it(tmp_path):
    from onnx import TensorProto, helper

    (tmp_path / "names.txt").write_text("cat\ndog\n")
    asked = {"labels": tmp_path / "names.txt", "preprocess": {"scaling": "half"}, "quiet": True}
    model = image_graph(1, SPEC)
    onnx.save(model, tmp_path / "graph.onnx")
    with pytest.raises(LinneError, match="answers an image with 1 numbers, expected one for each of two") as caught:
        linne.import_weights(tmp_path / "graph.onnx", tmp_path / "out", **asked)
    assert caught.value.hint.startswith("one number for two classes is taken where a Sigmoid makes it")
    model.graph.node.append(helper.make_node("Sigmoid", ["scores"], ["dog"]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("dog", TensorProto.FLOAT, ["N", 1]))
    onnx.save(model, tmp_path / "graph.onnx")
    imported = linne.import_weights(tmp_path / "graph.onnx", tmp_path / "out", **asked)
    assert "`dog` is the second class's probability alone: the first one's logit is 0" in imported.notes
    predictor = Predictor.open(tmp_path / "out")
    dog_N1 = GraphSession(model.SerializeToString(), "plain").run(canary_batch(SPEC))
    found_NK = softmax(predictor.backend.run(canary_batch(SPEC)))
    # Probabilities of the same numbers in fp32.
    np.testing.assert_allclose(found_NK, np.hstack([1 - dog_N1, dog_N1]), rtol=0, atol=1e-6)


def test_grey_images_without_channels_are_taken_as_rows_and_columns(tmp_path, labels):
    from onnx import TensorProto, helper

    spec = dataclasses.replace(SPEC, channels=1, mean=(0.5,), std=(0.5,))
    plain = image_graph(len(LABELS), spec)
    model = onnx.ModelProto()
    model.CopyFrom(plain)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["N", 24, 32]))
    shape = helper.make_tensor("shape", TensorProto.INT64, [4], [0, 1, 24, 32])
    model.graph.initializer.append(shape)
    model.graph.node.insert(0, helper.make_node("Reshape", ["rows", "shape"], ["pixels"]))
    onnx.save(model, tmp_path / "graph.onnx")
    asked = {"labels": labels, "preprocess": {"scaling": "half"}, "quiet": True}
    imported = linne.import_weights(tmp_path / "graph.onnx", tmp_path / "out", **asked)
    assert imported.bundle.input == spec
    assert "input `rows`: any number of images, NHW, 24 x 32, grey" in imported.notes
    expected_NK = GraphSession(plain.SerializeToString(), "plain").run(canary_batch(spec))
    found_NK = Predictor.open(tmp_path / "out").backend.run(canary_batch(spec))
    # The same sums in fp32, in another order at most.
    np.testing.assert_allclose(found_NK, expected_NK, rtol=0, atol=1e-5 * np.abs(expected_NK).max())


@pytest.mark.parametrize(
    "text", ['["ant", "bee", "cow", "dog"]', "{0: 'ant', 1: 'bee', 2: 'cow', 3: 'dog'}", "ant,bee,cow,dog"]
)
def test_labels_are_taken_from_the_file_itself(tmp_path, text):
    path = written(tmp_path, metadata={"names": text})
    imported = linne.import_weights(path, tmp_path / "out", preprocess={"scaling": "half"}, quiet=True)
    assert imported.bundle.labels == LABELS
    assert imported.labels_from == "the file's own `names`"


@pytest.mark.parametrize(
    ("changes", "words", "message"),
    [
        ({}, {}, "nobody says how pixels are scaled"),
        ({}, {"scaling": "hlaf"}, "no scaling `hlaf`"),
        ({}, {"scaling": "half", "mean": (0.0,) * 3}, "both say how pixels are scaled"),
        ({}, {"scaling": "caffe", "order": "rgb"}, "`caffe` has blue first"),
        ({}, {"scaling": "half", "height": 64}, "height is 64, and the graph .* takes 24 alone"),
        ({}, {"scaling": "half", "layout": "hwc"}, "no layout `hwc` of pixels"),
        ({}, {"scaling": "half", "layout": "nhwc"}, "has no 1 or 3 channels as NHWC has them"),
        ({"kind": "UINT8"}, {"scaling": "half"}, "takes pixels of 0 to 255 as they are"),
    ],
)
def test_what_is_not_said_or_contradicts_the_graph_is_refused(tmp_path, labels, changes, words, message):
    with pytest.raises(RecipeError, match=message):
        linne.import_weights(
            written(tmp_path, **changes), tmp_path / "out", labels=labels, preprocess=words, quiet=True
        )
    assert not (tmp_path / "out").exists()


def test_a_layout_that_can_be_both_asks_for_a_word(tmp_path, labels):
    narrow = dataclasses.replace(SPEC, width=3)
    onnx.save(image_graph(len(LABELS), narrow), tmp_path / "graph.onnx")
    with pytest.raises(RecipeError, match="of which the channels may be the second or the last") as caught:
        linne.import_weights(tmp_path / "graph.onnx", tmp_path / "out", labels=labels, quiet=True)
    assert caught.value.hint == "use --preprocess layout=nchw or --preprocess layout=nhwc"


def test_of_several_outputs_one_is_chosen_by_name(tmp_path, labels):
    model = image_graph(len(LABELS), SPEC, softmax=True)
    model.graph.output.add().CopyFrom(model.graph.output[0])
    model.graph.output[1].name = "scores"
    onnx.save(model, tmp_path / "graph.onnx")
    asked = {"labels": labels, "preprocess": {"scaling": "half"}, "quiet": True}
    with pytest.raises(RecipeError, match="has 2 outputs") as caught:
        linne.import_weights(tmp_path / "graph.onnx", tmp_path / "out", **asked)
    assert caught.value.hint == "use --output-name with one of `probabilities`, `scores`"
    with pytest.raises(RecipeError, match="has no output `score`"):
        linne.import_weights(tmp_path / "graph.onnx", tmp_path / "out", output_name="score", **asked)
    assert linne.import_weights(tmp_path / "graph.onnx", tmp_path / "out", output_name="scores", **asked).bundle


def test_tensors_in_other_files_are_refused_by_import_and_by_the_session(tmp_path, labels):
    model = image_graph(len(LABELS), SPEC)
    onnx.save(model, tmp_path / "out.onnx", save_as_external_data=True, location="data.bin", size_threshold=0)
    with pytest.raises(LinneError, match=r"keeps `(filters|linear)` in another file, which is not followed"):
        linne.import_weights(tmp_path / "out.onnx", tmp_path / "out", labels=labels, quiet=True)
    with pytest.raises(LinneError, match="in another file"):
        GraphSession(tmp_path / "out.onnx", "out.onnx")


def test_operators_that_nobody_knows_and_bytes_that_are_none_are_refused(tmp_path, labels):
    from onnx import helper

    model = image_graph(len(LABELS), SPEC)
    model.graph.node[0].domain = "some.where"
    model.opset_import.append(helper.make_opsetid("some.where", 1))
    onnx.save(model, tmp_path / "graph.onnx")
    asked = {"labels": labels, "preprocess": {"scaling": "half"}, "quiet": True}
    with pytest.raises(LinneError, match=r"cannot be opened by ONNX Runtime .*some\.where"):
        linne.import_weights(tmp_path / "graph.onnx", tmp_path / "out", **asked)
    whole = written(tmp_path).read_bytes()
    for content in (whole[:-100], b"\x0a", b"\xff" * 40, b""):
        (tmp_path / "cut.onnx").write_bytes(content)
        with pytest.raises(LinneError):
            linne.import_weights(tmp_path / "cut.onnx", tmp_path / "out", **asked)


def test_a_graph_bundle_is_run_by_onnxruntime_alone(tmp_path):
    bundle = write_graph_bundle(tmp_path / "bundle", LABELS, SPEC)
    assert open_bundle(bundle.path) == bundle
    assert choose_backend("auto", bundle)[0] == "onnxruntime"
    with pytest.raises(LinneError, match=r"backend `torch` cannot run bundle .*: it holds a graph, `model\.onnx`"):
        Predictor.open(bundle, backend="torch")
    with pytest.raises(BundleError, match=r"holds a graph, `model\.onnx`, and no weights"):
        bundle.weights()
    with pytest.raises(DeviceError, match=r"has no DmlExecutionProvider for `--device dml`: it was built with .*CPU"):
        Predictor.open(bundle, how=RunOptions(device="dml"))
    with pytest.raises(DeviceError, match="an accelerator is required"):
        Predictor.open(bundle, how=RunOptions(require_accelerator=True))
    description = Predictor.open(bundle).backend.description
    assert description.startswith("onnxruntime ")
    assert description.endswith(" with CPUExecutionProvider")


def test_a_graph_is_imported_and_predicts_where_no_framework_can_be_imported(tmp_path, labels):
    program = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'timm', 'transformers'): sys.modules[name] = None\n"
        "import linne\n"
        "graph, labels, out, image = sys.argv[1:]\n"
        "linne.import_weights(graph, out, labels=labels, preprocess={'scaling': 'half'}, quiet=True)\n"
        "(answer,) = linne.predict(out, image)\n"
        "assert answer.error is None and len(answer.labels) == 4, answer\n"
    )
    words = [written(tmp_path), labels, tmp_path / "out", FOLDER / "cat.jpg"]
    ended = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_imagenets_names_are_taken_when_said_and_held_against_the_photographs(tmp_path):
    pytest.importorskip("timm", reason="has ImageNet's names: needs `linne[train]`")
    onnx.save(image_graph(1000, SPEC), tmp_path / "graph.onnx")
    graph, asked = tmp_path / "graph.onnx", {"preprocess": {"scaling": "half"}, "quiet": True}
    with pytest.raises(RecipeError, match="does not say what its 1,000 classes are") as caught:
        linne.import_weights(graph, tmp_path / "out", **asked)
    assert caught.value.hint.endswith("; where they are ImageNet's, --labels imagenet")
    with pytest.raises(CheckFailed, match=r"of 3 photographs \d got a right name among the first five"):
        linne.import_weights(graph, tmp_path / "out", labels="imagenet", **asked)
    imported = linne.import_weights(graph, tmp_path / "out", labels="imagenet", unproved=True, **asked)
    assert imported.labels_from == "ImageNet"
    assert imported.bundle.labels[:2] == ("tench", "goldfish")
    assert {"crane (n02012849)", "crane (n03126707)"} < set(imported.bundle.labels)


def test_imagenets_names_are_not_those_of_another_number_of_classes(tmp_path):
    pytest.importorskip("timm", reason="has ImageNet's names: needs `linne[train]`")
    asked = {"labels": "imagenet", "preprocess": {"scaling": "half"}, "quiet": True}
    with pytest.raises(RecipeError, match="ImageNet names 1,000 classes, and the graph has 4"):
        linne.import_weights(written(tmp_path), tmp_path / "out", **asked)


def test_a_file_called_imagenet_is_read_where_its_folder_is_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imagenet").write_text("\n".join(LABELS))
    asked = {"labels": "./imagenet", "preprocess": {"scaling": "half"}, "quiet": True}
    assert linne.import_weights(written(tmp_path), tmp_path / "out", **asked).bundle.labels == LABELS


def test_names_that_do_not_fit_the_photographs_are_refused(tmp_path):
    names = tmp_path / "names.txt"
    many = 40
    names.write_text("\n".join(["espresso", "missile", "tabby", *(f"thing {k}" for k in range(many - 3))]))
    onnx.save(image_graph(many, SPEC), tmp_path / "graph.onnx")
    asked = {"labels": names, "preprocess": {"scaling": "half"}, "quiet": True}
    with pytest.raises(CheckFailed, match="got a right name among the first five"):
        linne.import_weights(tmp_path / "graph.onnx", tmp_path / "out", **asked)
    assert linne.import_weights(tmp_path / "graph.onnx", tmp_path / "out", unproved=True, **asked).bundle
