"""Whether the installed torch was built for what this machine has, by its metadata alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from linne.doctor import advice
from linne.doctor.compatibility import (
    Answer,
    cuda_and_driver,
    newest_cuda_for,
    numbers,
    rocm_and_framework,
    torch_and_directml,
)
from linne.doctor.gpu import AMD, APPLE, INTEL, NVIDIA, Gpu, best_gpu, is_integrated
from linne.doctor.installed import Package
from linne.doctor.report import Check, Status
from linne.host import nvidia_driver_version

if TYPE_CHECKING:
    from linne.doctor.machine import Machine

NAME = "PyTorch"
_USES = {"cuda": NVIDIA, "rocm": AMD, "xpu": INTEL}


def torch_check(machine: Machine, have: Mapping[str, Package], gpus: Sequence[Gpu]) -> Check:
    """Return what torch was built for, whether this machine has it, and which build would use the machine."""
    torch, gpus = have.get("torch"), _with_assumed(machine, gpus)
    if torch is None:
        return _no_torch(machine, gpus)
    kind, built = built_for(torch)
    details: dict[str, Any] = {"version": torch.version, "for": kind}
    if machine.system == "Darwin":
        found = f"{torch.version}, built for macOS, whose GPU it uses through Metal"
        return Check(name=NAME, status="good", found=found, details=details)
    if not kind:
        found = f"{torch.version}, built for something it does not say"
        return Check(name=NAME, status="unknown", found=found, details=details)
    whats = {"cuda": f"CUDA {built}", "rocm": f"ROCm {_release(built)}", "xpu": "Intel GPUs"}
    said = f"{torch.version}, built for {whats.get(kind, 'CPUs')}"
    if kind == "cpu" and "torch-directml" in have and _suits_directml(torch, have["torch-directml"]):
        found = f"{said}; torch-directml brings the GPU to it"
        return Check(name=NAME, status="good", found=found, details=details)
    if kind == "cuda" and _nvidia_driver(machine, gpus)[0]:
        return _with_driver(machine, said, built, gpus, details | {"cuda": built})
    if kind == "rocm" and (answer := rocm_and_framework(built, "torch", torch.version)).verdict == "no":
        return _unlisted(said, answer, details | {"rocm": built})
    if any(gpu.vendor == _USES.get(kind) for gpu in gpus):
        return Check(name=NAME, status="good", found=f"{said}, as this machine's GPU needs", details=details)
    return _not_for_this(machine, said, kind, gpus, details)


def built_for(torch: Package) -> tuple[str, str | None]:
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


def _no_torch(machine: Machine, gpus: Sequence[Gpu]) -> Check:
    # Before linne: what linne asks for, pip takes from PyPI, where there is one build a system.
    gpu = best_gpu([gpu for gpu in gpus if _meant_for_computing(machine, gpu)])
    first = advice.install_torch(machine, gpu, replace=False) if gpu or _sees_all(machine) else ""
    return Check(
        name=NAME,
        status="note",
        found="not installed",
        why="training needs it; reading data, bundles and reports does not",
        fix=f'{first}\npip install "linne[train]"'.strip(),
        details={"version": None},
    )


def _with_driver(
    machine: Machine, said: str, cuda: str | None, gpus: Sequence[Gpu], details: Mapping[str, Any]
) -> Check:
    driver = _nvidia_driver(machine, gpus)[1]
    answer = cuda_and_driver(cuda, driver)
    details = {**details, **_facts(answer), "driver": driver}
    if answer.verdict != "no":
        status: Status = "good" if answer.verdict == "yes" else "unknown"
        found = f"{said}, with driver {driver or 'of unknown version'}"
        return Check(name=NAME, status=status, found=found, details=details)
    least = answer.goes_with[0].removeprefix(">=")
    update = advice.install_nvidia_driver(machine, least)
    older = newest_cuda_for(driver)
    gpu = next((gpu for gpu in gpus if gpu.vendor == NVIDIA), Gpu(vendor=NVIDIA, driver=driver))
    instead = advice.install_torch(machine, gpu, replace=True) if older else ""
    return Check(
        name=NAME,
        status="bad",
        found=f"{said}, which needs driver {least} or newer; this is {driver}",
        why="torch finds no GPU through a driver older than its CUDA, and runs on the CPU",
        fix=f"{instead}\nor, to keep this build, update the driver to {least} or newer:\n{update}"
        if instead
        else update,
        details=details,
    )


def _unlisted(said: str, answer: Answer, details: Mapping[str, Any]) -> Check:
    return Check(
        name=NAME,
        status="warning",
        found=f"{said}: {answer.reason}",
        why=f"nobody at AMD tested the two together ({answer.source}, {answer.source_date}); the proof below decides",
        fix=f"if it fails below, install torch {' or '.join(answer.goes_with)} for this ROCm",
        details={**details, **_facts(answer), "listed": list(answer.goes_with)},
    )


def _not_for_this(machine: Machine, said: str, kind: str, gpus: Sequence[Gpu], details: Mapping[str, Any]) -> Check:
    gpu = best_gpu(gpus)
    if gpu is None:
        return _no_gpu(machine, said, kind, details)
    return Check(
        name=NAME,
        status="warning" if _meant_for_computing(machine, gpu) else "note",
        found=f"{said}, and cannot use this machine's {gpu.vendor} GPU",
        why="torch runs on the CPU with it",
        fix=advice.install_torch(machine, gpu, replace=True),
        details=details,
    )


def _no_gpu(machine: Machine, said: str, kind: str, details: Mapping[str, Any]) -> Check:
    if kind == "cpu":
        return Check(name=NAME, status="good", found=said, details=details)
    if kind != "cuda" and not _sees_all(machine):
        found = f"{said}; whether there is a GPU for it could not be seen"
        return Check(name=NAME, status="unknown", found=found, why="the proof below says", details=details)
    missing = "no NVIDIA driver" if kind == "cuda" else ""
    missing += (" and no GPU" if missing else "no GPU") if _sees_all(machine) else ""
    return Check(
        name=NAME,
        status="note",
        found=f"{said}; {missing} is present, so it runs on the CPU",
        why="it works; the build for CPUs is gigabytes smaller",
        fix=advice.install_torch(machine, None, replace=True),
        details=details,
    )


def _with_assumed(machine: Machine, gpus: Sequence[Gpu]) -> Sequence[Gpu]:
    """Return the GPUs with those that only a driver speaks for, as where a container hides the files."""
    vendors = {gpu.vendor for gpu in gpus}
    present, version = _nvidia_driver(machine, gpus)
    nvidia = [Gpu(vendor=NVIDIA, driver=version)] if present and NVIDIA not in vendors else []
    amd = [Gpu(vendor=AMD)] if machine.exists("dev/kfd") and AMD not in vendors else []
    return [*gpus, *nvidia, *amd]


def _suits_directml(torch: Package, directml: Package) -> bool:
    return torch_and_directml(torch.version, directml.version).verdict == "yes"


def _sees_all(machine: Machine) -> bool:
    """Return whether all GPUs are seen: only on Linux do files show them, and not those that Windows passes on."""
    return machine.system == "Linux" and not machine.exists("dev/dxg")


def _meant_for_computing(machine: Machine, gpu: Gpu) -> bool:
    """Return whether somebody wants to compute on it: most processors hold small graphics as well."""
    if gpu.vendor == AMD:
        return machine.exists("dev/kfd")
    return gpu.vendor in (NVIDIA, APPLE) or not is_integrated(gpu)


def _release(hip: str | None) -> str:
    """Return `7.2` of HIP's `7.2.26015-fc0010cf6a`: its third number is a build's."""
    return ".".join(map(str, (numbers(hip) or ())[:2])) or "a version it does not say"


def _facts(answer: Answer) -> dict[str, str]:
    return {"reason": answer.reason, "source": answer.source, "source_date": answer.source_date}


def _nvidia_driver(machine: Machine, gpus: Sequence[Gpu]) -> tuple[bool, str | None]:
    """Return whether an NVIDIA driver is there, and its version where it says so."""
    told = next((gpu.driver for gpu in gpus if gpu.vendor == NVIDIA and gpu.driver), None)
    version = nvidia_driver_version(machine.root) or told
    # WSL, Jetson and Windows have no /proc/driver/nvidia.
    there = (
        "proc/driver/nvidia/version",
        "usr/lib/wsl/lib/libcuda.so.1",
        "dev/nvhost-gpu",
        "Windows/System32/nvcuda.dll",
    )
    return version is not None or any(machine.exists(path) for path in there), version
