"""Whether the installed packages go together and suit the machine, by their metadata alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from linne.doctor import advice
from linne.doctor.accelerators import look
from linne.doctor.compatibility import Answer, Verdict, torch_and_directml, torch_and_torchvision
from linne.doctor.gpu import AMD, Gpu, best_gpu
from linne.doctor.installed import Package, installed_packages, requirement, satisfies
from linne.doctor.report import Check, Section, Status
from linne.doctor.rocm import framework_checks, rocm_checks
from linne.doctor.torch_build import built_for, torch_check
from linne.doctor.windows import SERVE_WITH, windows_advice

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


def packages_section(
    machine: Machine, packages: Mapping[str, Package] | None = None, gpus: Sequence[Gpu] | None = None
) -> Section:
    """Return what is installed and whether it goes together and suits the GPUs of the machine."""
    have = installed_packages(machine.site_packages) if packages is None else packages
    gpus = look(machine).gpus if gpus is None else gpus
    kind, built = built_for(have["torch"]) if "torch" in have else ("", None)
    checks = [torch_check(machine, have, gpus), *_torchvision(have), _requirements(have)]
    checks += rocm_checks(machine, built if kind == "rocm" else None)
    checks += framework_checks(machine, have)
    checks += [*_onnxruntime(machine, have, gpus), *_placeholders(have), *_directml(machine, have, gpus)]
    checks += windows_advice(machine, gpus)
    return Section(title="Packages", checks=(*checks, _versions(have)))


def _versions(have: Mapping[str, Package]) -> Check:
    named = {name: package.version for name, package in have.items()}
    found = ", ".join(f"{name} {version}" for name, version in named.items())
    return Check(name="Versions", status="note", found=found or "none of those linne uses", details={"versions": named})


def _torchvision(have: Mapping[str, Package]) -> list[Check]:
    torch, vision = have.get("torch"), have.get("torchvision")
    if torch is None or vision is None:
        return []
    name, both = "torch, torchvision", f"torch {torch.version} and torchvision {vision.version}"
    why = "torchvision's operators are compiled for one torch; with another they are missing or end the program"
    first, second = _family(torch.tag), _family(vision.tag)
    answer = _vision_answer(torch, vision)
    fix = _fitting_torchvision(torch)
    if first and second and first != second:
        found = f"torch is built for {torch.tag} and torchvision for {vision.tag}"
        # Its CPU build runs on any torch, but for the operators that would be on the GPU.
        status: Status = "warning" if second == "cpu" else "bad"
        return [Check(name=name, status=status, found=found, why=why, fix=fix)]
    details = {"reason": answer.reason, "source": answer.source, "source_date": answer.source_date}
    if answer.verdict == "no":
        found = f"{both} are no pair: {answer.reason}"
        return [Check(name=name, status="bad", found=found, why=why, fix=fix, details=details)]
    status = "good" if answer.verdict == "yes" else "unknown"
    found = f"{both} go together" if status == "good" else f"{both}: {answer.reason}"
    return [Check(name=name, status=status, found=found, details=details)]


def _fitting_torchvision(torch: Package) -> str:
    """Return how to install the torchvision of this torch, or a new pair where none is known; both of one index."""
    pair = torch_and_torchvision(torch.version, "0").goes_with
    which = f'"torchvision=={pair[0]}.*"' if pair else "torch torchvision"
    # ROCm's wheels are tagged as `rocm7.2.0.git1`, and their index as `rocm7.2`.
    tag = re.match(r"(cpu|xpu|cu\d+|rocm\d+\.\d+)", torch.tag)
    return "pip uninstall -y torchvision\n" + advice.install_torchvision(which, tag[1] if tag else "")


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
            if asked is None or other is None or _has_its_own_check(package.name, other.name):
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


def _has_its_own_check(package: str, asked: str) -> bool:
    return (package, asked) == ("torchvision", "torch") or package == "torch-directml"


def _onnxruntime(machine: Machine, have: Mapping[str, Package], gpus: Sequence[Gpu]) -> list[Check]:
    there = [name for name in _ONE_MODULE if name in have]
    ended = _table("onnxruntime_directml")
    if len(there) > 1:
        # All files of the first go with it, so whichever is kept has to be installed again.
        suited = "onnxruntime-migraphx" if any(gpu.vendor == AMD for gpu in gpus) else "onnxruntime-gpu"
        others = [name for name in there if name != "onnxruntime"]
        keep = suited if suited in there else others[0]
        why = "they write the same files over each other: which providers there are is chance, often the CPU alone"
        fix = f"pip uninstall -y {' '.join(there)}\npip install {keep}"
        found = f"{' and '.join(there)} are installed together"
        return [Check(name="ONNX Runtime", status="bad", found=found, why=why, fix=fix, details={"packages": there})]
    if machine.system == "Windows" and "onnxruntime-directml" in there:
        found = f"onnxruntime-directml ends with {ended['last']}; Windows ML goes on, with DirectML among its providers"
        fix = f"pip uninstall -y onnxruntime-directml\n{SERVE_WITH}"
        details = {"source": ended["source"], "source_date": ended["source_date"]}
        return [Check(name="ONNX Runtime", status="note", found=found, fix=fix, details=details)]
    return []


def _placeholders(have: Mapping[str, Package]) -> list[Check]:
    table = _table("placeholders")
    return [
        Check(
            name=name,
            status="warning",
            found=f"{name} {version} is a placeholder without any code",
            why="AMD reserved the name on PyPI; the real package comes from AMD",
            fix=f"pip uninstall -y {name}\nand install AMD's: https://rocm.docs.amd.com/projects/AMDMIGraphX",
            details={"source": table["source"], "source_date": table["source_date"]},
        )
        for name, version in table["versions"].items()
        if name in have and have[name].version == version
    ]


def _directml(machine: Machine, have: Mapping[str, Package], gpus: Sequence[Gpu]) -> list[Check]:
    package = have.get("torch-directml")
    if package is None:
        return []
    name, torch = "torch-directml", have["torch"].version if "torch" in have else None
    answer = torch_and_directml(torch, package.version)
    pinned = answer.goes_with[0] if answer.goes_with else None
    details = {"torch": pinned, "source": answer.source, "source_date": answer.source_date}
    if machine.system != "Windows" and not (machine.system == "Linux" and machine.exists("dev/dxg")):
        why = "torch-directml needs Windows, or Linux inside it (WSL), and fails to import anywhere else"
        found, fix = f"{package.version} outside of Windows", "pip uninstall -y torch-directml"
        return [Check(name=name, status="bad", found=found, why=why, fix=fix, details=details)]
    if answer.verdict == "no":
        found = f"{package.version} goes with torch {pinned} alone, and {torch or 'none'} is there"
        why = "it is compiled for that one, and does not load with another"
        fix = advice.install_directml(machine)
        return [Check(name=name, status="bad", found=found, why=why, fix=fix, details=details)]
    status: Status = "note" if answer.verdict == "yes" else "unknown"
    found = f"{package.version}; it trains in float32 alone, and Microsoft maintains it no longer"
    gpu = best_gpu(gpus)
    other = advice.install_torch(machine, gpu, replace=False) if gpu else ""
    fix = f"in another environment, the build of torch for this {gpu.vendor} GPU:\n{other}" if gpu and other else ""
    return [Check(name=name, status=status, found=found, fix=fix, details=details)]


def _table(name: str) -> dict[str, Any]:
    text = files("linne.doctor").joinpath("data", "packages.json").read_text("utf-8")
    return dict(json.loads(text)[name])
