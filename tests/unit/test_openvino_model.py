"""OpenVINO: on the device and in the numbers that were asked for, or an error; the real one on its CPU."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fixtures.graphs import image_graph, write_graph_bundle

from linne.errors import BundleError, DeviceError, LinneError
from linne.exports import write_export
from linne.graphs.openvino_model import MAX_COMPILED, OpenVinoModel, the_core, to_ir
from linne.graphs.session import GraphSession
from linne.inference.backends import choose_backend
from linne.inference.backends.base import RunOptions
from linne.inference.backends.openvino import OpenVinoBackend
from linne.inference.predictor import Predictor
from linne.preprocess import InputSpec

pytest.importorskip("openvino", reason="OpenVINO is tried for real: pip install 'linne[openvino]'")
import openvino

FIXTURES = Path(__file__).parents[1] / "fixtures"
LABELS = ("ant", "bee", "cow", "dog")
SPEC = InputSpec(channels=3, height=12, width=10, mean=(0.5,) * 3, std=(0.25,) * 3)
GRAPH = image_graph(len(LABELS), SPEC).SerializeToString()
CAN = the_core().get_property(the_core().available_devices[0], "OPTIMIZATION_CAPABILITIES")
CLOSE = 1e-5
"""Of the largest logit: other kernels add in another order."""


@pytest.fixture(scope="module")
def images_NCHW():
    return np.random.default_rng(3).normal(0, 1, (7, 3, SPEC.height, SPEC.width)).astype(np.float32)


@pytest.fixture(scope="module")
def expected_NK(images_NCHW):
    return GraphSession(GRAPH, "by hand").run(images_NCHW)


def gap(found_NK, expected_NK):
    assert found_NK.shape == expected_NK.shape
    return np.abs(found_NK - expected_NK).max() / np.abs(expected_NK).max()


def test_fp32_is_computed_in_fp32_where_openvino_itself_would_take_bf16(images_NCHW, expected_NK):
    model = OpenVinoModel(GRAPH, "by hand", num_threads=1)
    assert model.description == f"openvino {openvino.__version__.partition('-')[0]} on CPU"
    assert gap(model.run(images_NCHW), expected_NK) < CLOSE


def test_bf16_is_bf16_or_an_error(images_NCHW, expected_NK):
    if "BF16" not in CAN:
        with pytest.raises(DeviceError, match=r"would compute `by hand` in f32 on CPU, not in bf16"):
            OpenVinoModel(GRAPH, "by hand", precision="bf16")
        return
    model = OpenVinoModel(GRAPH, "by hand", precision="bf16")
    assert model.description.endswith(" on CPU in bf16")
    assert CLOSE < gap(model.run(images_NCHW), expected_NK) < 0.1, "8 bits of mantissa, a few layers"


@pytest.mark.skipif("FP16" in CAN, reason="this processor computes in fp16")
def test_fp16_that_would_be_computed_in_other_numbers_is_an_error():
    with pytest.raises(
        DeviceError, match=r"OpenVINO would compute `by hand` in (bf16|f32) on CPU, not in f16"
    ) as caught:
        OpenVinoModel(GRAPH, "by hand", precision="fp16")
    assert caught.value.hint == "the device has no instructions for it: use another --precision"


@pytest.mark.parametrize("hint", ["latency", "throughput"])
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("batch", [None, 3])
def test_answers_are_the_same_for_any_number_of_images(images_NCHW, expected_NK, hint, fixed, batch):
    graph = image_graph(len(LABELS), SPEC, batch=batch).SerializeToString()
    model = OpenVinoModel(graph, "by hand", num_threads=2, hint=hint, fixed_batch=fixed)
    for count in (1, 7, 2, 5, 7):
        assert gap(model.run(images_NCHW[:count]), expected_NK[:count]) < CLOSE
        assert len(model._compiled) <= MAX_COMPILED


def test_every_other_layout_of_memory_is_taken(images_NCHW, expected_NK):
    model = OpenVinoModel(GRAPH, "by hand")
    turned = np.ascontiguousarray(images_NCHW.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert not turned.flags.c_contiguous
    assert gap(model.run(turned), expected_NK) < CLOSE
    assert gap(model.run(images_NCHW[::-1]), expected_NK[::-1]) < CLOSE


def test_what_is_no_graph_or_keeps_tensors_elsewhere_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx")
    for content in (GRAPH[:-50], b"\xff" * 40, b""):
        with pytest.raises(LinneError, match="`cut`"):
            OpenVinoModel(content, "cut")
    model = onnx.load_model_from_string(GRAPH)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    outside = (tmp_path / "m.onnx").read_bytes()
    with pytest.raises(LinneError, match=r"keeps `\w+` in another file, which is not followed"):
        OpenVinoModel(outside, "m.onnx")
    with pytest.raises(LinneError, match=r"keeps `\w+` in another file, which is not followed"):
        to_ir(outside, "m.onnx", tmp_path, fp16=False)
    with pytest.raises(LinneError, match="was given no image"):
        OpenVinoModel(GRAPH, "by hand").run(np.zeros((0, 3, 12, 10), np.float32))


@pytest.mark.parametrize(
    ("device", "message", "hint"),
    [
        ("cuda", "OpenVINO has no device `cuda`", "it runs on cpu, gpu, xpu, npu, as in gpu:1"),
        ("gpuu", "OpenVINO has no device `gpuu`", "did you mean `gpu`?"),
        ("cpu:1", "OpenVINO has no device `cpu:1`", "did you mean `cpu`?"),
        ("gpu:x", "OpenVINO has no device `gpu:x`", "did you mean `gpu`?"),
    ],
)
def test_a_device_that_openvino_has_not_is_refused(device, message, hint):
    with pytest.raises(DeviceError) as caught:
        OpenVinoModel(GRAPH, "by hand", device=device)
    assert (caught.value.message, caught.value.hint) == (message, hint)


@pytest.mark.skipif(len(the_core().available_devices) > 1, reason="this machine has more than a CPU for OpenVINO")
def test_a_gpu_that_is_not_there_is_an_error_and_not_the_cpu():
    for device in ("gpu", "xpu:1", "npu"):
        with pytest.raises(DeviceError, match=r"OpenVINO lists no [GN]PU(\.1)? here, but CPU"):
            OpenVinoModel(GRAPH, "by hand", device=device)
    with pytest.raises(DeviceError, match="an accelerator is required, and OpenVINO lists no GPU here, but CPU"):
        OpenVinoModel(GRAPH, "by hand", require_accelerator=True)
    with pytest.raises(DeviceError, match="an accelerator is required, and `--device cpu` is the CPU"):
        OpenVinoModel(GRAPH, "by hand", device="cpu", require_accelerator=True)


def with_export(tmp_path, precision):
    bundle = write_graph_bundle(tmp_path / "bundle", LABELS, SPEC)
    content = (bundle.path / "model.onnx").read_bytes()

    def canary_logits(main):
        return [canary.logits for canary in bundle.canaries]

    fill = lambda folder: to_ir(content, "model.onnx", folder, fp16=precision == "fp16")  # noqa: E731
    return bundle, write_export(bundle, "openvino", precision, fill=fill, canary_logits=canary_logits, facts={})


def test_an_export_to_openvino_is_run_in_place_of_the_graph_and_only_while_it_is_whole(tmp_path):
    bundle, export = with_export(tmp_path, "int8")
    assert sorted(export.files) == ["model.bin", "model.xml"]
    assert OpenVinoBackend.why_not(bundle, "int8") is None
    predictor = Predictor.open(bundle, backend="openvino", how=RunOptions(precision="int8"))
    assert predictor.backend.description.endswith(" on CPU in int8")
    assert predictor.backend.canary_logits_NK is not None
    weights = bytearray((export.path / "model.bin").read_bytes())
    weights[100] ^= 1
    (export.path / "model.bin").write_bytes(weights)
    with pytest.raises(BundleError, match=r"model\.bin"):
        Predictor.open(bundle, backend="openvino", how=RunOptions(precision="int8"))


@pytest.mark.skipif("BF16" not in CAN, reason="this processor does not compute in bf16")
def test_bf16_is_computed_from_an_export_in_fp32_as_well_as_from_a_graph(tmp_path):
    bundle, export = with_export(tmp_path, "fp32")
    bf16 = RunOptions(precision="bf16")
    assert OpenVinoBackend.why_not(bundle, "bf16") is None
    assert Predictor.open(bundle, backend="openvino", how=bf16).backend.canary_logits_NK is not None
    shutil.rmtree(export.path)
    assert Predictor.open(bundle, backend="openvino", how=bf16).backend.canary_logits_NK is None


def test_weights_in_fp16_take_half_the_space(tmp_path):
    sizes = {}
    for fp16 in (False, True):
        folder = tmp_path / str(fp16)
        folder.mkdir()
        assert to_ir(GRAPH, "by hand", folder, fp16=fp16) == "model.xml"
        sizes[fp16] = (folder / "model.bin").stat().st_size
    assert 0.45 < sizes[True] / sizes[False] < 0.55


def test_auto_takes_openvino_only_for_what_nothing_else_can_run(tmp_path):
    bundle = write_graph_bundle(tmp_path / "plain", LABELS, SPEC)
    assert choose_backend("auto", bundle, device="cpu")[0] == "onnxruntime"
    assert choose_backend("auto", bundle, "bf16", device="cpu")[0] == "openvino"
    with pytest.raises(
        LinneError, match=r"it has no graph for OpenVINO: linne export .* --to openvino --precision int8"
    ):
        choose_backend("openvino", bundle, "int8")


CHILD = """
import json, sys
from linne.doctor.tiny_model import tiny_input, tiny_model
from linne.errors import LinneError
from linne.graphs.openvino_model import OpenVinoModel
found = []
for how in json.loads(sys.argv[1]):
    try:
        opened = OpenVinoModel(tiny_model(), "tiny", **how)
        found.append([opened.description, opened.run(tiny_input()).tolist(), *opened.notes])
    except LinneError as error:
        found.append(error.message)
print(json.dumps(found))
"""


def by_stand_in(tmp_path, does, *asked):
    """Return what opening the tiny model gives where a stand-in of openvino does on devices as told."""
    (tmp_path / "openvino.py").write_text((FIXTURES / "stand_ins" / "openvino.py").read_text("utf-8"), "utf-8")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    environ = {**os.environ, "PYTHONPATH": path, "DOES": json.dumps(does)}
    words = [sys.executable, "-c", CHILD, json.dumps(asked)]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_gpu_is_taken_by_auto_and_its_numbers_are_those_asked_for(tmp_path):
    gpu, half, npu, cpu = by_stand_in(
        tmp_path,
        {"CPU": "", "GPU": "", "NPU": ""},
        {"require_accelerator": True},
        {"device": "gpu", "precision": "fp16", "hint": "throughput"},
        {"device": "npu", "precision": "fp16"},
        {"device": "cpu", "precision": "fp16"},
    )
    assert gpu == ["openvino 2026.4.1 on GPU", [[8.0, 0.0]]]
    assert half == ["openvino 2026.4.1 on GPU in fp16", [[8.0, 0.0]]]
    assert npu == ["openvino 2026.4.1 on NPU in fp16", [[8.0, 0.0]]]
    assert cpu == "OpenVINO would compute `tiny` in bf16 on CPU, not in f16"


def test_a_gpu_that_gives_way_to_the_cpu_or_to_other_numbers_is_an_error_and_auto_says_so(tmp_path):
    auto, named, second = by_stand_in(
        tmp_path, {"CPU": "", "GPU": "replaced"}, {}, {"device": "gpu"}, {"device": "gpu:1"}
    )
    assert auto == [
        "openvino 2026.4.1 on CPU",
        [[8.0, 0.0]],
        "`tiny` runs on the CPU, not GPU: OpenVINO runs `tiny` on CPU, not on GPU",
    ]
    assert named == "OpenVINO runs `tiny` on CPU, not on GPU"
    assert second.startswith("OpenVINO cannot compile `tiny` for GPU.1")
    (half,) = by_stand_in(tmp_path, {"CPU": "", "GPU": "half"}, {"device": "gpu"})
    assert half == "OpenVINO would compute `tiny` in f16 on GPU, not in f32"
    (fails,) = by_stand_in(tmp_path, {"CPU": "", "GPU": "raise"}, {"device": "gpu"})
    assert fails == "OpenVINO cannot compile `tiny` for GPU: Cannot load library"


@pytest.mark.long
def test_openvino_opens_no_connection_when_it_is_imported_run_and_written_with(tmp_path):
    (tmp_path / "graph.onnx").write_bytes(GRAPH)
    program = (
        "import sys; from pathlib import Path; seen = []\n"
        "sys.addaudithook(lambda event, _: event.startswith('socket.') and seen.append(event))\n"
        "import numpy as np; from linne.graphs.openvino_model import OpenVinoModel, to_ir\n"
        "folder = Path(sys.argv[1]); graph = (folder / 'graph.onnx').read_bytes()\n"
        "OpenVinoModel(graph, 'g').run(np.zeros((2, 3, 12, 10), np.float32))\n"
        "OpenVinoModel(folder / to_ir(graph, 'g', folder, fp16=True), 'ir')\n"
        "print(seen)"
    )
    words = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "[]\n", "its converter has telemetry, which must not be reached"


def test_a_signal_after_two_models_were_closed_is_handled_and_ends_nothing(tmp_path):
    (tmp_path / "model.onnx").write_bytes(GRAPH)
    program = """
import os, signal, sys
from pathlib import Path
from linne.graphs.openvino_model import OpenVinoModel
import numpy as np
seen = []
signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
data = Path(sys.argv[1]).read_bytes()
first, second = (OpenVinoModel(data, "by hand", device="cpu") for _ in range(2))
for model in (first, second):
    model.run(np.zeros((1, 3, 12, 10), np.float32))
del model, first
del second
os.kill(os.getpid(), signal.SIGTERM)
sys.exit(0 if seen == [signal.SIGTERM] else "no signal was seen")
"""
    words = [sys.executable, "-c", program, tmp_path / "model.onnx"]
    child = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (child.returncode, child.stderr) == (0, "")
