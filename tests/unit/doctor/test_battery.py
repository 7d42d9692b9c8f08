"""The battery: right arithmetic passes, and every way of being wrong that it is for does not."""

import json
import math

import pytest
import torch

from linne.device import Device
from linne.doctor import battery
from linne.doctor.battery import ONLY_FP32, OPERATIONS, STEP_TOLERANCES, TOLERANCES, At, error_of

EXACT = At(device="cpu", dtype=torch.float64, rounded=torch.float32)


def want(*values):
    return (torch.tensor(values, dtype=torch.float64),)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, dtype) for name in OPERATIONS for dtype in ("fp32", "bf16") if dtype == "fp32" or name not in ONLY_FP32],
)
def test_this_cpu_computes_every_operation_within_half_of_the_tolerance(name, dtype):
    # Half: what another order of sums or another library adds must not make a right device wrong.
    tolerance = (STEP_TOLERANCES if name == "training step" else TOLERANCES)[dtype]
    kind = battery.DTYPES[dtype]
    got = OPERATIONS[name](At(device="cpu", dtype=kind, rounded=kind))
    exact = OPERATIONS[name](At(device="cpu", dtype=torch.float64, rounded=kind))
    error, message = error_of(got, exact, "cpu")
    assert message == ""
    assert 0 < error < tolerance / 2


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_fault_of_a_thousandth_in_any_result_of_any_operation_is_seen_in_fp32(name):
    tolerance = (STEP_TOLERANCES if name == "training step" else TOLERANCES)["fp32"]
    exact = OPERATIONS[name](EXACT)
    for number in range(len(exact)):
        got = [result.detach().clone() for result in exact]
        values = got[number].reshape(-1)
        values[-1] += 1e-3 * values.abs().max()
        got[number] = values.reshape(exact[number].shape)
        assert error_of(tuple(got), exact, "cpu")[0] > tolerance


def test_tf32_where_fp32_was_asked_for_is_seen():
    exact = OPERATIONS["matrix product"](EXACT)
    # TF32 keeps 10 bits of the inputs' mantissas: the same product of rounded inputs.
    left, right = (EXACT.draw(1, 96, 256).float(), EXACT.draw(2, 256, 80).float())
    rounded = [
        ((t.detach().view(torch.int32) + (1 << 12)) & ~((1 << 13) - 1)).view(torch.float32) for t in (left, right)
    ]
    error, _ = error_of(((rounded[0].double() @ rounded[1].double()),), exact[:1], "cpu")
    assert error > 2 * TOLERANCES["fp32"]


def test_an_optimiser_that_does_nothing_is_wrong():
    exact = OPERATIONS["AdamW"](EXACT)
    assert error_of((torch.zeros(4096),), exact, "cpu") == (1.0, "")


@pytest.mark.parametrize(
    ("got", "message"),
    [
        ((torch.tensor([1.0, math.nan]),), "result 1 is not finite"),
        ((torch.tensor([1.0, math.inf]),), "result 1 is not finite"),
        ((torch.tensor([[1.0, 2.0]]),), "result 1 has the shape (1, 2), not (2,)"),
        ((), "0 results, not 1"),
        ((torch.empty(2, device="meta"),), "result 1 is on meta"),
    ],
)
def test_what_no_number_can_say_is_said_in_words(got, message):
    assert error_of(got, want(1.0, 2.0), "cpu") == (math.inf, message)


def test_a_result_computed_elsewhere_than_asked_is_wrong():
    assert error_of(want(1.0), want(1.0), "cuda:0") == (math.inf, "result 1 is on cpu")


def test_the_error_is_a_share_of_the_largest_value():
    assert error_of(want(10.0, 0.5), want(10.0, 0.0), "cpu") == (0.05, "")
    assert error_of(want(0.0), want(0.0), "cpu") == (0.0, "")


def test_pooled_numbers_are_all_different_and_held_by_every_dtype():
    for dtype in battery.DTYPES.values():
        images = At(device="cpu", dtype=dtype, rounded=dtype).grades(1, 2, 3).detach().double()
        assert images.reshape(6, 64).sort().values.tolist() == [list(range(-32, 32))] * 6


def test_numbers_come_back_from_this_cpu_as_they_went():
    assert battery.copy_error(Device.pick("cpu")) == (0.0, "")


def test_rates_are_of_the_size_of_a_computer():
    device = Device.pick("cpu")
    assert 1e-5 < battery.matrix_rate(device, torch.float32, 0.05) < 1e3
    rates = battery.copy_rates(device, 1 << 20)
    assert list(rates) == ["within"]
    assert 0.01 < rates["within"] < 1e5


def test_an_operation_that_raises_is_reported_and_does_not_end_the_battery(capsys):
    def broken():
        raise NotImplementedError("no kernel for this")

    battery._prove("pooling", 1e-3, broken)
    starts, result = map(json.loads, capsys.readouterr().out.splitlines())
    assert starts == {"linne": "starts", "operation": "pooling"}
    assert result["raised"] == "NotImplementedError: no kernel for this"
    assert (result["ok"], result["error"]) == (False, None)


def test_warnings_of_an_operation_are_kept_and_a_number_that_is_none_is_not_ok(capsys):
    def falls_back():
        import warnings

        warnings.warn("the operator 'aten::roll' will fall back to run on the CPU", UserWarning, stacklevel=1)
        return math.nan, ""

    battery._prove("roll", 1e-3, falls_back)
    result = json.loads(capsys.readouterr().out.splitlines()[1])
    assert result["warnings"] == ["the operator 'aten::roll' will fall back to run on the CPU"]
    assert result["ok"] is False


def test_a_device_that_is_not_there_is_absent_with_the_reason(capsys):
    assert battery.main(["--device", "cuda:99"]) == 0
    [_wheel, event] = map(json.loads, capsys.readouterr().out.splitlines())
    assert event["linne"] == "absent"
    assert event["reason"].startswith("device `cuda:99` ")


@pytest.mark.slow
def test_the_whole_battery_passes_on_this_cpu_in_a_child(python):
    done = python("-m", "linne.doctor.battery", "--device", "cpu", "--rate-seconds", "0.05")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert done.stderr == ""
    results = [event for event in events if event["linne"] == "result"]
    assert [event["operation"] for event in results] == ["copy both ways", *OPERATIONS]
    assert all(event["ok"] for event in results)
    assert [event["linne"] for event in events[:2]] == ["wheel", "device"], "said also where there is no device"
    assert [event["linne"] for event in events[-2:]] == ["rates", "end"]
