"""Whether installed packages go together, from metadata in folders and from packages made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from linne.doctor.installed import Package, installed_packages, requirement, satisfies
from linne.doctor.machine import Machine
from linne.doctor.packages import packages_section
from linne.doctor.report import Check


def _machine(root: Path, system: str = "Linux", **files: str) -> Machine:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return Machine(root=root, path=(), environ={}, system=system, python_version="3.12.3")


def _checks(machine: Machine, *packages: Package) -> dict[str, Check]:
    return {check.name: check for check in packages_section(machine, {p.name: p for p in packages}).checks}


def _torch(version: str = "2.15.0", **build: str | None) -> Package:
    return Package(name="torch", version=version, build=build)


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


@pytest.mark.parametrize(
    ("torch", "fix"),
    [
        ("2.8.0+rocm6.4", '"torchvision==0.23.*" --index-url https://download.pytorch.org/whl/rocm6.4'),
        ("2.8.0+rocm7.2.0.git7e", '"torchvision==0.23.*" --index-url https://download.pytorch.org/whl/rocm7.2'),
        ("2.8.0+cu126", '"torchvision==0.23.*" --index-url https://download.pytorch.org/whl/cu126'),
        ("2.8.0", '"torchvision==0.23.*"'),
        ("2.99.0+cpu", "torch torchvision --index-url https://download.pytorch.org/whl/cpu"),
    ],
)
def test_the_torchvision_that_fits_comes_from_the_index_of_torch(tmp_path: Path, torch: str, fix: str) -> None:
    check = _checks(_machine(tmp_path), _torch(torch), _vision("0.1.0", "torch==0.1.0"))["torch, torchvision"]
    assert (check.status, check.fix) == ("bad", f"pip uninstall -y torchvision\npip install {fix}")


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
    assert check.fix == "pip uninstall -y onnxruntime onnxruntime-gpu\npip install onnxruntime-gpu"
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


def test_directml_with_another_torch_is_reported_once_with_an_environment_of_its_own(tmp_path: Path) -> None:
    package = Package(name="torch-directml", version="0.2.5.dev240914", requires=("torch==2.4.1",))
    checks = _checks(_machine(tmp_path, "Windows"), package, _torch("2.15.0"))
    assert checks["Requirements"].status == "good"
    assert checks["torch-directml"].fix == (
        'py -3.12 -m venv .venv-directml\n.venv-directml\\Scripts\\pip install "linne[train,directml]"'
    )


def test_onnxruntime_directml_is_told_where_it_goes_on(tmp_path: Path) -> None:
    package = Package(name="onnxruntime-directml", version="1.24.4")
    check = _checks(_machine(tmp_path, "Windows"), package)["ONNX Runtime"]
    assert (check.status, check.details["source_date"]) == ("note", "2026-11-21")
    assert check.fix == 'pip uninstall -y onnxruntime-directml\npip install "windowsml[with-ort]"'
    assert "ONNX Runtime" not in _checks(_machine(tmp_path), package)


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
    assert 'AMD: pip install "torch[device-all]" "torchvision[device-all]" --index-url ' in check.fix
    assert "Which packages" not in _checks(_machine(tmp_path, "Linux"))
