"""Whether each ROCm user space of a machine, installed or inside torch's wheel, goes with its amdgpu driver."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from linne.doctor.compatibility import Verdict, rocm_and_driver
from linne.doctor.report import Check, Status

if TYPE_CHECKING:
    from linne.doctor.machine import Machine

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


def _check(machine: Machine, name: str, version: str) -> Check:
    driver = machine.read_text("sys/module/amdgpu/version")
    answer = rocm_and_driver(version, driver)
    return Check(
        name=name,
        status=_STATUS[answer.verdict],
        found=f"ROCm {version}, driver {driver or 'without a version of its own'}: {answer.reason}",
        why="" if answer.verdict == "yes" else "a driver too far from the user space can fail or compute wrongly",
        fix=f"install a driver that goes with it: {_MATRIX}" if answer.verdict == "no" else "",
        details={
            "rocm": version,
            "driver": driver,
            "goes_with": list(answer.goes_with),
            "source": answer.source,
            "source_date": answer.source_date,
        },
    )
