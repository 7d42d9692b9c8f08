"""Which build of torch suits which machine, and the commands that install it there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from machines.build import Spec, build

from linne.doctor.gpu import AMD, APPLE, INTEL, NVIDIA, Gpu, best_gpu
from linne.doctor.installed import Package
from linne.doctor.report import Check
from linne.doctor.torch_build import torch_check

CUDA = Package(name="torch", version="2.15.0", build={"cuda": "13.2", "hip": None, "tag": "cu132"})
CPU = Package(name="torch", version="2.15.0+cpu")
ROCM = Package(name="torch", version="2.9.1+rocm7.2.0", build={"hip": "7.2.26015-fc0010cf6a", "cuda": None})
XPU = Package(name="torch", version="2.15.0+xpu")
RTX = Gpu(vendor=NVIDIA, arch="sm_86", bus_id="0000:01:00.0", driver="580.95.05")
RX7900 = Gpu(vendor=AMD, arch="gfx1100", bus_id="0000:03:00.0")
MI25 = Gpu(vendor=AMD, arch="gfx900", bus_id="0000:03:00.0")
ARC = Gpu(vendor=INTEL, bus_id="0000:03:00.0")
UHD = Gpu(vendor=INTEL, bus_id="0000:00:02.0")
KFD = {"dev/kfd": ""}
INDEX = "https://download.pytorch.org/whl"
AGAIN = "pip uninstall -y torch torchvision\n"


def check(
    folder: Path,
    *gpus: Gpu,
    torch: Package | None = None,
    files: Mapping[str, str] | None = None,
    system: str = "Linux",
    beside: Package | None = None,
) -> Check:
    machine = build(Spec(title="", files=files or {}, system=system), folder)
    return torch_check(machine, {package.name: package for package in (torch, beside) if package}, gpus)


def driver(version: str) -> dict[str, str]:
    text = f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build  (dvs-builder@U22)\n"
    return {"proc/driver/nvidia/version": text}


@pytest.mark.parametrize(
    ("gpu", "files", "system", "first"),
    [
        (None, {}, "Linux", f"pip install torch torchvision --index-url {INDEX}/cpu\n"),
        (RTX, {}, "Linux", "pip install torch torchvision\n"),
        (RX7900, KFD, "Linux", f"pip install torch torchvision --index-url {INDEX}/rocm7.14\n"),
        (MI25, KFD, "Linux", f"pip install torch torchvision --index-url {INDEX}/rocm7.2\n"),
        (Gpu(vendor=NVIDIA, arch="sm_61"), {}, "Linux", f"pip install torch torchvision --index-url {INDEX}/cu126\n"),
        (RTX, {}, "Windows", f"pip install torch torchvision --index-url {INDEX}/cu132\n"),
        (Gpu(vendor=NVIDIA, driver="390.1"), {}, "Linux", ""),
        # Graphics that nobody means to compute on.
        (RX7900, {}, "Linux", f"pip install torch torchvision --index-url {INDEX}/cpu\n"),
        (UHD, {}, "Linux", f"pip install torch torchvision --index-url {INDEX}/cpu\n"),
        (ARC, {}, "Linux", f"pip install torch torchvision --index-url {INDEX}/xpu\n"),
        (Gpu(vendor=APPLE), {}, "Darwin", "pip install torch torchvision\n"),
        (None, {}, "Windows", ""),
        (None, {"dev/dxg": ""}, "Linux", ""),
    ],
)
def test_without_torch_the_build_for_this_machine_is_installed_before_linne(
    tmp_path: Path, gpu: Gpu | None, files: dict[str, str], system: str, first: str
) -> None:
    found = check(tmp_path, *([gpu] if gpu else []), files=files, system=system)
    assert (found.status, found.found) == ("note", "not installed")
    assert found.fix == f'{first}pip install "linne[train]"'


def test_a_cuda_build_on_a_machine_without_a_gpu_says_that_no_driver_is_present(tmp_path: Path) -> None:
    found = check(tmp_path, torch=CUDA)
    assert found.status == "note"
    assert found.found == "2.15.0, built for CUDA 13.2; no NVIDIA driver and no GPU is present, so it runs on the CPU"
    assert found.fix == f"{AGAIN}pip install torch torchvision --index-url {INDEX}/cpu"


def test_a_cuda_build_whose_gpu_lacks_its_driver_is_the_right_build(tmp_path: Path) -> None:
    found = check(tmp_path, Gpu(vendor=NVIDIA), torch=CUDA)
    assert (found.status, found.fix) == ("good", ""), "the missing driver is said once, of the accelerator"


@pytest.mark.parametrize(
    ("torch", "gpu", "files", "status", "line"),
    [
        (CUDA, RX7900, KFD, "warning", f"--index-url {INDEX}/rocm7.14"),
        (CUDA, RX7900, {}, "note", f"--index-url {INDEX}/rocm7.14"),
        (CPU, RX7900, KFD, "warning", f"--index-url {INDEX}/rocm7.14"),
        (CPU, RTX, {}, "warning", "pip install torch torchvision"),
        (CPU, Gpu(vendor=NVIDIA, driver="535.183.01"), {}, "warning", f"--index-url {INDEX}/cu126"),
        (CPU, ARC, {}, "warning", f"--index-url {INDEX}/xpu"),
        (CUDA, UHD, {}, "note", f"--index-url {INDEX}/xpu"),
        (XPU, RTX, {}, "warning", "pip install torch torchvision"),
        (
            CPU,
            Gpu(vendor=AMD, arch="gfx1031", bus_id="0000:03:00.0"),
            KFD,
            "warning",
            'pip install "torch[device-gfx1031]" "torchvision[device-gfx1031]" '
            "--index-url https://stable.repo.amd.com/rocm/whl-next/",
        ),
    ],
)
def test_a_build_that_cannot_use_the_gpu_is_told_the_one_that_can(
    tmp_path: Path, torch: Package, gpu: Gpu, files: dict[str, str], status: str, line: str
) -> None:
    found = check(tmp_path, gpu, torch=torch, files=files)
    assert found.status == status
    assert found.found.endswith(f"and cannot use this machine's {gpu.vendor} GPU")
    assert found.fix.startswith(AGAIN)
    assert found.fix.endswith(line)


def test_a_gpu_that_no_build_has_code_for_is_left_without_a_command(tmp_path: Path) -> None:
    assert check(tmp_path, Gpu(vendor=AMD, arch="gfx803"), torch=CPU, files=KFD).fix == ""


@pytest.mark.parametrize(
    ("torch", "gpu", "files"), [(ROCM, RX7900, KFD), (ROCM, RX7900, {}), (XPU, ARC, {}), (CPU, None, {})]
)
def test_a_build_for_what_is_there_is_good(
    tmp_path: Path, torch: Package, gpu: Gpu | None, files: dict[str, str]
) -> None:
    found = check(tmp_path, *([gpu] if gpu else []), torch=torch, files=files)
    assert (found.status, found.fix) == ("good", "")


def test_where_devices_cannot_be_listed_nothing_is_said_of_gpus(tmp_path: Path) -> None:
    found = check(tmp_path / "a", torch=CUDA, system="Windows")
    assert found.found == "2.15.0, built for CUDA 13.2; no NVIDIA driver is present, so it runs on the CPU"
    driven = check(tmp_path / "b", torch=CUDA, system="Windows", files={"Windows/System32/nvcuda.dll": ""})
    assert driven.status == "unknown"
    assert check(tmp_path / "c", torch=ROCM, system="Windows").status == "unknown"
    assert check(tmp_path / "d", torch=CPU, system="Windows").status == "good"


def test_on_windows_a_gpu_of_amd_gets_amds_own_build(tmp_path: Path) -> None:
    found = check(tmp_path, Gpu(vendor=AMD, name="AMD Radeon RX 6600"), torch=CPU, system="Windows")
    assert found.status == "note"
    assert found.fix == (
        f'{AGAIN}pip install "torch[device-all]" "torchvision[device-all]" '
        "--index-url https://stable.repo.amd.com/rocm/whl-next/"
    )


def test_torch_directml_makes_a_build_for_cpus_the_right_one(tmp_path: Path) -> None:
    gpu, old = Gpu(vendor=AMD, name="AMD Radeon RX 6600"), Package(name="torch", version="2.4.1+cpu")
    beside = Package(name="torch-directml", version="0.2.5.dev240914")
    found = check(tmp_path / "a", gpu, torch=old, beside=beside, system="Windows")
    assert (found.status, found.found) == ("good", "2.4.1+cpu, built for CPUs; torch-directml brings the GPU to it")
    wrong = check(tmp_path / "b", gpu, torch=CPU, beside=beside, system="Windows")
    assert wrong.status == "note"


def test_the_build_for_macos_uses_metal(tmp_path: Path) -> None:
    plain = Package(name="torch", version="2.15.0", build={"cuda": None, "hip": None, "tag": ""})
    found = check(tmp_path, Gpu(vendor=APPLE, name="Apple M4"), torch=plain, system="Darwin")
    assert (found.status, found.found) == ("good", "2.15.0, built for macOS, whose GPU it uses through Metal")


@pytest.mark.parametrize(
    ("version", "files", "status", "fix"),
    [
        ("580.65.06", {}, "good", ""),
        (
            "575.57.08",
            {"etc/os-release": "ID=ubuntu\n"},
            "bad",
            f"{AGAIN}pip install torch torchvision --index-url {INDEX}/cu126\n"
            "or, to keep this build, update the driver to 580 or newer:\nsudo ubuntu-drivers install\nsudo reboot",
        ),
        (
            "470.82.01",
            {"dev/dxg": ""},
            "bad",
            "install NVIDIA's driver, 580 or newer, in Windows, not here: https://www.nvidia.com/drivers",
        ),
    ],
)
def test_a_driver_older_than_the_cuda_of_the_wheel_is_bad(
    tmp_path: Path, version: str, files: dict[str, str], status: str, fix: str
) -> None:
    found = check(tmp_path, torch=CUDA, files=driver(version) | files)
    assert (found.status, found.fix) == (status, fix)
    assert found.details["driver"] == version


def test_a_driver_that_does_not_say_its_version_is_unknown(tmp_path: Path) -> None:
    assert check(tmp_path, torch=CUDA, files={"proc/driver/nvidia/version": "??"}).status == "unknown"


def test_a_driver_speaks_for_a_gpu_whose_files_are_hidden(tmp_path: Path) -> None:
    assert check(tmp_path / "a", torch=CPU, files=driver("580.65.06")).status == "warning"
    assert check(tmp_path / "b", torch=ROCM, files=KFD).status == "good"


@pytest.mark.parametrize(
    ("version", "hip", "status"),
    [
        ("2.9.1+rocm7.2.0", "7.2.26015", "good"),
        ("2.4.1+rocm7.2.0", "7.2.26015", "warning"),
        ("2.14.0+rocm10.1", "10.1.0", "good"),  # newer than the table: nothing to be said against it
    ],
)
def test_a_rocm_build_is_held_against_the_table(tmp_path: Path, version: str, hip: str, status: str) -> None:
    torch = Package(name="torch", version=version, build={"hip": hip, "cuda": None})
    assert check(tmp_path, RX7900, torch=torch, files=KFD).status == status


def test_a_build_that_does_not_say_what_it_is_for_is_unknown(tmp_path: Path) -> None:
    assert check(tmp_path, RTX, torch=Package(name="torch", version="2.15.0")).status == "unknown"


def test_the_best_of_many_gpus_is_the_largest_of_the_vendor_with_the_most_code() -> None:
    small, large = Gpu(vendor=AMD, memory_bytes=2**30), Gpu(vendor=AMD, memory_bytes=2**34)
    assert best_gpu([ARC, small, large]) == large
    assert best_gpu([large, RTX]) == RTX
    assert best_gpu([]) is None
