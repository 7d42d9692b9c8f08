"""The inference runtimes: which provider computes, against stand-ins that behave as ONNX Runtime was seen to."""

import json
import os
import struct
import sys
from types import SimpleNamespace

import pytest

from linne.doctor.child import Heard
from linne.doctor.runtime_probe import is_right, tiny_model
from linne.doctor.runtimes import judge, runtimes_section

FAKE = """
import json, os
import numpy as np

__version__ = "1.31.1"
BEHAVIOUR = json.loads(os.environ["FAKE_PROVIDERS"])

def get_available_providers():
    return list(BEHAVIOUR)

class SessionOptions:
    strict = False
    log_severity_level = 2
    def add_session_config_entry(self, key, value):
        assert (key, value) == ("session.disable_cpu_ep_fallback", "1")
        self.strict = True

class InferenceSession:
    def __init__(self, model, options, providers, enable_fallback):
        assert model[:2] == b"\\x08\\x08" and enable_fallback is False
        self.does = BEHAVIOUR[providers[0]]
        self.asked = providers[0]
        if self.does == "crash":
            os.abort()
        if self.does == "raise" or (options.strict and self.does in ("replaced", "partly")):
            raise RuntimeError("no kernel image, or nodes on the CPU")
    def get_providers(self):
        return ["CPUExecutionProvider"] if self.does == "replaced" else [self.asked, "CPUExecutionProvider"]
    def run(self, outputs, inputs):
        assert outputs == ["y"] and list(inputs) == ["x"]
        weights = np.array([[1, -1], [2, -2], [1, 0]], np.float32)
        right = np.maximum(inputs["x"] @ weights, 0)
        return [right + (3 if self.does == "wrong" else 0)]
"""


@pytest.fixture
def section(tmp_path):
    """Return the checks by name when a stand-in is `onnxruntime` and its providers behave as told."""

    def section(source=FAKE, **behaviour):
        (tmp_path / "onnxruntime.py").write_text(source, "utf-8")
        path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
        providers = {f"{name}ExecutionProvider": does for name, does in behaviour.items()}
        environ = {**os.environ, "PYTHONPATH": path, "FAKE_PROVIDERS": json.dumps(providers)}
        found = runtimes_section(SimpleNamespace(environ=environ), limit_s=30)
        json.dumps([check.to_dict() for check in found.checks])
        return {check.name: check for check in found.checks}

    return section


def test_providers_are_told_apart_by_what_they_do_and_not_by_being_listed(section):
    checks = section(CPU="right", CUDA="right", OpenVINO="replaced", WebGPU="partly", MIGraphX="raise", Dml="wrong")
    assert {name: (check.status, check.found) for name, check in checks.items()} == {
        "ONNX Runtime": ("good", "1.31.1, built with CPU, CUDA, OpenVINO, WebGPU, MIGraphX, Dml"),
        "ONNX Runtime: CPU": ("good", "computes, and right"),
        "ONNX Runtime: CUDA": ("good", "computes, and right"),
        "ONNX Runtime: OpenVINO": ("warning", "does not load; CPU computes in its place"),
        "ONNX Runtime: WebGPU": (
            "warning",
            "loads, but leaves operations to the CPU: `RuntimeError: no kernel image, or nodes on the CPU`",
        ),
        "ONNX Runtime: MIGraphX": (
            "warning",
            "does not run: `RuntimeError: no kernel image, or nodes on the CPU`",
        ),
        "ONNX Runtime: Dml": ("bad", "computes wrong: [11.0, 3.0], not [8, 0]"),
    }
    assert checks["ONNX Runtime: CUDA"].details["computes"] == ["CUDAExecutionProvider", "CPUExecutionProvider"]


def test_a_provider_that_crashes_leaves_the_others_their_turn(section):
    checks = section(TensorRT="crash", CPU="right")
    assert checks["ONNX Runtime: TensorRT"].status == "warning"
    assert checks["ONNX Runtime: TensorRT"].found.startswith("does not open: the child ended without a word (")
    assert checks["ONNX Runtime: CPU"].status == "good"


def test_the_cpu_that_does_not_run_is_bad(section):
    assert section(CPU="raise")["ONNX Runtime: CPU"].status == "bad"


def test_a_provider_that_sends_the_work_away_is_not_opened(section):
    assert list(section(Azure="crash", CPU="right")) == ["ONNX Runtime", "ONNX Runtime: CPU"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise OSError('libonnxruntime.so.1: not found')", "OSError: libonnxruntime.so.1: not found"),
        ("__version__ = '1'", "AttributeError: module 'onnxruntime' has no attribute 'get_available_providers'"),
        ("import no_such_module_of_it", "No module named 'no_such_module_of_it'"),
    ],
)
def test_an_onnxruntime_that_cannot_be_imported_is_bad_and_says_why(section, source, reason):
    [check] = section(source).values()
    assert (check.status, check.found) == ("bad", f"cannot be imported: `{reason}`")
    assert check.fix.startswith("pip uninstall")


def test_no_onnxruntime_is_no_fault(tmp_path):
    blocked = "import sys; raise ModuleNotFoundError(\"No module named 'onnxruntime'\", name='onnxruntime')"
    (tmp_path / "onnxruntime.py").write_text(blocked, "utf-8")
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    [check] = runtimes_section(SimpleNamespace(environ=environ)).checks
    assert (check.status, check.fix) == ("note", "pip install onnxruntime")
    assert check.found.startswith("not installed")


@pytest.mark.parametrize(
    "facts",
    [{}, {"computes": "CPU"}, {"computes": [None], "result": 5}, {"computes": ["P"], "result": ["a", {}]}],
)
def test_reports_of_the_wrong_types_raise_nothing_and_pass_nothing(facts):
    heard = Heard(end="done", how="exit code 0", events=({"linne": "session", **facts},), said="", seconds=1)
    assert judge("P", heard).status in ("warning", "bad")


def test_right_is_both_numbers_within_rounding():
    assert is_right([8.0, 0.0])
    assert is_right([8.01, -0.001])
    for wrong in ([8.0], [0.0, 8.0], [8.2, 0.0], [float("nan"), 0.0], None, "80"):
        assert not is_right(wrong)


def test_the_model_holds_its_weights_as_little_endian_fp32():
    assert struct.pack("<6f", 1, -1, 2, -2, 1, 0) in tiny_model()


def test_the_checker_of_onnx_accepts_the_model():
    onnx = pytest.importorskip("onnx", reason="onnx is not among linne's dependencies")
    onnx.checker.check_model(onnx.load_from_string(tiny_model()), full_check=True)


def test_the_real_onnx_runtime_computes_on_its_cpu_provider():
    pytest.importorskip("onnxruntime", reason="onnxruntime is not among linne's dependencies")
    checks = {check.name: check for check in runtimes_section(SimpleNamespace(environ=dict(os.environ))).checks}
    assert checks["ONNX Runtime: CPU"].found == "computes, and right"
