"""Whether the installed packages go together and suit the machine, by their metadata alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from linne.doctor.compatibility import (
    Answer,
    Verdict,
    cuda_and_driver,
    directml_row,
    numbers,
    rocm_and_framework,
    torch_and_torchvision,
)
from linne.doctor.installed import Package, installed_packages, requirement, satisfies
from linne.doctor.report import Check, Section, Status
from linne.doctor.rocm import framework_checks, rocm_checks
from linne.doctor.windows import windows_advice

if TYPE_CHECKING:
    from linne.doctor.machine import Machine

_ONE_MODULE = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-migraphx",
    "onnxruntime-openvino",
    "onnxruntime-rocm",
    "onnxruntime-webgpu",
    "onnxruntime-windowsml",
)
"""Packages that all install the module `onnxruntime`, each over the other."""

_CPU_INDEX = "pip install --force-reinstall torch torchvision --index-url https://download.pytorch.org/whl/cpu"
_CHOOSE = "choose the command for this machine at https://pytorch.org/get-started/locally/"
_NVIDIA, _AMD = "0x10de", "0x1002"


def packages_section(machine: Machine, packages: Mapping[str, Package] | None = None) -> Section:
    """Return what is installed and whether it goes together; `packages` stands in for this Python's in tests."""
    have = installed_packages() if packages is None else packages
    kind, built = _built_for(have["torch"]) if "torch" in have else ("", None)
    checks = [_versions(have), _torch(machine, have), *_torchvision(have), _requirements(have)]
    checks += rocm_checks(machine, built if kind == "rocm" else None)
    checks += framework_checks(machine, have)
    checks += [*_onnxruntime(have), *_placeholders(have), *_directml(machine, have), *windows_advice(machine)]
    return Section(title="Packages", checks=tuple(checks))


def _versions(have: Mapping[str, Package]) -> Check:
    named = {name: package.version for name, package in have.items()}
    found = ", ".join(f"{name} {version}" for name, version in named.items())
    return Check(name="Versions", status="note", found=found or "none of those linne uses", details={"versions": named})


def _torch(machine: Machine, have: Mapping[str, Package]) -> Check:
    torch = have.get("torch")
    if torch is None:
        return Check(
            name="PyTorch",
            status="note",
            found="not installed",
            why="training needs it; reading data, bundles and reports does not",
            fix='pip install "linne[train]"',
        )
    kind, built = _built_for(torch)
    if kind == "cuda":
        return _cuda_build(machine, torch, built)
    if kind == "rocm":
        return _rocm_build(machine, torch, built)
    if kind == "cpu" and machine.system == "Linux":
        return _cpu_build(machine, torch)
    found = f"{torch.version}, built for {kind}" if kind else f"{torch.version}, built for something it does not say"
    return Check(
        name="PyTorch",
        status="good" if kind else "unknown",
        found=found,
        details={"version": torch.version, "for": kind},
    )


def _built_for(torch: Package) -> tuple[str, str | None]:
    """Return `cuda`, `rocm`, `xpu`, `cpu` or an empty text where the wheel does not say, and of which version."""
    for kind, key in (("rocm", "hip"), ("cuda", "cuda"), ("xpu", "xpu")):
        if torch.build.get(key):
            return kind, torch.build[key]
    tag = torch.tag
    if tag.startswith("cu") and tag[2:].isdigit():
        return "cuda", f"{tag[2:-1]}.{tag[-1]}"
    if tag.startswith("rocm"):
        return "rocm", tag[4:]
    if tag.startswith(("cpu", "xpu")):
        return tag[:3], None
    return ("cpu", None) if {"cuda", "hip"} <= torch.build.keys() else ("", None)


def _cuda_build(machine: Machine, torch: Package, cuda: str | None) -> Check:
    said = f"{torch.version}, built for CUDA {cuda}"
    present, driver = _nvidia_driver(machine)
    details: dict[str, Any] = {"version": torch.version, "for": "cuda", "cuda": cuda, "driver": driver}
    if not present:
        return _cuda_without_driver(machine, said, details)
    answer = cuda_and_driver(cuda, driver)
    details |= {"reason": answer.reason, "source": answer.source, "source_date": answer.source_date}
    if answer.verdict == "no":
        least = answer.goes_with[0].removeprefix(">=")
        fix = f"update the NVIDIA driver to {least} or newer, or install torch for an older CUDA: {_CHOOSE}"
        why = "torch cannot use the GPU through a driver older than its CUDA"
        return Check(
            name="PyTorch", status="bad", found=f"{said}, with driver {driver}", why=why, fix=fix, details=details
        )
    found = f"{said}, with driver {driver or 'of unknown version'}"
    return Check(name="PyTorch", status="good" if answer.verdict == "yes" else "unknown", found=found, details=details)


def _cuda_without_driver(machine: Machine, said: str, details: Mapping[str, Any]) -> Check:
    nvidia, amd = _has_gpu(machine, _NVIDIA), _has_gpu(machine, _AMD)
    if nvidia or amd:
        return Check(
            name="PyTorch",
            # Many processors of AMD hold a small GPU that nobody means to compute on.
            status="bad" if nvidia else "warning",
            found=f"{said}, and no NVIDIA driver is present",
            why=f"the {'NVIDIA' if nvidia else 'AMD'} GPU of this machine is not used: torch runs on the CPU",
            fix="install NVIDIA's driver: https://www.nvidia.com/drivers" if nvidia else f"{_CHOOSE} (ROCm)",
            details=details,
        )
    # Only on Linux is it known which devices there are.
    what = "no NVIDIA driver and no GPU is present" if machine.system == "Linux" else "no NVIDIA driver is present"
    found = f"{said}; {what}, so it runs on the CPU"
    why = "it works; the build for CPUs is gigabytes smaller"
    return Check(name="PyTorch", status="note", found=found, why=why, fix=_CPU_INDEX, details=details)


def _rocm_build(machine: Machine, torch: Package, hip: str | None) -> Check:
    answer = rocm_and_framework(hip, "torch", torch.version)
    said = f"{torch.version}, built for ROCm {hip}"
    details = {
        "version": torch.version,
        "for": "rocm",
        "rocm": hip,
        "listed": list(answer.goes_with),
        "reason": answer.reason,
        "source": answer.source,
        "source_date": answer.source_date,
    }
    # WSL reaches the GPU through Windows (/dev/dxg), and has no /dev/kfd.
    if machine.system == "Linux" and not machine.exists("dev/kfd") and not machine.exists("dev/dxg"):
        return Check(
            name="PyTorch",
            status="bad" if _has_gpu(machine, _AMD) else "warning",
            found=f"{said}, and there is no `/dev/kfd`",
            why="torch reaches an AMD GPU through `/dev/kfd`; without it, it runs on the CPU",
            fix="sudo modprobe amdgpu; in a container: start it with --device=/dev/kfd --device=/dev/dri",
            details=details,
        )
    if answer.verdict == "no":
        why = f"{answer.reason} ({answer.source}, {answer.source_date}); it may work, and nobody at AMD tested it"
        fix = f"if results are wrong or it crashes, install torch {' or '.join(answer.goes_with)}"
        return Check(name="PyTorch", status="warning", found=said, why=why, fix=fix, details=details)
    return Check(name="PyTorch", status="good", found=said, details=details)


def _cpu_build(machine: Machine, torch: Package) -> Check:
    details = {"version": torch.version, "for": "cpu"}
    unused = [name for name, vendor in (("NVIDIA", _NVIDIA), ("AMD", _AMD)) if _has_gpu(machine, vendor)]
    if _nvidia_driver(machine)[0] and "NVIDIA" not in unused:
        unused.insert(0, "NVIDIA")
    if not unused:
        return Check(name="PyTorch", status="good", found=f"{torch.version}, built for CPUs", details=details)
    # AMD graphics without its compute driver may be a laptop's that nobody means to compute on: a note.
    return Check(
        name="PyTorch",
        status="warning" if "NVIDIA" in unused or machine.exists("dev/kfd") else "note",
        found=f"{torch.version}, built for CPUs alone, in a machine with a GPU of {' and '.join(unused)}",
        why="this build of torch cannot use any GPU",
        fix=f"to use the GPU, {_CHOOSE}",
        details=details,
    )


def _torchvision(have: Mapping[str, Package]) -> list[Check]:
    torch, vision = have.get("torch"), have.get("torchvision")
    if torch is None or vision is None:
        return []
    name, both = "torch, torchvision", f"torch {torch.version} and torchvision {vision.version}"
    why = "torchvision's operators are compiled for one torch; with another they are missing or end the program"
    first, second = _family(torch.tag), _family(vision.tag)
    if first and second and first != second:
        found = f"torch is built for {torch.tag} and torchvision for {vision.tag}"
        fix = f"install both in one command, so that they come from one index: {_CHOOSE}"
        # Its CPU build runs on any torch, but for the operators that would be on the GPU.
        status: Status = "warning" if second == "cpu" else "bad"
        return [Check(name=name, status=status, found=found, why=why, fix=fix)]
    answer = _vision_answer(torch, vision)
    details = {"reason": answer.reason, "source": answer.source, "source_date": answer.source_date}
    if answer.verdict == "no":
        found, fix = f"{both} are no pair: {answer.reason}", "pip install --upgrade torch torchvision"
        return [Check(name=name, status="bad", found=found, why=why, fix=fix, details=details)]
    status = "good" if answer.verdict == "yes" else "unknown"
    return [Check(name=name, status=status, found=f"{both}: {answer.reason}", details=details)]


def _vision_answer(torch: Package, vision: Package) -> Answer:
    """Return whether torchvision goes with torch: by what its wheel asks for, else by the table."""
    for text in vision.requires:
        asked = requirement(text)
        if asked and asked[0] == "torch" and asked[1]:
            fits = satisfies(torch.version, asked[1])
            verdict: Verdict = "unknown" if fits is None else "yes" if fits else "no"
            return Answer(verdict=verdict, reason=f"torchvision asks for torch {asked[1]}", source="its metadata")
    return torch_and_torchvision(torch.version, vision.version)


def _family(tag: str) -> str:
    """Return what must agree between two wheels: `cu13` of `cu132`, `rocm7` of `rocm7.2.0.git1`; empty if neither."""
    found = re.match(r"(cpu|xpu)|(cu\d+)\d$|(rocm\d+)", tag)
    return next((part for part in found.groups() if part), "") if found else ""


def _requirements(have: Mapping[str, Package]) -> Check:
    broken = []
    for package in have.values():
        for asked in map(requirement, package.requires):
            other = have.get(asked[0]) if asked else None
            # torchvision and torch have a check of their own.
            if asked is None or other is None or (package.name, other.name) == ("torchvision", "torch"):
                continue
            if satisfies(other.version, asked[1]) is False:
                broken.append((package, f"{other.name}{asked[1].replace(' ', '')}", other.version))
    name = "Requirements"
    if not broken:
        return Check(name=name, status="good", found="what these packages ask of one another is there")
    found = "; ".join(f"{p.name} {p.version} asks for {asked}, and {version} is there" for p, asked, version in broken)
    return Check(
        name=name,
        status="bad",
        found=found,
        why="a package may fail to import, or fail later, with versions it was not made for",
        fix="pip install " + " ".join(f'"{asked}"' for _, asked, _ in broken),
        details={"broken": [[package.name, asked, version] for package, asked, version in broken]},
    )


def _onnxruntime(have: Mapping[str, Package]) -> list[Check]:
    there = [name for name in _ONE_MODULE if name in have]
    if len(there) < 2:
        return []
    # All files of the first go with it, so whichever is kept has to be installed again.
    keep = next(name for name in there if name != "onnxruntime")
    return [
        Check(
            name="ONNX Runtime",
            status="bad",
            found=f"{' and '.join(there)} are installed together",
            why="they write the same files over each other: which providers there are is chance, often the CPU alone",
            fix=f"pip uninstall -y {' '.join(there)} && pip install {keep}",
            details={"packages": there},
        )
    ]


def _placeholders(have: Mapping[str, Package]) -> list[Check]:
    table = _table("placeholders")
    return [
        Check(
            name=name,
            status="warning",
            found=f"{name} {version} is a placeholder without any code",
            why="AMD reserved the name on PyPI; the real package comes from AMD",
            fix=f"pip uninstall -y {name}, then install AMD's: https://rocm.docs.amd.com/projects/AMDMIGraphX",
            details={"source": table["source"], "source_date": table["source_date"]},
        )
        for name, version in table["versions"].items()
        if name in have and have[name].version == version
    ]


def _directml(machine: Machine, have: Mapping[str, Package]) -> list[Check]:
    package = have.get("torch-directml")
    if package is None:
        return []
    row = directml_row(package.version) or {}
    pinned = row.get("torch")
    torch = have["torch"].version if "torch" in have else None
    details = {"torch": pinned, "source": row.get("source"), "source_date": row.get("source_date")}
    wsl = machine.system == "Linux" and not machine.exists("dev/dxg")
    if machine.system != "Windows" and (machine.system != "Linux" or wsl):
        why = "torch-directml needs Windows, or Linux inside it (WSL), and fails to import anywhere else"
        found = f"{package.version} on {machine.system}, outside of Windows"
        fix = "pip uninstall -y torch-directml"
        return [Check(name="torch-directml", status="bad", found=found, why=why, fix=fix, details=details)]
    if pinned and numbers(torch) != numbers(pinned):
        found = f"{package.version} goes with torch {pinned}, and {torch or 'none'} is there"
        why = "it is compiled for exactly one torch; it needs an environment of its own"
        fix = f"in an environment of its own: pip install torch-directml=={package.version}"
        return [Check(name="torch-directml", status="bad", found=found, why=why, fix=fix, details=details)]
    why = "Microsoft maintains it no longer; it trains in float32 alone"
    status: Status = "note" if pinned else "unknown"
    return [Check(name="torch-directml", status=status, found=package.version, why=why, details=details)]


def _nvidia_driver(machine: Machine) -> tuple[bool, str | None]:
    """Return whether an NVIDIA driver is there, and its version where it says so."""
    text = machine.read_text("proc/driver/nvidia/version")
    if text is not None:
        found = re.search(r"Kernel Module\D*?(?:x86_64|aarch64)?\s+(\d+\.\d+(?:\.\d+)?)", text)
        return True, found[1] if found else None
    # WSL, Jetson and Windows have no /proc/driver/nvidia.
    there = ("usr/lib/wsl/lib/libcuda.so.1", "dev/nvhost-gpu", "Windows/System32/nvcuda.dll")
    return any(machine.exists(path) for path in there), None


def _has_gpu(machine: Machine, vendor: str) -> bool:
    """Return whether a display or compute device of a PCI vendor is there."""
    for folder in machine.paths("sys/bus/pci/devices/*"):
        path = folder.relative_to(machine.root).as_posix()
        # 0x03: display; 0x12: processing accelerators, as Instinct cards call themselves.
        kind = machine.read_text(f"{path}/class") or ""
        if machine.read_text(f"{path}/vendor") == vendor and kind.startswith(("0x03", "0x12")):
            return True
    return False


def _table(name: str) -> dict[str, Any]:
    text = files("linne.doctor").joinpath("data", "packages.json").read_text("utf-8")
    return dict(json.loads(text)[name])
