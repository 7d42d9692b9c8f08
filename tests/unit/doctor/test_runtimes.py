"""The inference runtimes: which device computes, by stand-ins and by what the real packages reported."""

import copy
import json
import os
import random
import struct
import sys
from pathlib import Path

import pytest

from linne.child import Heard
from linne.doctor.gpu import AMD, INTEL, NVIDIA, Gpu
from linne.doctor.machine import Machine
from linne.doctor.runtimes import RUNTIMES, judge, runtimes_section
from linne.doctor.tiny_model import is_right, tiny_input, tiny_model

pytestmark = pytest.mark.long

FIXTURES = Path(__file__).parents[2] / "fixtures"
BY_NAME = {runtime.name: runtime for runtime in RUNTIMES}
CAPTURES = json.loads((FIXTURES / "probes" / "no_gpu_debian12.json").read_text("utf-8"))
CPU = "CPUExecutionProvider"
posix = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")


@pytest.fixture
def section(tmp_path):
    """Return the checks by name where stand-ins are installed and their devices do as told."""

    def section(name, modules, does=None, *, gpus=(), system="Linux", files=(), limit_s=30.0, **variables):
        (tmp_path / "site").mkdir(exist_ok=True)
        for module in modules:
            source = modules[module] if isinstance(modules, dict) else None
            text = source or (FIXTURES / "stand_ins" / f"{module}.py").read_text("utf-8")
            (tmp_path / "site" / f"{module}.py").write_text(text, "utf-8")
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text("", "utf-8")
        path = os.pathsep.join([str(tmp_path / "site"), *filter(None, sys.path)])
        environ = {**os.environ, "PYTHONPATH": path, "DOES": json.dumps(does or {}), **variables}
        machine = Machine(root=tmp_path, path=(), environ=environ, system=system)
        found = runtimes_section(machine, gpus, runtimes=[BY_NAME[name]], limit_s=limit_s)
        json.dumps([check.to_dict() for check in found.checks])
        return {check.name: check for check in found.checks}

    return section


def said(checks):
    return {name: (check.status, check.found) for name, check in checks.items()}


def captured(of, *words):
    """Return what a real package's probe reported."""
    record = next(record for record in CAPTURES if record["of"].startswith(of) and record["words"] == list(words))
    return Heard(end=record["end"], how=record["how"], events=tuple(record["events"]), said=record["said"], seconds=1.0)


def provider(name):
    return f"{name}ExecutionProvider"


def test_providers_are_told_apart_by_what_they_do_and_not_by_being_listed(section):
    does = {"CPU": "right", "CUDA": "right", "OpenVINO": "replaced", "WebGPU": "partly", "MIGraphX": "raise"}
    does |= {"Dml": "wrong", "Azure": "crash"}
    checks = section("ONNX Runtime", ["onnxruntime"], {provider(name): what for name, what in does.items()})
    assert said(checks) == {
        "ONNX Runtime": ("good", "1.31.1, built with CPU, CUDA, OpenVINO, WebGPU, MIGraphX, Dml, Azure"),
        "ONNX Runtime: CPU": ("good", "computes, and right"),
        "ONNX Runtime: CUDA": ("good", "computes, and right"),
        "ONNX Runtime: OpenVINO": ("warning", "does not load; CPU computes in its place"),
        "ONNX Runtime: WebGPU": (
            "warning",
            "loads, but leaves operations to the CPU: `RuntimeError: no kernel image, or nodes on the CPU`",
        ),
        "ONNX Runtime: MIGraphX": ("warning", "does not run: `RuntimeError: no kernel image, or nodes on the CPU`"),
        "ONNX Runtime: Dml": ("bad", "computes wrong: [11.0, 3.0], not [8, 0]"),
        # Azure sends the work away, and is not opened.
    }
    assert checks["ONNX Runtime: CUDA"].details["computes"] == [provider("CUDA"), CPU]
    assert checks["ONNX Runtime: CUDA"].details["provider"] == provider("CUDA")


@posix
def test_a_provider_that_crashes_leaves_the_others_their_turn(section):
    checks = section("ONNX Runtime", ["onnxruntime"], {provider("Tensorrt"): "crash", CPU: "right"})
    assert said(checks)["ONNX Runtime: Tensorrt"] == (
        "warning",
        "does not open: the child ended without a word (ended by SIGABRT)",
    )
    assert checks["ONNX Runtime: CPU"].status == "good"


@pytest.mark.parametrize("does", ["raise", pytest.param("crash", marks=posix)])
def test_the_cpu_that_does_not_run_is_bad(section, does):
    check = section("ONNX Runtime", ["onnxruntime"], {CPU: does})["ONNX Runtime: CPU"]
    assert check.status == "bad"
    assert check.fix.endswith("pip install onnxruntime")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise OSError('libonnxruntime.so.1: not found')", "OSError: libonnxruntime.so.1: not found"),
        ("__version__ = '1'", "AttributeError: module 'onnxruntime' has no attribute 'get_available_providers'"),
        ("import no_such_module_of_it", "No module named 'no_such_module_of_it'"),
        (  # as tensorflow 2.16.1 ends with numpy 2.4.6
            "raise AttributeError('`np.complex_` was removed in the NumPy 2.0 release.')",
            "AttributeError: `np.complex_` was removed in the NumPy 2.0 release.",
        ),
    ],
)
def test_a_runtime_that_cannot_be_imported_is_bad_and_says_why(section, source, reason):
    [check] = section("ONNX Runtime", {"onnxruntime": source}).values()
    assert (check.status, check.found) == ("bad", f"cannot be imported: `{reason}`")
    assert check.fix.startswith("pip uninstall")


@posix
def test_a_wheel_for_newer_processors_is_named_as_that(section):
    # As TensorFlow ends where it finds no AVX: tensorflow/core/platform/cpu_feature_guard.cc.
    source = (
        "import os, sys\nsys.stderr.write('The TensorFlow library was compiled to use AVX instructions, but these '"
        '"aren\'t available on your machine.\\n")\nsys.stderr.flush()\nos.abort()'
    )
    [check] = section("TensorFlow", {"tensorflow": source}).values()
    assert (check.name, check.status) == ("TensorFlow", "bad")
    assert check.found.startswith("gives no answer when it is imported (ended by SIGABRT, `The TensorFlow library was")
    assert check.fix.startswith("it was compiled for newer processors than this one")


def test_runtimes_that_are_not_installed_are_one_note_together(tmp_path):
    # Blocked, whatever this Python has installed.
    path = os.pathsep.join(filter(None, sys.path))
    blocked = "import sys\nfor name in ('onnxruntime', 'openvino', 'migraphx', 'tensorflow', 'windowsml'):\n"
    blocked += "    sys.modules[name] = None\n"
    (tmp_path / "sitecustomize.py").write_text(blocked, "utf-8")
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), path])}
    found = runtimes_section(Machine(root=tmp_path, path=(), environ=environ, system="Windows"))
    checks = {check.name: check for check in found.checks if not check.name.startswith("ONNX Runtime plugin")}
    assert {name: check.status for name, check in checks.items()} == {
        "ONNX Runtime": "note",
        "Windows ML": "note",
        "Other runtimes": "note",
    }
    assert checks["ONNX Runtime"].fix == "pip install onnxruntime"
    assert checks["Windows ML"].fix == 'pip install "windowsml[with-ort]"'
    assert checks["Other runtimes"].found == "not installed, and not needed by linne: OpenVINO, MIGraphX, TensorFlow"


def test_openvino_is_asked_which_device_ran_the_model(section):
    checks = section("OpenVINO", ["openvino"], {"CPU": "right", "GPU": "right", "NPU": "replaced", "GPU.1": "raise"})
    assert said(checks) == {
        "OpenVINO": (
            "good",
            "2026.4.1, with CPU (the CPU of a test), GPU (the GPU of a test), NPU (the NPU of a test), "
            "GPU.1 (the GPU.1 of a test)",
        ),
        "OpenVINO: CPU": ("good", "computes, and right, in bf16 by its own choice"),
        "OpenVINO: GPU": ("good", "computes, and right, in f16 by its own choice"),
        "OpenVINO: NPU": ("warning", "does not load; CPU computes in its place"),
        "OpenVINO: GPU.1": (
            "warning",
            "does not run: `RuntimeError: Exception from src/inference/src/cpp/core.cpp:117: Cannot load library`",
        ),
    }


def test_an_openvino_that_computes_wrong_is_bad_and_one_that_names_no_precision_is_not(section):
    checks = section("OpenVINO", ["openvino"], {"CPU": "f32", "GPU": "wrong"})
    assert said(checks)["OpenVINO: CPU"] == ("good", "computes, and right")
    assert said(checks)["OpenVINO: GPU"] == ("bad", "computes wrong: [11.0, 3.0], not [8, 0]")
    assert checks["OpenVINO: GPU"].fix == "do not serve with it; update OpenVINO and the driver"


@pytest.mark.parametrize(
    ("name", "module", "does", "vendor", "files", "status"),
    [
        ("OpenVINO", "openvino", "CPU", INTEL, (), "note"),
        ("TensorFlow", "tensorflow", "CPU:0", NVIDIA, (), "warning"),
        ("TensorFlow", "tensorflow", "CPU:0", AMD, ("dev/kfd",), "warning"),
        ("TensorFlow", "tensorflow", "CPU:0", AMD, (), "note"),  # a processor's own graphics
        ("OpenVINO", "openvino", "CPU", NVIDIA, (), "good"),  # none of its business
    ],
)
def test_a_runtime_that_does_not_see_the_gpu_it_is_for_says_so(section, name, module, does, vendor, files, status):
    check = section(name, [module], {does: "right"}, gpus=(Gpu(vendor=vendor),), files=files)[name]
    assert check.status == status
    assert check.found.endswith(f"; it does not see the GPU of {vendor}") == (status != "good")
    assert bool(check.fix) == (status != "good")


def test_tensorflow_multiplies_and_convolves_on_each_device_and_says_where(section):
    does = {"CPU:0": "right", "GPU:0": "right", "GPU:1": "no cuDNN", "GPU:2": "replaced", "GPU:3": "wrong"}
    checks = section("TensorFlow", ["tensorflow"], does, gpus=(Gpu(vendor=NVIDIA),))
    assert said(checks) == {
        "TensorFlow": ("good", "2.21.0, built for CUDA 12.5.1, with CPU:0, GPU:0, GPU:1, GPU:2, GPU:3"),
        "TensorFlow: CPU:0": ("good", "computes, and right"),
        "TensorFlow: GPU:0": ("good", "computes, and right"),
        "TensorFlow: GPU:1": (
            "warning",
            "does not run: `RuntimeError: {{function_node __wrapped__Conv2D}} DNN library is not found. [Op:Conv2D]`",
        ),
        "TensorFlow: GPU:2": ("warning", "does not load; CPU:0 computes in its place"),
        "TensorFlow: GPU:3": ("bad", "computes wrong: [11.0, 0.0, 11.0, 14.0, 20.0, 23.0], not [8, 0, 11, 14, 20, 23]"),
    }


def test_migraphx_by_its_module_compiles_for_the_reference_and_for_the_gpu(section):
    checks = section("MIGraphX", ["migraphx"], {"ref": "right", "gpu": "raise"})
    assert said(checks) == {
        "MIGraphX": ("good", "of unknown version, by its Python module"),
        "MIGraphX: ref": ("good", "computes, and right"),
        "MIGraphX: gpu": ("warning", "does not run: `RuntimeError: get_device_id: No device`"),
    }
    assert said(section("MIGraphX", ["migraphx"], {"ref": "wrong", "gpu": "right"}))["MIGraphX: ref"][0] == "bad"


def test_a_placeholder_of_the_name_is_not_taken_for_migraphx(section):
    # PyPI's migraphx 0.0.1 holds a docstring and a version.
    checks = section("MIGraphX", {"migraphx": '__version__ = "0.0.1"'}, ROCM_PATH="/nowhere")
    if "MIGraphX" in checks:
        pytest.skip("the real library of MIGraphX is installed here")
    found = checks["Other runtimes"].found
    assert found.startswith(
        "not installed, and not needed by linne: MIGraphX (`migraphx` cannot be imported (the module `migraphx` here "
        "is a placeholder without code), and libmigraphx_c.so.3: "
    )


def test_a_migraphx_that_breaks_as_it_is_imported_is_said(section):
    checks = section("MIGraphX", {"migraphx": "raise OSError('libamdhip64.so.7: no such file')"}, ROCM_PATH="/nowhere")
    if checks["MIGraphX"].status == "good":
        pytest.skip("the real library of MIGraphX is installed here")
    assert checks["MIGraphX"].status == "bad"
    assert "`migraphx` cannot be imported (libamdhip64.so.7: no such file)" in checks["MIGraphX"].found


def test_a_plugin_that_registers_and_offers_no_device_is_said_to_do_so(section):
    plugin = (FIXTURES / "stand_ins" / "onnxruntime_ep_webgpu.py").read_text("utf-8")
    does = {"One": "right", "Two": "no device", "Three": "replaced", "Four": "wrong"}
    modules = {"onnxruntime": None} | {f"onnxruntime_ep_{name}": plugin for name in does}
    modules["onnxruntime_ep_Five"] = plugin.replace(".so", ".txt")
    checks = section("ONNX Runtime plugin", modules, {CPU: "right"} | {provider(name): do for name, do in does.items()})
    assert said({name.removeprefix("ONNX Runtime plugin: "): check for name, check in checks.items()}) == {
        "ONNX Runtime plugin": (
            "good",
            ", ".join(f"onnxruntime-ep-{name} of unknown version" for name in ("Five", "Four", "One", "Three", "Two")),
        ),
        "One": ("good", "computes, and right"),
        "Two": ("warning", "registers, but offers no device on this machine"),
        "Three": ("warning", "does not run: `RuntimeError: no kernel image, or nodes on the CPU`"),
        "Four": ("bad", "computes wrong: [11.0, 3.0], not [8, 0]"),
        "Five": (
            "warning",
            "does not run: `RuntimeError: [ONNXRuntimeError] : 1 : FAIL : Failed to load library "
            "/venv/libonnxruntime_providers_webgpu.txt`",
        ),
    }


def test_a_plugin_without_onnx_runtime_is_bad(section):
    blocked = 'raise ModuleNotFoundError("No module named \'onnxruntime\'", name="onnxruntime")'
    modules = {"onnxruntime": blocked, "onnxruntime_ep_webgpu": None}
    [check] = section("ONNX Runtime plugin", modules).values()
    assert (check.status, check.found) == (
        "bad",
        "cannot be imported: `ModuleNotFoundError: No module named 'onnxruntime'`",
    )
    assert check.fix == 'pip install --upgrade "onnxruntime>=1.23"'


def test_windows_ml_opens_what_is_ready_and_fetches_nothing(section):
    modules = ["windowsml", "onnxruntime"]
    does = {CPU: "right", provider("OpenVINO"): "right", provider("QNN"): "NotReady", provider("NvX"): "NotPresent"}
    checks = section("Windows ML", modules, does, system="Windows")
    assert said(checks) == {
        "Windows ML": (
            "good",
            "of unknown version, ready: OpenVINOExecutionProvider; not yet: QNNExecutionProvider, NvXExecutionProvider",
        ),
        "Windows ML: OpenVINO": ("good", "computes, and right"),
    }
    assert "ensure_ready()" in checks["Windows ML"].fix
    empty = section("Windows ML", modules, {CPU: "right"}, system="Windows")["Windows ML"]
    assert (empty.status, empty.found, empty.fix) == ("note", "of unknown version, ready: none", "")
    assert section("Windows ML", modules, does, system="Linux") == {}


@posix
def test_a_device_that_hangs_or_crashes_is_named_and_leaves_the_others_their_turn(section):
    checks = section("OpenVINO", ["openvino"], {"CPU": "right", "GPU": "crash", "NPU": "right"})
    assert said(checks)["OpenVINO: GPU"] == (
        "warning",
        "does not open: the child ended without a word (ended by SIGABRT)",
    )
    assert checks["OpenVINO: NPU"].status == "good"
    [check] = section("OpenVINO", {"openvino": "import time; time.sleep(60)"}, limit_s=1.0).values()
    assert check.found == "gives no answer when it is imported (no end within 1 s)"


REAL = [
    ("onnxruntime 1.32.0", "ONNX Runtime", CPU, (), "good", "computes, and right"),
    ("onnxruntime-openvino", "ONNX Runtime", provider("OpenVINO"), "--device", "good", "computes, and right"),
    ("openvino", "OpenVINO", "CPU", (), "good", "computes, and right, in bf16 by its own choice"),
    ("openvino", "OpenVINO", "GPU", "--device", "warning", "does not run: `RuntimeError: Exception from src/inference"),
    ("tensorflow", "TensorFlow", "CPU:0", (), "good", "computes, and right"),
    ("MIGraphX", "MIGraphX", "ref", (), "good", "computes, and right"),
    (
        "MIGraphX",
        "MIGraphX",
        "gpu",
        "--device",
        "warning",
        "does not run: `RuntimeError: migraphx_target_create returned 4`; it wrote `migraphx_target_create: Error: "
        "src/dynamic_loader.cpp:48: check_load_error: Dynamic loading or symbol lookup failed with libmigraphx_gpu.so",
    ),
    *(
        (
            f"onnxruntime-ep-{name}",
            "ONNX Runtime plugin",
            f"onnxruntime_ep_{name}",
            "--device",
            "warning",
            "registers, but offers no device on this machine",
        )
        for name in ("openvino", "webgpu")
    ),
]


@pytest.mark.parametrize(("of", "name", "device", "words", "status", "text"), REAL, ids=lambda _: "")
def test_what_the_real_packages_reported_is_told_as_it_was(of, name, device, words, status, text):
    heard = captured(of, *((words, device) if words else ()))
    check = judge(BY_NAME[name], device, heard, own=not words)
    assert check.status == status
    assert check.found.startswith(text)


def test_reports_that_are_damaged_raise_nothing_and_a_missing_result_never_passes():
    draw = random.Random(4)
    junk = [None, 5, "text", [], {}, [None], [float("nan")] * 2, 1e300, True, ["CPU"], [8.0]]
    for record in CAPTURES:
        for _ in range(100):
            events = copy.deepcopy(record["events"])
            event = draw.choice(events)
            key = draw.choice([key for key in event if key != "linne"])
            event[key] = draw.choice(junk)
            heard = Heard(end="done", how="exit code 0", events=tuple(events), said="", seconds=1.0)
            device = events[-1].get("device")
            check = judge(BY_NAME["OpenVINO"], str(device), heard)
            assert check.status in ("good", "warning", "bad")
            if key in ("result", "computes"):
                assert check.status != "good" or event[key] == ["CPU"]


def test_right_is_every_number_within_rounding():
    assert is_right([8.0, 0.0])
    assert is_right([8.01, -0.001])
    for wrong in ([8.0], [0.0, 8.0], [8.2, 0.0], [float("nan"), 0.0], None, "80", [8.0, "0"], [8.0, float("inf")]):
        assert not is_right(wrong)
    assert is_right([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    for expected in ([], None, ["a"], 5):
        assert not is_right([8.0, 0.0], expected)


def test_the_model_holds_its_weights_as_little_endian_fp32():
    assert struct.pack("<6f", 1, -1, 2, -2, 1, 0) in tiny_model()
    assert tiny_input().tolist() == [[1, 2, 3]]


def test_the_checker_of_onnx_accepts_the_model():
    onnx = pytest.importorskip("onnx", reason="onnx is not among linne's dependencies")
    onnx.checker.check_model(onnx.load_from_string(tiny_model()), full_check=True)


@pytest.mark.parametrize(
    ("module", "name", "device"),
    [("onnxruntime", "ONNX Runtime", "CPU"), ("openvino", "OpenVINO", "CPU"), ("tensorflow", "TensorFlow", "CPU:0")],
)
def test_the_real_runtime_computes_on_the_cpu_of_this_machine(module, name, device, tmp_path):
    pytest.importorskip(module, reason=f"{module} is not among linne's dependencies")
    machine = Machine(root=tmp_path, environ=dict(os.environ))
    checks = {check.name: check for check in runtimes_section(machine, runtimes=[BY_NAME[name]]).checks}
    assert checks[f"{name}: {device}"].found.startswith("computes, and right")
