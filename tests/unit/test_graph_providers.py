"""ONNX Runtime's providers: what is asked for runs, or it is an error; by what was recorded of real packages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from linne.doctor.tiny_model import EXPECTED, tiny_input, tiny_model
from linne.errors import DeviceError
from linne.exports import PRECISIONS
from linne.graphs.plugins import find_plugin
from linne.graphs.providers import AUTO, PROVIDERS, automatic, target_for
from linne.graphs.session import open_session

FIXTURES = Path(__file__).parents[1] / "fixtures"
CHILD = """
import json, sys
from pathlib import Path
from linne.doctor.tiny_model import tiny_input, tiny_model
from linne.errors import LinneError
from linne.graphs import session
found = []
for device, how in json.loads(sys.argv[1]):
    try:
        opened = session.open_session(tiny_model(), "tiny", device=device, root=Path(sys.argv[2]), **how)
        own, answer = opened._session, opened.run(tiny_input()).tolist()
        told = [own.told, own.options.entries, own.options.enable_mem_pattern]
        found.append([opened.description, *told, answer, opened.notes, own.beside])
    except LinneError as error:
        found.append([error.message, error.hint])
print(json.dumps(found))
"""


@pytest.fixture
def opens(tmp_path):
    """Return what opening a graph on devices gives, where a stand-in of onnxruntime does with providers as told."""

    def opens(does, *asked, plugins=()):
        for module in ("onnxruntime", *plugins):
            text = FIXTURES / "stand_ins" / f"{'onnxruntime_ep_webgpu' if plugins and module in plugins else module}.py"
            (tmp_path / f"{module}.py").write_text(text.read_text("utf-8"), "utf-8")
        path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
        environ = {**os.environ, "PYTHONPATH": path, "DOES": json.dumps({**does, "CPUExecutionProvider": ""})}
        words = [sys.executable, "-c", CHILD, json.dumps(asked), str(tmp_path)]
        done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return opens


RIGHT = [[8.0, 0.0]]


def test_a_provider_that_runs_is_told_what_it_needs_and_its_share_of_nodes_is_said(opens):
    does = {"CUDAExecutionProvider": "partly", "DmlExecutionProvider": "", "OpenVINOExecutionProvider": ""}
    cuda, dml, openvino = opens(
        does, ("cuda:1", {}), ("dml", {}), ("openvino:gpu:1", {"precision": "fp16", "require_accelerator": True})
    )
    recorded = {"session.intra_op.allow_spinning": "1", "session.record_ep_graph_assignment_info": "1"}
    assert cuda == [
        "onnxruntime 1.31.1 with CUDAExecutionProvider (3 of 4 nodes)",
        {"use_tf32": "0", "device_id": "1"},
        recorded,
        True,
        RIGHT,
        ["1 of 4 nodes of `tiny` run on the CPU, which CUDAExecutionProvider leaves to it"],
        [],
    ]
    assert dml == ["onnxruntime 1.31.1 with DmlExecutionProvider (4 of 4 nodes)", {}, recorded, False, RIGHT, [], []]
    assert openvino[:2] == [
        "onnxruntime 1.31.1 with OpenVINOExecutionProvider (4 of 4 nodes)",
        {"device_type": "GPU.1", "precision": "FP16"},
    ]
    assert openvino[2] == {**recorded, "session.disable_cpu_ep_fallback": "1"}


def test_a_provider_that_leaves_the_graph_to_the_cpu_is_an_error(opens):
    does = {"CUDAExecutionProvider": "nothing", "MIGraphXExecutionProvider": "raise"}
    does["OpenVINOExecutionProvider"] = "replaced"  # as device_type=GPU was seen to, with no exception
    strictly = {"require_accelerator": True}
    replaced, nothing, fails, strict, absent = opens(
        does, ("openvino:gpu", {}), ("cuda", {}), ("rocm", {}), ("openvino:gpu", strictly), ("tensorrt", FP16)
    )
    assert replaced == [
        "`--device openvino:gpu`: ONNX Runtime would run `tiny` with CPUExecutionProvider, "
        "not with OpenVINOExecutionProvider",
        "what that provider needs is not here: `linne doctor` says what is missing",
    ]
    assert nothing[0] == "CUDAExecutionProvider runs none of the 4 nodes of `tiny`; all would be the CPU's"
    reason = "no kernel image, or nodes on the CPU"
    assert fails == [
        f"`--device rocm`: ONNX Runtime 1.31.1 cannot open `tiny` with MIGraphXExecutionProvider: {reason}",
        "`linne doctor` tries each provider and says what is missing",
    ]
    assert strict[0].endswith(f"cannot open `tiny` with OpenVINOExecutionProvider: {reason}")
    assert absent == [
        "onnxruntime 1.31.1 has no TensorrtExecutionProvider for `--device tensorrt`: "
        "it was built with CUDA, MIGraphX, OpenVINO, CPU",
        'pip install "onnxruntime-gpu[cuda,cudnn]" "tensorrt<11" (only one onnxruntime package at a time: '
        "each writes over the other, and the last installed wins)",
    ]


FP16 = {"precision": "fp16"}


def test_what_tensorrt_leaves_goes_to_cuda_on_the_same_device(opens):
    does = {"TensorrtExecutionProvider": "partly", "CUDAExecutionProvider": ""}
    (opened,) = opens(does, ("tensorrt:1", FP16))
    assert opened[0] == "onnxruntime 1.31.1 with TensorrtExecutionProvider (3 of 4 nodes)"
    assert opened[1] == {"trt_fp16_enable": "1", "device_id": "1"}
    assert opened[6] == [["CUDAExecutionProvider", {"device_id": "1"}]]


def test_auto_takes_an_accelerator_that_opens_the_graph_and_says_why_it_is_the_cpu(opens, tmp_path):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "kfd").touch()
    does = {"CUDAExecutionProvider": "replaced", "MIGraphXExecutionProvider": "partly"}
    (taken,) = opens(does, ("auto", {}))
    assert taken[0] == "onnxruntime 1.31.1 with MIGraphXExecutionProvider (3 of 4 nodes)"
    cpu, required = opens(
        {**does, "MIGraphXExecutionProvider": "raise"}, ("auto", {}), ("auto", {"require_accelerator": True})
    )
    assert cpu[0] == "onnxruntime 1.31.1 with CPUExecutionProvider"
    not_cuda, not_rocm = cpu[5]
    assert not_cuda.startswith(
        "`tiny` runs on the CPU, not cuda: `--device cuda`: ONNX Runtime would run `tiny` with CPU"
    )
    assert not_rocm.startswith(
        "`tiny` runs on the CPU, not rocm: `--device rocm`: ONNX Runtime 1.31.1 cannot open `tiny`"
    )
    assert required[0].startswith(
        "an accelerator is required, and this graph would run on the CPU by ONNX Runtime: not c"
    )


def test_auto_tries_nothing_where_there_is_no_device_file():
    every = [provider.name for provider in PROVIDERS.values()]
    assert automatic(every, ()) == ()
    assert automatic(every, ("/dev/kfd",)) == AUTO
    assert automatic(["CPUExecutionProvider", "MIGraphXExecutionProvider"], ("/dev/kfd",)) == ("rocm",)


def test_a_plugin_runs_on_the_device_that_it_offers_and_none_is_an_error(opens):
    asked = ("plugin:webgpu", {}), ("plugin:webgpu", {})
    for opened in opens({"webgpuExecutionProvider": ""}, *asked, plugins=("onnxruntime_ep_webgpu",)):
        assert opened[0] == "onnxruntime 1.31.1 with webgpuExecutionProvider (4 of 4 nodes)"
    for refused in opens({"webgpuExecutionProvider": "no device"}, *asked, plugins=("onnxruntime_ep_webgpu",)):
        assert refused[0] == (
            "onnxruntime-ep-webgpu offers ONNX Runtime no device: it finds no hardware of its kind here"
        )


def test_a_plugin_that_is_not_there_is_named():
    with pytest.raises(DeviceError, match="no package brings the plugin `webgpu` of ONNX Runtime") as caught:
        find_plugin("plugin", "webgpu")
    assert caught.value.hint is not None
    assert "to be had: onnxruntime-ep-openvino, onnxruntime-ep-webgpu" in caught.value.hint
    for name in ("", "os.path", "../x"):
        with pytest.raises(DeviceError, match="no package brings the plugin"):
            find_plugin("plugin", name)
    with pytest.raises(DeviceError, match="Windows ML cannot be used: No module named 'windowsml'"):
        find_plugin("windowsml", "OpenVINO")


@pytest.mark.parametrize(
    ("device", "hint"),
    [
        ("cuda:x", "did you mean `cuda`?"),
        ("cudda", "did you mean `cuda`?"),
        ("cpu:1", "did you mean `cpu`?"),
        ("mps", "did you mean `coreml`?"),
        ("xpu:0", "did you mean `openvino:gpu`?"),
        ("openvino", "did you mean `openvino:cpu`?"),
        ("toaster", "It runs on cpu, cuda, tensorrt, rocm, migraphx, openvino:cpu,"),
    ],
)
def test_a_device_that_no_provider_has_is_refused_with_the_nearest(device, hint):
    with pytest.raises(DeviceError, match=f"a graph does not run on `{device}` by ONNX Runtime") as caught:
        target_for(device)
    assert str(caught.value.hint).startswith(hint)


def test_a_precision_that_a_device_has_not_is_refused_before_the_provider_gives_way_to_the_cpu():
    with pytest.raises(DeviceError, match="does not compute in fp16 on `openvino:cpu`"):
        target_for("openvino:cpu", "fp16")
    with pytest.raises(DeviceError, match="does not compute in fp32 on `openvino:npu`") as caught:
        target_for("openvino:npu")
    assert caught.value.hint == "it computes in fp16, int8"


def test_tensorrt_computes_fp32_only_where_tf32_is_off(monkeypatch):
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    with pytest.raises(DeviceError, match="TensorRT computes fp32 with TF32") as caught:
        target_for("tensorrt")
    assert "NVIDIA_TF32_OVERRIDE=0" in str(caught.value.hint)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert target_for("tensorrt").options == {}
    assert target_for("tensorrt:2", "int8").options == {"trt_int8_enable": "1", "device_id": "2"}


@pytest.mark.parametrize("device", PROVIDERS)
def test_every_provider_says_how_it_is_installed_and_knows_its_precisions(device):
    provider = PROVIDERS[device]
    assert provider.name.endswith("ExecutionProvider")
    assert provider.install
    assert set(provider.by_precision) <= set(PRECISIONS)
    assert "CPUExecutionProvider" not in provider.beside, "what it leaves to the CPU would not be seen"


def test_the_real_provider_of_openvino_runs_every_node_and_never_gives_way_to_the_cpu():
    runtime = pytest.importorskip("onnxruntime")
    if "OpenVINOExecutionProvider" not in runtime.get_available_providers():
        pytest.skip("this onnxruntime has no OpenVINO: in an environment of its own, pip install onnxruntime-openvino")
    opened = open_session(tiny_model(), "tiny", device="openvino:cpu", num_threads=1)
    assert opened.description == f"onnxruntime {runtime.__version__} with OpenVINOExecutionProvider (2 of 2 nodes)"
    assert opened.run(tiny_input()).tolist() == [list(EXPECTED)]
    with pytest.raises(DeviceError, match="`--device openvino:gpu:7`: ONNX Runtime would run `tiny` with CPUExecution"):
        open_session(tiny_model(), "tiny", device="openvino:gpu:7")
