"""Whether the wheel holds code for the GPU: by the list of the wheel, the files of the machine and what torch says."""

import json
import os
import sys
from pathlib import Path

import pytest

from linne.child import Heard
from linne.doctor import battery
from linne.doctor.gpu import AMD, NVIDIA, Gpu
from linne.doctor.machine import Machine
from linne.doctor.proof import proof_section
from linne.doctor.wheel import NAME, architecture_checks

ROCM = ["gfx900", "gfx906", "gfx908", "gfx90a", "gfx942", "gfx1030", "gfx1100", "gfx1101", "gfx1200", "gfx1201"]
"""torch.cuda.get_arch_list() of a ROCm 6.4 wheel."""
CUDA = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
"""The same of torch 2.14.1+cu130."""


def machine(environ=None):
    return Machine(root=Path("/no/such/folder"), path=(), environ=environ or {}, system="Linux")


def checks(listed, archs=(), torch_says=None, environ=None, vendor=AMD):
    """Return what is said of GPUs of these architectures and of the one that torch computes on."""
    events = [{"linne": "wheel", "architectures": listed}]
    if torch_says:
        events.append({"linne": "device", "kind": "rocm", "architecture": torch_says})
    heard = Heard(end="done", how="exit code 0", events=tuple(events), said="", seconds=1.0)
    gpus = [Gpu(vendor=vendor, arch=arch) for arch in archs]
    found = architecture_checks(machine(environ), [heard, heard], gpus)
    assert {check.name for check in found} <= {NAME}
    return [(check.status, check.found, check.fix) for check in found]


def test_an_architecture_that_the_wheel_holds_is_good():
    assert checks(ROCM, ["gfx942", "gfx942"], "gfx942") == [
        ("good", "the wheel holds code for gfx942 (AMD Instinct MI325X / MI300X / MI300A)", "")
    ]
    assert checks(CUDA, ["sm_89"], vendor=NVIDIA) == [("good", "the wheel holds code for sm_89", "")]


def test_an_architecture_that_the_wheel_lacks_is_bad_and_says_what_it_has():
    [(status, found, fix)] = checks(ROCM, ["gfx1103"])
    assert status == "bad"
    assert found.startswith("the wheel has no code for gfx1103 (AMD Ryzen")
    assert found.endswith(
        "only for gfx900, gfx906, gfx908, gfx90a, gfx942, gfx1030, gfx1100, gfx1101, gfx1200, gfx1201"
    )
    assert fix == (
        "pip uninstall -y torch torchvision\n"
        "pip install torch torchvision --index-url https://download.pytorch.org/whl/rocm7.14"
    )


@pytest.mark.parametrize(
    ("arch", "fix"),
    [
        ("sm_130", "pip install torch torchvision"),
        ("sm_61", "pip install torch torchvision --index-url https://download.pytorch.org/whl/cu126"),
    ],
)
def test_a_gpu_of_nvidia_is_too_new_or_too_old_for_the_wheel(arch, fix):
    [(status, _, said)] = checks(CUDA, [arch], vendor=NVIDIA)
    assert status == "bad"
    assert said == f"pip uninstall -y torch torchvision\n{fix}"


def test_a_gpu_that_is_disguised_is_told_by_its_own_name_and_is_a_warning():
    found = checks(ROCM, ["gfx1031"], "gfx1030", {"HSA_OVERRIDE_GFX_VERSION": "10.3.0"})
    assert [status for status, _, _ in found] == ["warning", "good"]
    assert found[0][1].startswith("the wheel has no code for gfx1031")
    assert found[0][1].endswith("; HSA_OVERRIDE_GFX_VERSION=10.3.0 has it run as another")


def test_a_gpu_that_is_lacking_beside_one_that_is_not_is_only_a_warning():
    found = checks(ROCM, ["gfx1100", "gfx1103"])
    assert [status for status, _, _ in found] == ["good", "warning"]


def test_nothing_is_said_of_a_wheel_for_cpus_or_of_another_vendors_gpu():
    assert checks([], ["gfx942"]) == []
    assert checks(CUDA, ["gfx1103", None]) == []
    assert checks(CUDA) == []
    assert architecture_checks(machine(), [], [Gpu(vendor=AMD, arch="gfx942")]) == []


def test_a_gpu_that_no_wheel_is_built_for_is_left_to_the_cpu():
    [(_, _, fix)] = checks(ROCM, ["gfx803"])
    assert fix == "use --device cpu: no build of PyTorch with code for gfx803 is known"


@pytest.mark.parametrize("junk", [None, 5, "gfx942", [None], [[]], {"a": 1}, ["gfx942", 5]])
def test_reports_of_the_wrong_types_raise_nothing(junk):
    assert all(status != "bad" for status, _, _ in checks(junk, ["gfx942"], junk))


def test_the_section_holds_the_gpus_against_the_childs_list(tmp_path):
    script = tmp_path / "battery.py"
    says = [
        {"linne": "wheel", "architectures": ROCM, "tf32": {"convolutions": True}},
        {"linne": "absent", "reason": "x"},
    ]
    script.write_text("\n".join(f"print({json.dumps(event)!r})" for event in says), "utf-8")
    command = (sys.executable, str(script))
    section = proof_section(machine(os.environ), ("cuda",), False, [Gpu(vendor=AMD, arch="gfx1103")], command=command)
    assert [(check.name, check.status) for check in section.checks] == [(NAME, "bad"), ("cuda fp32", "bad")]
    assert section.checks[1].details["tf32"] == {"convolutions": True}


def test_this_wheel_tells_what_it_was_built_for():
    torch = battery.torch
    facts = battery.wheel_facts()
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["torch"], facts["cuda"], facts["hip"]) == (torch.__version__, torch.version.cuda, torch.version.hip)
    assert bool(facts["architectures"]) == bool(torch.version.cuda or torch.version.hip)
    assert facts["tf32"] == {"matrix_products": False, "convolutions": True}
