"""Graphs by the real MIGraphX on its target `ref`, which needs no GPU, beside ONNX Runtime.

Where MIGraphX is not installed, `tests/pipeline/test_migraphx.py` runs this file by the Python of `make migraphx`.

The bounds of fp16 and bf16 are about four times what was measured with MIGraphX 2.14.0, whose reference cuts numbers
off where others round them, so that the errors of layers add up.
"""

from __future__ import annotations

import io
import os
import resource
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from fixtures.graphs import image_graph, write_graph_bundle

import linne
from linne.data.images.decode import to_input
from linne.errors import DeviceError, LinneError
from linne.graphs.migraphx_program import MigraphxProgram, find_binding, loaded_version, target_for, why_no_migraphx
from linne.graphs.session import GraphSession, why_no_runtime
from linne.inference.backends.base import RunOptions
from linne.inference.predictor import Predictor
from linne.preprocess import InputSpec, normalise
from linne.tuned import versions_of

onnx = pytest.importorskip("onnx")
reason = why_no_migraphx() or why_no_runtime()
pytestmark = [pytest.mark.long, pytest.mark.skipif(reason is not None, reason=f"{reason}")]

SPEC = InputSpec(
    channels=3, height=16, width=20, mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bicubic", crop_pct=0.8
)
LABELS = ("ant", "bee", "cow", "dog", "elk")
REAL = Path(os.environ.get("LINNE_TEST_DATA", ""))
WEIGHTS = REAL / "weights" / "mobilenet_v2-b0353104.pth"


@pytest.fixture(scope="module")
def graph():
    return image_graph(len(LABELS), SPEC).SerializeToString()


@pytest.fixture(scope="module")
def images_NCHW():
    return np.random.default_rng(0).normal(0, 1, (7, 3, 16, 20)).astype(np.float32)


def mobilenet(weights=None):
    """Return torchvision's MobileNetV2 as a graph, for any number of 64 x 64 pixels; its weights are drawn or read."""
    torch, torchvision = pytest.importorskip("torch"), pytest.importorskip("torchvision")
    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v2().eval()
    if weights is not None:
        network.load_state_dict(torch.load(weights, weights_only=True))
    written = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's older exporter is deprecated, and the newer needs another package
        names = {"input_names": ["pixels"], "output_names": ["logits"]}
        axes = {"pixels": {0: "N"}, "logits": {0: "N"}}
        torch.onnx.export(network, torch.zeros(1, 3, 64, 64), written, dynamo=False, dynamic_axes=axes, **names)
    return written.getvalue()


def gap(found_NK, expected_NK):
    """Return the largest difference as a share of the largest number."""
    return float(np.abs(found_NK - expected_NK).max() / np.abs(expected_NK).max())


def opened(graph, batch_size=3, **settings):
    return MigraphxProgram.open(graph, "model.onnx", **{"target": "ref", "batch_size": batch_size, **settings})


def added(bias_1CHW):
    """Return a graph that adds `bias_1CHW` to each image."""
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    shape = ["N", *bias_1CHW.shape[1:]]
    taken, given = (helper.make_tensor_value_info(name, number, shape) for name in "xy")
    node, bias = helper.make_node("Add", ["x", "bias"], ["y"]), onnx.numpy_helper.from_array(bias_1CHW, "bias")
    graph = helper.make_graph([node], "g", [taken], [given], [bias])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()


def resident_bytes():
    """Return how much memory this process holds now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def test_a_program_says_which_migraphx_it_is_and_that_the_reference_is_slow(graph):
    description = opened(graph).description
    assert description.startswith("MIGraphX 2.")
    assert description.endswith("with its target `ref`, a slow reference on the CPU")
    assert description.startswith(f"MIGraphX {versions_of('migraphx')['migraphx']} ")


# Measured: 3.2e-7, 2.6e-3, 1.7e-2, 2.4e-2. fp32 is added in another order.
@pytest.mark.parametrize(("precision", "allowed"), [("fp32", 1e-5), ("fp16", 0.01), ("bf16", 0.07), ("int8", 0.1)])
def test_a_small_network_answers_as_by_onnx_runtime(graph, images_NCHW, precision, allowed):
    expected_NK = GraphSession(graph, "model.onnx").run(images_NCHW)
    calibration_NCHW = images_NCHW if precision == "int8" else None
    found_NK = opened(graph, precision=precision, calibration_NCHW=calibration_NCHW).run(images_NCHW)
    assert found_NK.dtype == np.float32
    assert gap(found_NK, expected_NK) <= allowed
    assert (found_NK.argmax(1) == expected_NK.argmax(1)).all()
    if precision != "fp32":
        assert gap(found_NK, expected_NK) > 1e-5, "a precision that changes nothing was not used"


def test_mobilenet_answers_as_by_onnx_runtime():
    content = mobilenet()
    images_NCHW = np.random.default_rng(1).normal(0, 1, (2, 3, 64, 64)).astype(np.float32)
    expected_NK = GraphSession(content, "model.onnx").run(images_NCHW)
    assert gap(opened(content, 2).run(images_NCHW), expected_NK) <= 1e-5  # measured: 5e-7


@pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"LINNE_TEST_DATA names no folder with weights/{WEIGHTS.name}")
@pytest.mark.parametrize(("precision", "allowed"), [("fp32", 1e-5), ("fp16", 0.3)])  # measured: 2e-6, 0.07
def test_a_trained_mobilenet_knows_photographs_as_by_onnx_runtime(precision, allowed):
    content = mobilenet(WEIGHTS)
    spec = InputSpec(channels=3, height=64, width=64, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    photographs = sorted((REAL / "imagenet20").glob("*.[jJ]*"))[:4]
    images_NCHW = normalise(np.stack([to_input(file.read_bytes(), spec, name=file.name) for file in photographs]), spec)
    expected_NK = GraphSession(content, "model.onnx").run(images_NCHW)
    found_NK = opened(content, 4, precision=precision).run(images_NCHW)
    assert gap(found_NK, expected_NK) <= allowed
    assert (found_NK.argmax(1) == expected_NK.argmax(1)).all()


def test_an_int8_export_of_onnx_runtimes_is_computed_as_by_onnx_runtime(graph, images_NCHW, tmp_path):
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Images(quantization.CalibrationDataReader):
        def __init__(self):
            self.batches = iter([{"pixels": images_NCHW}])

        def get_next(self):
            return next(self.batches, None)

    (tmp_path / "fp32.onnx").write_bytes(graph)
    quantization.quantize_static(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", Images(), per_channel=True)
    content = (tmp_path / "int8.onnx").read_bytes()
    expected_NK = GraphSession(content, "int8.onnx").run(images_NCHW)
    # Whole numbers are added without rounding; only scales are multiplied in fp32.
    assert gap(opened(content).run(images_NCHW), expected_NK) <= 1e-5


def test_a_saved_program_gives_the_same_bits(graph, images_NCHW):
    program = opened(graph, precision="fp16")
    again = MigraphxProgram.load(program.save(), "model.mxr", target="ref")
    assert again.batch_size == 3
    np.testing.assert_array_equal(again.run(images_NCHW), program.run(images_NCHW))


def test_an_export_is_compiled_once_and_answers_from_its_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    bundle = write_graph_bundle(tmp_path / "bundle", LABELS, SPEC)
    made = linne.export(bundle.path, "migraphx", device="cpu", quiet=True)
    assert made.agreement.num_same == 64
    predictor = Predictor.open(bundle, backend="migraphx", how=RunOptions(device="cpu"))
    assert predictor.backend.description.endswith("compiled before")
    (report,) = linne.verify(bundle.path, backend="migraphx", device="cpu", keep=False, quiet=True)
    assert report.passed, report.problems


def test_a_program_of_another_version_is_loaded_by_migraphx_itself_which_is_why_linne_looks(graph, capfd):
    content = opened(graph).save()
    version = loaded_version().encode("ascii")
    assert content.count(version) == 1
    MigraphxProgram.load(content.replace(version, b"2.0.00"[: len(version)]), "model.mxr", target="ref")
    assert "MXR File was created using MIGraphX version" in "".join(capfd.readouterr())


def test_what_the_library_says_is_in_the_error_and_not_on_stderr(capfd):
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    node = helper.make_node("Unheard", ["x"], ["y"])
    values = [helper.make_tensor_value_info(name, number, [2, 2]) for name in "xy"]
    unknown = helper.make_model(helper.make_graph([node], "g", values[:1], values[1:])).SerializeToString()
    with pytest.raises(LinneError) as raised:
        opened(unknown)
    assert raised.value.message.startswith("`model.onnx` cannot be read by MIGraphX 2.")
    assert "Unheard" in raised.value.message
    with pytest.raises(LinneError, match=r"`model.mxr` cannot be loaded by MIGraphX 2\.\d+\.\d+: .+"):
        MigraphxProgram.load(b"nothing of the kind", "model.mxr", target="ref")
    assert capfd.readouterr().err == ""


def test_what_others_write_to_stderr_meanwhile_is_not_lost(graph, capfd):
    stop = threading.Event()

    def talk():
        while not stop.is_set():
            os.write(2, b"word\n")
            said.append(1)
            stop.wait(0.001)

    said = []
    thread = threading.Thread(target=talk)
    thread.start()
    for _ in range(20):
        opened(graph)
    stop.set()
    thread.join()
    assert capfd.readouterr().err == "word\n" * len(said)


def test_a_gpu_that_is_not_there_is_said_and_nothing_takes_its_place(graph):
    if os.path.exists("/dev/kfd"):
        pytest.skip("there is a GPU of AMD's here")
    with pytest.raises(DeviceError, match="MIGraphX finds no GPU that it can use: `a graph of one node` cannot be"):
        opened(graph, target=target_for("rocm"))


def test_memory_is_given_back_also_after_errors():
    content = added(np.ones((1, 3, 256, 256), np.float32))
    images_NCHW = np.ones((3, 3, 256, 256), np.float32)

    def once():
        program = opened(content)
        program.run(images_NCHW)
        program.close()
        with pytest.raises(LinneError):
            opened(content, precision="int8", calibration_NCHW=images_NCHW[..., :-1])

    for _ in range(5):  # until allocators have what they keep
        once()
    before = resident_bytes()
    for _ in range(30):
        once()
    # Kept, programs would be 45 MB and their outputs 70 MB. Allocators may take some pages more at any time.
    assert resident_bytes() - before < 8 * 2**20


def test_inputs_that_do_not_fit_are_refused_before_the_library_sees_them(graph):
    program = find_binding().parse(graph, 2)
    program.compile("ref", exhaustive_tune=False)
    with pytest.raises(Exception, match="pixels"):
        program.run({"pixels": np.zeros((2, 3, 16, 19), np.float32)})


def test_a_bundle_is_predicted_with_and_proves_itself(tmp_path):
    bundle = write_graph_bundle(tmp_path / "bundle", LABELS, SPEC)
    for precision in ("fp32", "fp16"):
        predictor = Predictor.open(bundle, backend="migraphx", how=RunOptions(device="cpu", precision=precision))
        assert predictor.worst_canary().gap <= predictor.canary_tolerance
        (answer,) = predictor.predict_files([bundle.path / bundle.canaries[0].file])
        assert answer.error is None
        assert "MIGraphX" in predictor.backend.description
