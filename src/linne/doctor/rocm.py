"""Whether each ROCm of a machine, installed or in torch's wheel, goes with its driver and the other frameworks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from linne.doctor.compatibility import Verdict, rocm_and_driver, rocm_and_framework, rocm_of_driver
from linne.doctor.report import Check, Status

if TYPE_CHECKING:
    from linne.doctor.installed import Package
    from linne.doctor.machine import Machine

_FRAMEWORKS = {
    "tensorflow-rocm": ("tensorflow", "tensorflow-rocm"),
    "onnxruntime-rocm": ("onnxruntime", "onnxruntime-rocm"),
    "onnxruntime-migraphx": ("onnxruntime", "onnxruntime-migraphx"),
    **dict.fromkeys(("jax-rocm60-plugin", "jax-rocm7-plugin", "jax-rocm10-plugin"), ("jax", "jax")),
}
"""The packages that use ROCm as the machine has it: what AMD's table calls them, and the package of that version."""

_MATRIX = "https://rocm.docs.amd.com/projects/install-on-linux/en/latest/reference/user-kernel-space-compat-matrix.html"

# Never bad: AMD's list is of what was tested, and pairs outside it have been seen to work.
_STATUS: dict[Verdict, Status] = {"yes": "good", "no": "warning", "unknown": "unknown"}


def rocm_checks(machine: Machine, torch_hip: str | None = None) -> tuple[Check, ...]:
    """Return a check for each ROCm user space there is; `torch_hip` is the version of HIP in torch's wheel."""
    if machine.system != "Linux" or not machine.exists("sys/module/amdgpu"):
        return ()  # without the driver there is no pair; that it is missing is said elsewhere
    spaces = (("ROCm and driver", rocm_installed(machine)), ("torch's ROCm and driver", torch_hip))
    return tuple(_check(machine, name, version) for name, version in spaces if version)


def rocm_installed(machine: Machine) -> str | None:
    """Return the version of the ROCm user space under `$ROCM_PATH` or `/opt/rocm`; None where there is none."""
    stated = machine.environ.get("ROCM_PATH", "")
    for folder in dict.fromkeys([*([stated] if stated.startswith("/") else []), "/opt/rocm"]):
        text = machine.read_text(f"{folder}/.info/version")
        # As `6.4.0-47`; the number of the build says nothing about what goes together.
        if text and (found := re.match(r"\d+(\.\d+)+", text)):
            return found[0]
    # Without the file, the newest folder named after its version.
    named = [path.name.removeprefix("rocm-") for path in machine.paths("opt/rocm-*")]
    versions = [name for name in named if re.fullmatch(r"\d{1,4}(\.\d{1,4})+", name)]
    return max(versions, key=lambda name: [int(part) for part in name.split(".")], default=None)


def framework_checks(machine: Machine, have: Mapping[str, Package]) -> list[Check]:
    """Return whether AMD lists the frameworks but torch, whose wheel brings its own ROCm, for that of the machine."""
    rocm = rocm_installed(machine)
    if rocm is None:
        return []
    checks = []
    for package, (framework, versioned) in _FRAMEWORKS.items():
        if package not in have or versioned not in have:
            continue
        version = have[versioned].version
        answer = rocm_and_framework(rocm, framework, version)
        listed = f"install one that AMD lists for it: {' or '.join(answer.goes_with)}"
        checks.append(
            Check(
                name=f"{package} and ROCm",
                status=_STATUS[answer.verdict],
                found=f"{versioned} {version} with ROCm {rocm}: {answer.reason}",
                why=""
                if answer.verdict == "yes"
                else "it is compiled for some releases of ROCm, and fails with others",
                fix=listed if answer.verdict == "no" else "",
                details={
                    "rocm": rocm,
                    "version": version,
                    "goes_with": list(answer.goes_with),
                    "source": answer.source,
                    "source_date": answer.source_date,
                },
            )
        )
    return checks


def _check(machine: Machine, name: str, version: str) -> Check:
    driver = machine.read_text("sys/module/amdgpu/version")
    answer = rocm_and_driver(version, driver)
    details = {
        "rocm": version,
        "driver": driver,
        "goes_with": list(answer.goes_with),
        "source": answer.source,
        "source_date": answer.source_date,
    }
    if not driver:
        found = "the driver is the kernel's own, without a version to compare; the proof below decides"
        return Check(name=name, status="note", found=found, details=details)
    return Check(
        name=name,
        status=_STATUS[answer.verdict],
        found=answer.reason,
        why="" if answer.verdict == "yes" else "a driver too far from the user space can fail or compute wrongly",
        fix=_fix(driver) if answer.verdict == "no" else "",
        details=details,
    )


def _fix(driver: str) -> str:
    spaces = rocm_of_driver(driver)
    suited = f" ({spaces[0]} to {spaces[-1]})" if spaces else ""
    return f"install a ROCm that goes with this driver{suited}, or another driver: {_MATRIX}"
