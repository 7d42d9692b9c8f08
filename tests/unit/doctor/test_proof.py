"""The proof: children that crash, hang, talk nonsense or compute wrong, and what is said of each."""

import json
import os
import sys
from types import SimpleNamespace

import pytest

from linne.child import Heard
from linne.doctor.proof import judge, proof_section

MACHINE = SimpleNamespace(environ=dict(os.environ))
"""As much of a machine as the proof asks for."""
START = """
import json, os, signal, sys, time
asked = dict(zip(sys.argv[1::2], sys.argv[2::2]))
def say(event, **facts): print(json.dumps({"linne": event, **facts}), flush=True)
def device(kind="cuda", name="NVIDIA H200"): say("device", kind=kind, name=name, torch="2.15.0")
def result(operation="convolution", ok=True, error=1e-6, **more):
    say("starts", operation=operation)
    say("result", operation=operation, ok=ok, error=error, tolerance=5e-5, **more)
"""


@pytest.fixture
def prove(tmp_path):
    """Return the checks of one device when some lines of Python stand in for the battery."""

    def prove(code, device="cuda:0", limit_s=30.0):
        script = tmp_path / "battery.py"
        script.write_text(START + code, "utf-8")
        section = proof_section(MACHINE, (device,), False, command=(sys.executable, str(script)), limit_s=limit_s)
        json.dumps([check.to_dict() for check in section.checks])
        return section.checks

    return prove


def told(*events, end="done", how="exit code 0", said=""):
    """What a child would have said, without one."""
    reports = tuple({"linne": name, **facts} for name, facts in events)
    return Heard(end=end, how=how, events=reports, said=said, seconds=1.0)


H200 = ("device", {"kind": "cuda", "name": "NVIDIA H200 NVL"})
RIGHT = ("result", {"operation": "softmax", "ok": True, "error": 1e-6, "tolerance": 5e-5})
END = ("end", {})


def test_a_device_that_computes_right_works_in_every_dtype(prove):
    checks = prove(
        "device()\nresult()\nsay('rates', matrix_tflops=50.04, copy_gbs={'to': 51.2, 'back': 49})\nsay('end')"
    )
    assert [(check.name, check.status) for check in checks] == [
        ("cuda:0 fp32", "good"),
        ("cuda:0 bf16", "warning"),
        ("cuda:0 fp16", "warning"),
    ]
    assert checks[0].found == (
        "works on NVIDIA H200: all 1 operations agree with float64 (largest error: 2% of what is allowed); "
        "matrix product 50 TFLOP/s of 66.9, copies to it 51.2 GB/s, back 49 GB/s"
    )
    assert checks[0].details["verdict"] == "works"
    assert checks[0].details["rates"]["copy_gbs"] == {"to": 51.2, "back": 49}
    assert checks[0].fix == ""
    # 50 TFLOP/s are three quarters of the peak in fp32, and a twentieth in bf16.
    assert checks[1].details["verdict"] == "slow"
    assert checks[1].found.startswith("slow: 5% of its peak in matrix products; all 1 operations agree")


def test_a_cpu_is_not_asked_for_fp16(prove):
    checks = prove("device('cpu', 'CPU')\nresult()\nsay('end')", device="cpu")
    assert [check.name for check in checks] == ["cpu fp32", "cpu bf16"]


def test_a_wrong_kernel_is_bad_and_says_by_how_much(prove):
    checks = prove("device()\nresult()\nresult('layer norm', ok=False, error=0.25)\nsay('end')")
    assert checks[0].status == "bad"
    assert checks[0].found == "wrong: layer norm (off by 0.25 of the largest value, 5e-05 allowed)"
    assert checks[0].fix.startswith("do not train with it")


def test_a_wrong_kernel_is_the_verdict_even_when_the_child_crashes_later():
    wrong = ("result", {"operation": "softmax", "ok": False, "error": None, "message": "result 1 is not finite"})
    finding = judge(told(H200, wrong, end="crashed", how="ended by SIGSEGV"), "fp32")
    assert (finding.verdict, finding.text) == ("wrong", "wrong: softmax (result 1 is not finite)")


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_a_crash_says_in_which_operation(prove):
    checks = prove("device()\nresult()\nsay('starts', operation='attention')\nos.kill(os.getpid(), signal.SIGSEGV)")
    assert checks[0].status == "bad"
    assert checks[0].found == "fails: crashes in attention (ended by SIGSEGV)"
    assert checks[0].fix == (
        "update the driver and PyTorch\nto see it alone: python -m linne.doctor.battery --device cuda:0 --dtype fp32"
    )
    assert len(checks) == 3  # another dtype may well work


@pytest.mark.slow
def test_a_hang_says_in_which_operation_and_is_not_waited_for_again(prove):
    checks = prove("device()\nsay('starts', operation='copy both ways')\ntime.sleep(60)", limit_s=1.5)
    assert [check.found for check in checks] == ["fails: hangs in copy both ways (no end within 1.5 s)"]
    assert checks[0].status == "bad"


def test_a_hang_before_the_device_is_reached_is_said_so(prove):
    [check] = prove("time.sleep(60)", limit_s=1.0)
    assert check.found == "fails: hangs before it reached the device (no end within 1 s)"


def test_an_error_exit_half_way_is_not_a_pass(prove):
    checks = prove("device()\nresult()\nraise RuntimeError('HIP error: invalid device function')")
    assert checks[0].found == (
        "fails: stops in convolution (exit code 1, `RuntimeError: HIP error: invalid device function`)"
    )


def test_an_end_that_was_not_reached_is_not_a_pass_even_with_exit_code_0(prove):
    assert prove("device()\nresult()")[0].found == "fails: stops in convolution (exit code 0)"


@pytest.mark.parametrize(
    "code",
    [
        "",
        "sys.stdout.buffer.write(bytes(range(256)) * 100)",
        "print('{}'); print('[1]'); print('null'); print('{\"linne\": {}}'); sys.exit(77)",
        "sys.exit(255)",
    ],
)
def test_garbage_is_a_finding(prove, code):
    [check] = prove(code)
    assert check.status == "bad"
    assert check.found.startswith("fails: the child reported nothing (exit code ")


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"ok": "yes", "error": "small", "tolerance": []},
        {"ok": True, "error": None, "tolerance": 0, "warnings": "x", "operation": ["a"]},
        {"ok": True, "error": 10**400, "tolerance": float("nan"), "warnings": [None]},
        {"ok": 1, "raised": 5},
    ],
)
@pytest.mark.parametrize(
    "rates", [{}, {"matrix_tflops": "fast", "copy_gbs": 3}, {"copy_gbs": {"to": None, "back": ""}}]
)
def test_reports_of_the_wrong_types_raise_nothing(facts, rates):
    finding = judge(told(H200, ("result", facts), ("rates", rates), END), "fp32")
    assert finding.verdict in ("works", "wrong", "fails")
    assert (finding.verdict == "works") == (facts.get("ok") is True)


def test_an_absent_device_is_bad_and_asked_once(prove):
    [check] = prove("say('absent', reason='this torch finds no NVIDIA GPU')")
    assert (check.status, check.found) == ("bad", "absent: this torch finds no NVIDIA GPU")
    assert check.details["verdict"] == "absent"


def test_without_torch_nothing_is_proved_and_the_fix_installs_it(prove):
    [check] = prove("raise ModuleNotFoundError(\"No module named 'torch'\")")
    assert (check.status, check.found) == ("unknown", "not tried: PyTorch is not installed")
    assert check.fix == "", "what installs it is said once, of the package"


def test_a_narrow_dtype_that_a_device_lacks_is_a_warning_with_the_way_around(prove):
    checks = prove(
        "device('mps', 'Apple GPU')\n"
        "if asked['--dtype'] == 'bf16': result(ok=False, error=None, raised='TypeError: no bf16')\n"
        "else: result()\n"
        "say('end')",
        device="mps",
    )
    assert [check.status for check in checks] == ["good", "warning", "good"]
    assert checks[1].found == "fails: convolution raises `TypeError: no bf16`"
    assert checks[1].fix.startswith("train with `--set device.precision=fp32`")


def test_an_operation_that_cannot_be_computed_in_fp32_is_bad(prove):
    checks = prove("device()\nresult(ok=False, error=None, raised='RuntimeError: x')\nsay('end')")
    assert (checks[0].status, checks[0].fix) == ("bad", "update the driver and PyTorch")


def test_a_slow_link_is_slow():
    rates = ("rates", {"matrix_tflops": 50, "copy_gbs": {"to": 0.4, "back": 12}})
    finding = judge(told(H200, RIGHT, rates, END), "fp32")
    assert finding.verdict == "slow"
    assert finding.text.startswith("slow: less than 1 GB/s reach it; ")
    assert "copies to it 0.4 GB/s" in finding.text


def test_a_card_without_a_known_peak_is_not_called_slow():
    other = ("device", {"kind": "rocm", "name": "AMD Radeon 780M"})
    finding = judge(told(other, RIGHT, ("rates", {"matrix_tflops": 0.5}), END), "fp32")
    assert finding.verdict == "works"
    assert finding.text.endswith("; matrix product 0.5 TFLOP/s")


def test_operations_that_fell_back_to_the_cpu_are_named():
    warned = {"warnings": ["The operator 'aten::lerp' ... will fall back to run on the CPU."]}
    left = ("result", {"operation": "AdamW", "ok": True, "error": 0, "tolerance": 1, **warned})
    finding = judge(told(H200, RIGHT, left, END), "fp32")
    assert finding.verdict == "slow"
    assert finding.text.startswith("slow: AdamW fell back to the CPU; ")
    assert finding.fix == "train with `--set optim.optimizer=sgd`"


def test_directml_is_asked_for_fp32_alone(prove):
    checks = prove("device('dml', 'Radeon')\nresult()\nsay('end')")
    assert [check.name for check in checks] == ["cuda:0 fp32"]


@pytest.mark.parametrize(
    ("rate", "text"), [(3812.4, "3,810"), (55.31, "55.3"), (0.08773, "0.0877"), (1234567, "1.23e+06")]
)
def test_rates_are_shown_with_three_digits(rate, text):
    finding = judge(told(H200, RIGHT, ("rates", {"matrix_tflops": rate}), END), "fp32")
    assert f"; matrix product {text} TFLOP/s" in finding.text


def test_a_battery_that_computed_nothing_proves_nothing():
    assert judge(told(H200, END), "fp32").verdict == "unknown"


def test_quick_starts_nothing_and_says_so():
    section = proof_section(MACHINE, ("cpu", "cuda:0"), True, command=("/no/such/program",))
    assert [(check.name, check.status, check.fix) for check in section.checks] == [
        ("cpu", "note", "linne doctor"),
        ("cuda:0", "note", "linne doctor"),
    ]


def test_a_python_that_cannot_be_started_is_a_finding():
    [check] = proof_section(MACHINE, ("cpu",), False, command=("/no/such/program",)).checks
    assert check.status == "bad"
    assert "`/no/such/program` cannot be started" in check.found


@pytest.mark.slow
def test_this_cpu_is_proved_in_fp32_and_bf16():
    section = proof_section(MACHINE, ("cpu", "cpu"), False)
    assert [(check.name, check.status, check.details["end"]) for check in section.checks] == [
        ("cpu fp32", "good", "done"),
        ("cpu bf16", "good", "done"),
    ]
    assert section.checks[0].details["rates"]["matrix_tflops"] > 0
