"""Training, evaluation and prediction on devices from outside torch: DirectML and a named backend, both simulated.

The simulation computes on the CPU, so what comes out has to be the CPU's to the last bit; DirectML's is as wrong as the
real one where that is known to be wrong.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes import environment
from fakes.dml import NO_BFLOAT16, NO_DOUBLE, NO_INFERENCE_MODE
from torch.utils import backend_registration

import linne

IN_PYTHON = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not IN_PYTHON and shutil.which("g++") is None,
        reason="this torch takes no device from Python, and there is no g++ to build one with",
    ),
]
needs_python_devices = pytest.mark.skipif(not IN_PYTHON, reason="this torch takes no device with a name from Python")


def child(package: str, *words: object, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, words)]
    env = environment(package, **settings)
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def joined(operators: dict[str, int]) -> list[str]:
    return [name for name in operators if "_foreach_" in name or "_fused_" in name]


RECIPES = ("plain", "everything", "bce", "focal", "colours", "adamw")
CASES = [
    *(pytest.param("dml", recipe, id=f"dml-{recipe}") for recipe in RECIPES),
    *(pytest.param("auto", recipe, id=f"npu-{recipe}", marks=needs_python_devices) for recipe in RECIPES[:2]),
]
PACKAGES = {"dml": "directml", "auto": "npu"}


@pytest.fixture(scope="module")
def compared() -> Any:
    """Return a function from `--device` to what `fakes.compare` found there, each computed once."""
    found: dict[str, Any] = {}

    def of(device: str) -> Any:
        if device not in found:
            recipes = [case.values[1] for case in CASES if case.values[0] == device]
            done = child(PACKAGES[device], "-m", "fakes.compare", device, *recipes)
            assert done.returncode == 0, done.stderr
            found[device] = json.loads(done.stdout)
        return found[device]

    return of


@pytest.mark.parametrize(("device", "recipe"), CASES)
def test_training_there_gives_the_cpus_weights_to_the_bit(compared, device, recipe):
    found = compared(device)["recipes"][recipe]
    here, there = found["losses"]
    assert here == there
    assert found["weights_differ_by"] == 0
    assert found["scores_agree"]


@pytest.mark.parametrize(("device", "recipe"), CASES)
def test_no_double_no_narrow_number_and_no_joined_kernel_reaches_it(compared, device, recipe):
    found = compared(device)["recipes"][recipe]
    assert found["dtypes"] == ["bool", "float32", "int64", "uint8"]
    assert joined(found["operators"]) == []
    assert "aten::convolution_backward" in found["operators"], "the network was not there"


@pytest.mark.parametrize(("device", "recipe"), CASES)
def test_a_training_step_reads_nothing_back(compared, device, recipe):
    assert compared(device)["recipes"][recipe]["reads_in_steps"] == 0


def test_what_directml_leaves_to_the_cpu_is_counted_by_name(compared):
    found = {recipe: values["fallbacks"] for recipe, values in compared("dml")["recipes"].items()}
    assert {recipe: set(counts) for recipe, counts in found.items()} == {
        "plain": set(),
        "everything": set(),
        "bce": set(),
        "focal": set(),
        "colours": {"aten::grid_sampler_2d", "aten::amin.out", "aten::index_copy.out"},
        "adamw": {"aten::lerp.Scalar_out"},
    }
    assert found["adamw"]["aten::lerp.Scalar_out"] == 4 * 20, "4 steps of 20 parameters"


@needs_python_devices
def test_auto_finds_a_backend_that_torch_loads_by_itself_and_seeds_it(compared):
    found = compared("auto")
    assert (found["device"]["address"], found["device"]["name"]) == ("npu:0", "Simulated NPU")
    assert found["device"]["reason"] == "first accelerator found"
    assert found["recipes"]["plain"]["seeds"][-1] == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run of the command line on DirectML, and what reached the device."""
    folder = tmp_path_factory.mktemp("directml")
    words = ["train", "digits", "--device", "dml", "--epochs", 2, "--output", folder / "run", "--require-accelerator"]
    done = child("directml", "-m", "linne", *words, FAKE_DEVICE_TRACE=str(folder / "trace.json"))
    assert done.returncode == 0, done.stderr
    assert "device  Simulated GPU (asked for)" in done.stderr
    assert "checked dml:0: first step agrees with the CPU's" in done.stderr
    return folder / "run", json.loads((folder / "trace.json").read_text())


def test_a_whole_run_on_directml_uses_nothing_that_it_lacks_and_says_so(trained):
    run, trace = trained
    assert trace["dtypes"] == ["bool", "float32", "int64", "uint8"]
    assert joined(trace["operators"]) == []
    record = json.loads((run / "recipe.json").read_text())["device_record"]
    assert (record["address"], record["hardware"]["runtime"]) == ("dml:0", "torch-directml 0.2.5.dev240914")
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["fallbacks"] == {}


def test_its_bundle_evaluates_on_the_cpu_as_it_did_on_directml(trained):
    run, _ = trained
    there = json.loads((run / "evaluation.json").read_text())["accuracy"]
    assert linne.evaluate(run / "bundle", "digits", device="cpu").accuracy == there > 0.9


@needs_python_devices
def test_a_device_that_multiplies_wrongly_is_refused_before_it_trains(tmp_path):
    words = ["train", "digits", "--device", "npu", "--output", tmp_path / "run"]
    done = child("npu", "-m", "linne", *words, FAKE_NPU_FAULT="1", LINNE_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 3
    assert "error: `npu:0` (Simulated NPU) computes a first training step in fp32 that differs from the CPU's" in (
        done.stderr
    )


REASONS = """
import os, sys
from linne.device import Device
from linne.errors import DeviceError
for state in ("no-library", "no-adapter", "empty"):
    os.environ["FAKE_DIRECTML"] = state
    sys.modules.pop("torch_directml", None)
    try:
        Device.pick("dml")
    except DeviceError as error:
        print(error.message)
"""
REFUSALS = """
import torch, torch_directml
x = torch.ones(3, device="privateuseone:0")
def said(action):
    try:
        return action()
    except RuntimeError as error:
        return error
with torch.inference_mode():
    print(said(lambda: x + 1))
print(said(lambda: torch.ones(3, dtype=torch.float64).to("privateuseone:0")))
print(said(lambda: x.double()))
print(said(lambda: 1.0 - x))
print(said(lambda: x.bfloat16()))
print(said(lambda: x + torch.ones(3)))
print((x * 5 * (x > 0)).dtype)
logits, labels = torch.randn(4, 3).to(x.device).requires_grad_(), torch.tensor([0, 1, 2, 0]).to(x.device)
torch.nn.functional.cross_entropy(logits, labels, reduction="none").sum().backward()
print(logits.grad.abs().sum().item())
"""


def test_a_machine_without_directml_says_why_in_whatever_way_the_package_fails():
    done = child("directml", "-c", REASONS)
    assert done.stdout.splitlines() == [
        "device `dml` cannot be used: asking for it fails with OSError: libd3d12.so: cannot open shared object file: "
        "No such file or directory",
        "device `dml` cannot be used: asking for it fails with RuntimeError: Unknown error -2147467262",
        "device `dml` cannot be used: torch-directml finds no GPU with DirectX 12",
    ], done.stderr


def test_the_simulated_directml_refuses_and_errs_as_the_real_one():
    done = child("directml", "-c", REFUSALS)
    assert done.returncode == 0, done.stderr
    inference, *doubles, narrow, mixed, truths, gradient = done.stdout.splitlines()
    assert inference == NO_INFERENCE_MODE
    assert doubles == [NO_DOUBLE] * 3
    assert narrow == NO_BFLOAT16
    assert mixed.endswith("unbox expects Dml at::Tensor as inputs")
    assert truths == "torch.bool"
    assert gradient == "0.0"


TOO_LATE = """
import torch
torch.ones(1, requires_grad=True).sum().backward()  # the engine makes its queues, and knows nothing of DirectML yet
from linne.device import Device
from linne.errors import DeviceError
from linne.training.first_step import check_gradients
try:
    check_gradients(Device.pick("dml"))
except DeviceError as error:
    print(error.message)
    print(error.hint)
"""


def test_a_process_that_cannot_compute_gradients_any_more_is_told_to_begin_anew():
    done = child("directml", "-c", TOO_LATE)
    assert done.returncode == 0, done.stderr
    message, hint = done.stdout.splitlines()
    assert message.startswith("`dml:0` computes no gradient in this process: ")
    assert hint.startswith("train in a process of its own")
