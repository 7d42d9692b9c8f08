"""Whether installed packages go together, from metadata in folders and from packages made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from linne.doctor.installed import Package, installed_packages, requirement, satisfies
from linne.doctor.machine import Machine
from linne.doctor.packages import packages_section
from linne.doctor.report import Check

_CUDA = {"cuda": "13.2", "hip": None, "tag": "cu132"}


def _machine(root: Path, system: str = "Linux", **files: str) -> Machine:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return Machine(root=root, path=(), environ={}, system=system, python_version="3.12.3")


def _gpu(root: Path, vendor: str, kind: str = "0x030000") -> None:
    folder = root / "sys/bus/pci/devices/0000:01:00.0"
    folder.mkdir(parents=True)
    (folder / "vendor").write_text(f"{vendor}\n", "utf-8")
    (folder / "class").write_text(f"{kind}\n", "utf-8")


def _driver(root: Path, version: str) -> None:
    (root / "proc/driver/nvidia").mkdir(parents=True)
    text = f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build  (dvs-builder@U22)\n"
    (root / "proc/driver/nvidia/version").write_text(text, "utf-8")


def _checks(machine: Machine, *packages: Package) -> dict[str, Check]:
    return {check.name: check for check in packages_section(machine, {p.name: p for p in packages}).checks}


def _torch(version: str = "2.15.0", **build: str | None) -> Package:
    return Package(name="torch", version=version, build=build)


def test_without_torch_the_report_says_so_and_how_to_get_it(tmp_path: Path) -> None:
    check = _checks(_machine(tmp_path))["PyTorch"]
    assert (check.status, check.found, check.fix) == ("note", "not installed", 'pip install "linne[train]"')


def test_a_cuda_build_on_a_machine_without_a_gpu_says_that_no_driver_is_present(tmp_path: Path) -> None:
    check = _checks(_machine(tmp_path), _torch(**_CUDA))["PyTorch"]
    assert check.status == "note"
    assert check.found == ("2.15.0, built for CUDA 13.2; no NVIDIA driver and no GPU is present, so it runs on the CPU")
    assert "whl/cpu" in check.fix


def test_a_cuda_build_with_a_gpu_and_no_driver_is_bad(tmp_path: Path) -> None:
    _gpu(tmp_path, "0x10de", "0x030200")
    check = _checks(_machine(tmp_path), _torch(**_CUDA))["PyTorch"]
    assert check.status == "bad"
    assert check.found == "2.15.0, built for CUDA 13.2, and no NVIDIA driver is present"
    assert "driver" in check.fix


def test_a_cuda_build_in_a_machine_of_amd_is_pointed_to_rocm(tmp_path: Path) -> None:
    _gpu(tmp_path, "0x1002", "0x120000")
    check = _checks(_machine(tmp_path), _torch(**_CUDA))["PyTorch"]
    assert check.status == "warning"
    assert "ROCm" in check.fix


def test_where_devices_cannot_be_listed_nothing_is_said_of_gpus(tmp_path: Path) -> None:
    check = _checks(_machine(tmp_path, "Windows"), _torch(**_CUDA))["PyTorch"]
    assert check.found == "2.15.0, built for CUDA 13.2; no NVIDIA driver is present, so it runs on the CPU"
    _machine(tmp_path, Windows__System32__nvcuda_dll="")
    (tmp_path / "Windows/System32/nvcuda_dll").rename(tmp_path / "Windows/System32/nvcuda.dll")
    assert _checks(_machine(tmp_path, "Windows"), _torch(**_CUDA))["PyTorch"].status == "unknown"


def test_a_sound_card_of_nvidia_is_no_gpu(tmp_path: Path) -> None:
    _gpu(tmp_path, "0x10de", "0x040300")
    assert _checks(_machine(tmp_path), _torch(**_CUDA))["PyTorch"].status == "note"


@pytest.mark.parametrize(("driver", "status"), [("580.65.06", "good"), ("575.57.08", "bad")])
def test_a_driver_older_than_the_cuda_of_the_wheel_is_bad(tmp_path: Path, driver: str, status: str) -> None:
    _driver(tmp_path, driver)
    check = _checks(_machine(tmp_path), _torch(**_CUDA))["PyTorch"]
    assert check.status == status
    assert check.details["driver"] == driver
    assert bool(check.fix) == (status == "bad")


def test_a_driver_that_does_not_say_its_version_is_unknown(tmp_path: Path) -> None:
    machine = _machine(tmp_path, proc__driver__nvidia__version="??")
    assert _checks(machine, _torch(**_CUDA))["PyTorch"].status == "unknown"


def test_a_build_for_cpus_beside_an_nvidia_driver_is_a_warning(tmp_path: Path) -> None:
    _driver(tmp_path, "580.65.06")
    check = _checks(_machine(tmp_path), _torch("2.15.0+cpu"))["PyTorch"]
    assert check.status == "warning"
    assert "NVIDIA" in check.found


@pytest.mark.parametrize(("kfd", "status"), [(True, "warning"), (False, "note")])
def test_graphics_of_amd_are_a_warning_only_with_the_compute_driver(tmp_path: Path, kfd: bool, status: str) -> None:
    _gpu(tmp_path, "0x1002")
    machine = _machine(tmp_path, **({"dev__kfd": ""} if kfd else {}))
    check = _checks(machine, _torch("2.15.0+cpu"))["PyTorch"]
    assert (check.status, "AMD" in check.found) == (status, True)


def test_a_build_for_cpus_on_a_machine_of_cpus_is_good(tmp_path: Path) -> None:
    assert _checks(_machine(tmp_path), _torch(cuda=None, hip=None, tag=""))["PyTorch"].status == "good"


@pytest.mark.parametrize(
    ("kfd", "version", "hip", "status"),
    [
        (True, "2.9.1+rocm7.2.0", "7.2.26015", "good"),
        (True, "2.4.1+rocm7.2.0", "7.2.26015", "warning"),
        (True, "2.14.0+rocm10.1", "10.1.0", "good"),  # newer than the table: nothing to be said against it
        (False, "2.9.1+rocm7.2.0", "7.2.26015", "warning"),
    ],
)
def test_a_rocm_build_is_held_against_the_table_and_the_device(
    tmp_path: Path, kfd: bool, version: str, hip: str, status: str
) -> None:
    machine = _machine(tmp_path, **({"dev__kfd": ""} if kfd else {}))
    assert _checks(machine, _torch(version, hip=hip, cuda=None))["PyTorch"].status == status


def test_a_rocm_build_with_a_gpu_and_no_kfd_is_bad(tmp_path: Path) -> None:
    _gpu(tmp_path, "0x1002")
    check = _checks(_machine(tmp_path), _torch("2.9.1+rocm6.4"))["PyTorch"]
    assert check.status == "bad"
    assert check.fix == "sudo modprobe amdgpu; in a container: start it with --device=/dev/kfd --device=/dev/dri"


def test_a_rocm_build_in_wsl_needs_no_kfd(tmp_path: Path) -> None:
    check = _checks(_machine(tmp_path, dev__dxg=""), _torch("2.13.0+rocm10.0.0"))["PyTorch"]
    assert (check.status, check.found) == ("good", "2.13.0+rocm10.0.0, built for ROCm 10.0.0")


def _vision(version: str, asks: str = "", tag: str = "") -> Package:
    return Package(name="torchvision", version=version, requires=(asks,) if asks else (), build={"tag": tag})


@pytest.mark.parametrize(
    ("torch", "vision", "status"),
    [
        (_torch("2.15.0"), _vision("0.29.2", "torch (>=2.14.0)"), "good"),  # the wheel's word goes before the table's
        (_torch("2.13.0"), _vision("0.29.2", "torch (>=2.14.0)"), "bad"),
        (_torch("2.8.0"), _vision("0.23.0", "torch"), "good"),
        (_torch("2.8.0"), _vision("0.22.0", "torch"), "bad"),
        (_torch("2.99.0"), _vision("0.99.0"), "unknown"),
        (_torch("2.8.0+cpu"), _vision("0.23.0+cu128", "torch==2.8.0"), "bad"),
        (_torch("2.8.0+cu128"), _vision("0.23.0+cpu", "torch==2.8.0"), "warning"),
        (_torch("2.8.0+cu126"), _vision("0.23.0+cu128", "torch==2.8.0"), "good"),  # one major of CUDA
        (_torch("2.8.0+cu118"), _vision("0.23.0+cu128", "torch==2.8.0"), "bad"),
        (_torch("2.9.1+rocm7.2.0.gita"), _vision("0.24.0+rocm7.2.0.gitb", "torch==2.9.1"), "good"),
    ],
)
def test_torch_and_torchvision_must_be_a_pair(tmp_path: Path, torch: Package, vision: Package, status: str) -> None:
    assert _checks(_machine(tmp_path), torch, vision)["torch, torchvision"].status == status


def test_a_requirement_that_is_not_met_is_bad_and_the_fix_installs_it(tmp_path: Path) -> None:
    npu = Package(name="torch-npu", version="2.14.0", requires=("torch==2.14.0.*", 'numpy<2; extra == "old"'))
    numpy = Package(name="numpy", version="2.4.0")
    check = _checks(_machine(tmp_path), _torch(), npu, numpy)["Requirements"]
    assert (check.status, check.fix) == ("bad", 'pip install "torch==2.14.0.*"')
    assert check.found == "torch-npu 2.14.0 asks for torch==2.14.0.*, and 2.15.0 is there"
    assert _checks(_machine(tmp_path), _torch("2.14.0"), npu, numpy)["Requirements"].status == "good"


def test_one_fault_is_reported_once(tmp_path: Path) -> None:
    checks = _checks(_machine(tmp_path), _torch("2.13.0"), _vision("0.29.2", "torch (>=2.14.0)"))
    assert [name for name, check in checks.items() if check.status == "bad"] == ["torch, torchvision"]


def test_two_packages_of_one_module_overwrite_each_other(tmp_path: Path) -> None:
    both = (Package(name="onnxruntime", version="1.31.1"), Package(name="onnxruntime-gpu", version="1.31.1"))
    check = _checks(_machine(tmp_path), *both)["ONNX Runtime"]
    assert check.status == "bad"
    assert check.fix == "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
    assert "ONNX Runtime" not in _checks(_machine(tmp_path), both[0])
    plugin = Package(name="onnxruntime-ep-webgpu", version="0.4.0")
    assert "ONNX Runtime" not in _checks(_machine(tmp_path), both[0], plugin)


@pytest.mark.parametrize(("name", "version"), [("migraphx", "0.0.1"), ("onnxruntime-ep-migraphx", "0.0.0")])
def test_a_placeholder_is_not_taken_for_the_real_thing(tmp_path: Path, name: str, version: str) -> None:
    assert "placeholder" in _checks(_machine(tmp_path), Package(name=name, version=version))[name].found
    assert name not in _checks(_machine(tmp_path), Package(name=name, version="2.16.0"))


@pytest.mark.parametrize(
    ("system", "dxg", "torch", "status"),
    [
        ("Windows", False, "2.4.1", "note"),
        ("Windows", False, "2.4.1+cpu", "note"),
        ("Windows", False, "2.15.0", "bad"),
        ("Linux", True, "2.4.1", "note"),
        ("Linux", False, "2.4.1", "bad"),
        ("Darwin", False, "2.4.1", "bad"),
    ],
)
def test_torch_directml_needs_windows_and_its_one_torch(
    tmp_path: Path, system: str, dxg: bool, torch: str, status: str
) -> None:
    machine = _machine(tmp_path, system, **({"dev__dxg": ""} if dxg else {}))
    package = Package(name="torch-directml", version="0.2.5.dev240914")
    assert _checks(machine, package, _torch(torch))["torch-directml"].status == status


def _install(site: Path, name: str, version: str, asks: str = "", text: str | None = None) -> None:
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{asks}\n", "utf-8")
    if text is not None:
        (site / name).mkdir()
        (site / name / "version.py").write_text(text, "utf-8")


def test_packages_are_read_from_their_metadata_and_never_imported(tmp_path: Path) -> None:
    text = "__version__ = '2.15.0+cu132'\ncuda: Optional[str] = '13.2'\nhip: Optional[str] = None\nraise SystemExit\n"
    _install(tmp_path, "torch", "2.15.0", "Requires-Dist: sympy>=1.13", text)
    _install(tmp_path, "Torch_DirectML", "0.2.5.dev240914")
    _install(tmp_path, "unheard-of", "1.0")
    (tmp_path / "broken-1.dist-info").mkdir()
    (tmp_path / "broken-1.dist-info" / "METADATA").write_bytes(b"\xff\xfe")
    have = installed_packages([str(tmp_path)])
    assert list(have) == ["torch", "torch-directml"]
    assert have["torch"].requires == ("sympy>=1.13",)
    assert have["torch"].build == {"cuda": "13.2", "hip": None, "tag": "cu132"}


def test_of_two_copies_the_first_on_the_path_counts_as_it_is_the_one_imported(tmp_path: Path) -> None:
    _install(tmp_path / "a", "timm", "1.0.31")
    _install(tmp_path / "b", "timm", "0.9.0")
    assert installed_packages([str(tmp_path / "a"), str(tmp_path / "b")])["timm"].version == "1.0.31"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("torch", ("torch", "")),
        ("torch (>=2.14.0)", ("torch", ">=2.14.0")),
        ("torch==2.14.0.*", ("torch", "==2.14.0.*")),
        ("jax[cuda12] >=0.4,<1", ("jax", ">=0.4,<1")),
        ('pytest; extra == "test"', None),
        ("pip @ https://example.org/pip.whl", None),
    ],
)
def test_a_requirement_is_read_unless_it_has_a_condition(text: str, expected: tuple[str, str] | None) -> None:
    assert requirement(text) == expected


@pytest.mark.parametrize(
    ("version", "clauses", "expected"),
    [
        ("2.15.0+cu132", ">=2.14.0", True),
        ("2.15", "==2.15.0", True),
        ("2.14.3", "==2.14.*", True),
        ("2.14.3", "!=2.14.*", False),
        ("2.14.3", "~=2.14.1", True),
        ("2.15.0", "~=2.14.1", False),
        ("1.26.4", ">=1.20,<2", True),
        ("2.0", ">=1.20,<2", False),
        ("2.0", "", True),
        ("2.0", "is new", None),
        ("2.0", "is new,<1", False),
        ("new", ">=1", None),
    ],
)
def test_versions_are_held_against_clauses_as_pip_does(version: str, clauses: str, expected: bool | None) -> None:
    assert satisfies(version, clauses) is expected


def test_windows_is_told_which_packages_go_with_which_gpu_and_others_are_not(tmp_path: Path) -> None:
    check = _checks(_machine(tmp_path, "Windows"))["Which packages"]
    assert check.status == "note"
    vendors = [line.partition(":")[0] for line in check.fix.splitlines()]
    assert vendors == ["AMD", "Intel", "NVIDIA", "others", "to serve"]
    assert check.fix.endswith('to serve: pip install "windowsml[with-ort]"')
    assert "Which packages" not in _checks(_machine(tmp_path, "Linux"))
