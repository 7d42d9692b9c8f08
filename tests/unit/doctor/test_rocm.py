"""ROCm's user space against the driver, on machines built in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from linne.doctor.installed import Package
from linne.doctor.machine import Machine
from linne.doctor.packages import packages_section
from linne.doctor.rocm import framework_checks, rocm_checks, rocm_installed


def _machine(root: Path, files: dict[str, str], system: str = "Linux", **environ: str) -> Machine:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8")
    return Machine(root=root, path=(), environ=environ, system=system, python_version="3.12.3")


@pytest.mark.parametrize(
    ("rocm", "driver", "status"),
    [
        ("7.1.1-38\n", "6.16.6\n", "good"),
        ("6.4.1-83\n", "6.12.12\n", "good"),
        ("5.7.1-98\n", "6.12.12\n", "warning"),  # driver 6.4 beside ROCm 5.7
        ("10.1.0-1\n", "6.16.13\n", "unknown"),  # newer than the table
        ("7.2.0-1\n", "6.3.6\n", "unknown"),  # a module that names no release
    ],
)
def test_an_installed_rocm_is_held_against_the_driver(tmp_path: Path, rocm: str, driver: str, status: str) -> None:
    machine = _machine(tmp_path, {"opt/rocm/.info/version": rocm, "sys/module/amdgpu/version": driver})
    (check,) = rocm_checks(machine)
    assert (check.name, check.status) == ("ROCm and driver", status)
    assert bool(check.fix) == (status == "warning")
    assert check.details["source"]
    assert check.details["source_date"]


def test_a_rocm_too_far_from_the_driver_is_told_which_would_fit(tmp_path: Path) -> None:
    files = {"opt/rocm/.info/version": "5.7.1-98\n", "sys/module/amdgpu/version": "6.12.12\n"}
    (check,) = rocm_checks(_machine(tmp_path, files))
    assert check.fix.startswith("install a ROCm that goes with this driver (6.1 to 7.0), or another driver: https://")


def test_the_driver_of_the_kernel_itself_is_no_fault(tmp_path: Path) -> None:
    machine = _machine(tmp_path, {"opt/rocm/.info/version": "7.2.0", "sys/module/amdgpu/refcnt": "1"})
    (check,) = rocm_checks(machine)
    assert check.status == "note"
    assert check.found.startswith("the driver is the kernel's own, without a version to compare")


def test_without_the_driver_there_is_no_pair_to_judge(tmp_path: Path) -> None:
    assert rocm_checks(_machine(tmp_path, {"opt/rocm/.info/version": "7.2.0"}), "7.2.1") == ()


def test_rocm_is_found_where_it_was_put(tmp_path: Path) -> None:
    assert rocm_installed(_machine(tmp_path, {})) is None
    files = {"opt/rocm-6.4.3/x": "", "opt/rocm-10.0/x": "", "opt/rocm-old/x": ""}
    assert rocm_installed(_machine(tmp_path, files)) == "10.0"
    machine = _machine(tmp_path, {"opt/rocm/.info/version": "6.4.3-128", "srv/rocm/.info/version": "junk"})
    assert rocm_installed(machine) == "6.4.3"
    files = {"srv/rocm/.info/version": "7.2.0-1"}
    assert rocm_installed(_machine(tmp_path, files, ROCM_PATH="/srv/rocm")) == "7.2.0"


def test_the_rocm_inside_the_wheel_of_torch_is_judged_by_itself(tmp_path: Path) -> None:
    machine = _machine(
        tmp_path, {"opt/rocm/.info/version": "5.7.1", "sys/module/amdgpu/version": "6.12.12", "dev/kfd": ""}
    )
    torch = Package(name="torch", version="2.8.0+rocm6.4", build={"hip": "6.4.43482-0f2d60242", "cuda": None})
    found = {check.name: check.status for check in packages_section(machine, {"torch": torch}).checks}
    assert found["ROCm and driver"] == "warning"
    assert found["torch's ROCm and driver"] == "good"


@pytest.mark.parametrize(
    ("rocm", "packages", "name", "status"),
    [
        ("7.2.3", {"onnxruntime-migraphx": "1.23.2"}, "onnxruntime-migraphx and ROCm", "good"),
        ("7.2.3", {"onnxruntime-migraphx": "1.27.1"}, "onnxruntime-migraphx and ROCm", "unknown"),
        ("7.2.3", {"onnxruntime-rocm": "1.22.2"}, "onnxruntime-rocm and ROCm", "warning"),
        ("7.2.3", {"tensorflow-rocm": "2.19.1"}, "tensorflow-rocm and ROCm", "good"),
        ("7.2.3", {"tensorflow-rocm": "2.14.0.600"}, "tensorflow-rocm and ROCm", "warning"),
        ("7.2.3", {"jax": "0.8.2", "jax-rocm7-plugin": "0.8.2"}, "jax-rocm7-plugin and ROCm", "good"),
        ("10.1.0", {"tensorflow-rocm": "2.19.1"}, "tensorflow-rocm and ROCm", "unknown"),
    ],
)
def test_other_frameworks_are_held_against_the_rocm_of_the_machine(tmp_path, rocm, packages, name, status) -> None:
    machine = _machine(tmp_path, {"opt/rocm/.info/version": rocm})
    have = {package: Package(name=package, version=version) for package, version in packages.items()}
    found = {check.name: check for check in packages_section(machine, have).checks}
    assert found[name].status == status
    assert bool(found[name].fix) == (status == "warning")
    assert found[name].details["source"]


def test_frameworks_without_rocm_are_not_held_against_it(tmp_path: Path) -> None:
    have = {"tensorflow-rocm": Package(name="tensorflow-rocm", version="2.19.1")}
    assert framework_checks(_machine(tmp_path, {}), have) == []
    machine = _machine(tmp_path, {"opt/rocm/.info/version": "7.2.3"})
    plain = {"jax": Package(name="jax", version="0.8.2"), "tensorflow": Package(name="tensorflow", version="2.21.0")}
    assert framework_checks(machine, plain) == []
