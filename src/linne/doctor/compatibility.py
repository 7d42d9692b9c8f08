"""Which versions go together, from dated tables in `doctor/data`; what they do not hold is unknown, never wrong.

Every answer carries the source and date of the row it came from. Vendors' tables lag behind what they release, so
anything newer than the newest row is `unknown`, and only what a published rule excludes is `no`.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any, Literal

Verdict = Literal["yes", "no", "unknown"]

_RULE_SINCE = (6, 4)
"""ROCm 6.4 replaced "two releases either way" by "a year either way"; dates of releases are not in the table."""

_GENERIC_GFX = {
    "gfx9-generic": ("gfx900", "gfx902", "gfx904", "gfx906", "gfx909", "gfx90c"),
    "gfx9-4-generic": ("gfx940", "gfx941", "gfx942", "gfx950"),
    "gfx10-1-generic": ("gfx1010", "gfx1011", "gfx1012", "gfx1013"),
    "gfx10-3-generic": ("gfx1030", "gfx1031", "gfx1032", "gfx1033", "gfx1034", "gfx1035", "gfx1036"),
    "gfx11-generic": ("gfx1100", "gfx1101", "gfx1102", "gfx1103", "gfx1150", "gfx1151", "gfx1152", "gfx1153"),
    "gfx12-generic": ("gfx1200", "gfx1201"),
}
"""The processors that code for a generic target runs on; https://llvm.org/docs/AMDGPUUsage.html, "Generic targets"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """Whether two things go together, why, what does go with the first, and where that is written."""

    verdict: Verdict
    reason: str
    goes_with: tuple[str, ...] = ()
    source: str = ""
    source_date: str = ""


def numbers(version: str | None) -> tuple[int, ...] | None:
    """Return the release numbers a version starts with: `2.9.1+rocm6.4` is (2, 9, 1); None where it has none."""
    found = re.match(r"\s*v?(\d{1,9}(?:\.\d{1,9})*)", version or "")
    return tuple(int(part) for part in found[1].split(".")) if found else None


def driver_release(reported: str) -> str | None:
    """Return the release (`6.4`, `30.30`) of an amdgpu driver from what the machine calls it; None where it is unclear.

    The kernel module numbers itself apart from the release it came in: 6.2.4 is the module of ROCm 5.7, not of
    6.2.4. Only numbers seen in both forms are translated. The packages name both: 6.12.12.60401 is release 6.4.1.
    """
    parts = numbers(reported)
    if parts is None:
        return None
    if len(parts) == 4 and (release := _packed_release(parts[3])):
        return release
    known = _json("amdgpu_driver.json")["module_versions"].get(".".join(map(str, parts[:3])))
    if known and "-" not in reported:
        return str(known["release"])
    # Kernels stay far below 30 and carry a suffix; the driver's own line of numbers begins at 30.10.
    return f"{parts[0]}.{parts[1]}" if len(parts) > 1 and parts[0] >= 30 else None


def rocm_and_driver(user_space: str | None, driver: str | None, *, is_release: bool = False) -> Answer:
    """Return whether ROCm's user space and the amdgpu driver are a pair that AMD tested or a rule of AMD's excludes.

    `driver` is what the machine reports, as in `/sys/module/amdgpu/version`; `is_release` says it is a release.
    """
    table = _json("amdgpu_driver.json")
    dated = _dated(table)
    rocm = numbers(user_space)
    if rocm is None or len(rocm) < 2:
        return replace(dated, verdict="unknown", reason="the version of the ROCm user space could not be read")
    if not driver:
        return replace(
            dated,
            verdict="unknown",
            reason="the amdgpu driver names no version, as drivers that come with the Linux kernel do",
        )
    release = numbers(driver if is_release else driver_release(driver))
    if release is None or len(release) < 2:
        reason = f"the amdgpu driver calls itself `{driver}`, which names no release: it may be the Linux kernel's own"
        return replace(dated, verdict="unknown", reason=reason)
    return _pair(rocm, release)


def _pair(rocm: tuple[int, ...], release: tuple[int, ...]) -> Answer:
    row, tested = _tested_drivers(rocm)
    table = _json("amdgpu_driver.json")
    for driver, spaces in table["driver_to_user_space"].items():
        if f"{rocm[0]}.{rocm[1]}.x" in spaces and driver not in tested:
            tested = (*tested, driver)
    dated = _dated(row if row and row["amdgpu_driver"] else table, tested)
    name = f"ROCm {_dotted(rocm[:2])} and driver {_dotted(release[:2])}"
    if any(_same_minor(driver, release) for driver in tested):
        return replace(dated, verdict="yes", reason=f"{name} are a pair that AMD lists")
    if rocm[:2] > _newest_rocm()[:2]:
        return replace(dated, verdict="unknown", reason=f"ROCm {_dotted(rocm[:2])} is newer than the table")
    if _too_far(rocm[:2], release[:2]):
        reason = f"{name} are more than two releases apart, which AMD does not support before ROCm 6.4"
        return replace(dated, verdict="no", reason=reason)
    return replace(dated, verdict="unknown", reason=f"{name} are no pair that AMD lists, which may still work")


def rocm_of_driver(driver: str | None) -> tuple[str, ...]:
    """Return the releases of ROCm's user space that AMD lists for an amdgpu driver, as `6.4`; none where unknown."""
    release = numbers(driver_release(driver or ""))
    table: Mapping[str, Sequence[str]] = _json("amdgpu_driver.json")["driver_to_user_space"]
    spaces = next((spaces for name, spaces in table.items() if release and _same_minor(name, release)), ())
    return tuple(_dotted((numbers(space) or ())[:2]) for space in spaces)


def rocm_and_framework(rocm: str | None, framework: str, version: str | None) -> Answer:
    """Return whether AMD lists a framework's version for a release of ROCm.

    `framework` is `torch`, `tensorflow`, `jax`, `onnxruntime` or `migraphx`. A version newer than those listed is
    unknown: frameworks publish wheels for releases of ROCm whose rows were written before them.
    """
    asked, wanted = numbers(rocm), numbers(version)
    if asked is None or len(asked) < 2 or wanted is None or len(wanted) < 2:
        return Answer(verdict="unknown", reason=f"the version of ROCm or of {framework} could not be read")
    newest = _newest_rocm()
    rows = _rocm_rows(asked)
    if not rows:
        where = "newer than the table" if asked[:2] > newest[:2] else "not in the table"
        return replace(_dated(_rows()[0]), reason=f"ROCm {_dotted(asked)} is {where}")
    listed = tuple(dict.fromkeys(item for row in rows for item in _items(row.get(framework, ""))))
    dated = _dated(rows[0], listed)
    name = f"{framework} {_dotted(wanted)} with ROCm {_dotted(asked)}"
    if not listed:
        return replace(dated, reason=f"the table does not hold {framework} for ROCm {_dotted(asked)}")
    if any(_same_minor(item, wanted) for item in listed):
        return replace(dated, verdict="yes", reason=f"AMD lists {name}")
    if wanted[:2] > max((numbers(item) or ())[:2] for item in listed):
        return replace(dated, verdict="unknown", reason=f"{name}: {framework} is newer than the table's row")
    return replace(dated, verdict="no", reason=f"AMD does not list {name}")


def cuda_and_driver(cuda: str | None, driver: str | None) -> Answer:
    """Return whether an NVIDIA driver is new enough for the CUDA version that a wheel was built with."""
    table = _json("packages.json")["cuda_driver"]
    dated = _dated(table)
    built, found = numbers(cuda), numbers(driver)
    if built is None or found is None:
        return replace(dated, verdict="unknown", reason="the version of CUDA or of the driver could not be read")
    least = table["least_driver_by_cuda_major"].get(str(built[0]))
    if least is None:
        return replace(dated, verdict="unknown", reason=f"CUDA {built[0]} is not in the table")
    fits = found[0] >= int(least)
    reason = f"CUDA {built[0]} needs driver {least} or newer, and this is {driver}"
    return replace(dated, verdict="yes" if fits else "no", reason=reason, goes_with=(f">={least}",))


def newest_cuda_for(driver: str | None) -> str:
    """Return the newest major version of CUDA whose wheels an NVIDIA driver runs, empty where there is none."""
    found = numbers(driver)
    least = _json("packages.json")["cuda_driver"]["least_driver_by_cuda_major"]
    fitting = [major for major, oldest in least.items() if found and found[0] >= int(oldest)]
    return max(fitting, key=int, default="")


def arch_in_wheel(arch: str | None, arch_list: Sequence[str]) -> Answer:
    """Return whether a wheel built for `arch_list` (`torch.cuda.get_arch_list()`) holds code for a GPU.

    `arch` is as `gfx90a:sramecc+:xnack-` or `sm_89`. AMD's code runs on the processor it names and generic code on
    its family; NVIDIA's runs on the same major number from its minor on, and `compute_` code on anything newer.
    """
    listed = tuple(arch_list)
    base = (arch or "").split(":")[0].strip().lower()
    if not listed or not re.fullmatch(r"gfx[0-9a-f]{3,5}|sm_\d{2,3}[af]?", base):
        return Answer(verdict="unknown", reason="the architecture of the GPU or the wheel's list could not be read")
    name = f"{base} ({products(base)})" if products(base) else base
    if base.startswith("gfx"):
        plain = [item.split(":")[0] for item in listed]
        fits = base in plain or any(base in _GENERIC_GFX.get(item, ()) for item in plain)
    else:
        fits = any(_runs_on_nvidia(item, base) for item in listed)
    reason = f"the wheel {'holds' if fits else 'has no'} code for {name}"
    return Answer(verdict="yes" if fits else "no", reason=reason, goes_with=listed, source="the wheel's own list")


def _runs_on_nvidia(item: str, base: str) -> bool:
    found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", item)
    wanted = re.fullmatch(r"sm_(\d+)(\d)[af]?", base)
    if found is None or wanted is None:
        return False
    built, gpu = (int(found[2]), int(found[3])), (int(wanted[1]), int(wanted[2]))
    if found[4] == "a":  # `sm_90a`: instructions of that one processor
        return built == gpu
    return gpu >= built and ((found[1] == "compute" and not found[4]) or gpu[0] == built[0])


def products(arch: str) -> str:
    """Return examples of products with an AMD architecture, empty where none is known."""
    return next((row["products"] for row in _csv("gfx_targets.csv") if row["gfx"] == arch), "")


def directml_row(version: str) -> dict[str, str] | None:
    """Return what a version of torch-directml goes with: `torch`, `torchvision`, `pythons`, and where it is written."""
    return next((row for row in _csv("torch_directml.csv") if row["torch_directml"] == version), None)


def torch_index(kind: str, system: str, word: str = "") -> str | None:
    """Return where the build of torch for a kind of device is, `PyPI` or an address; None where there is none.

    Of many the first that holds `word`, as the table has them by their age.
    """
    rows = (row for row in _csv("torch_builds.csv") if row["kind"] == kind and system in row["system"].split(", "))
    return next((row["index"] for row in rows if word in row["index"]), None)


def torch_and_torchvision(torch: str | None, torchvision: str | None) -> Answer:
    """Return whether two versions are of the pairs that torchvision publishes."""
    table = _json("packages.json")["torchvision"]
    dated = _dated(table)
    first, second = numbers(torch), numbers(torchvision)
    if first is None or second is None:
        return replace(dated, reason="the version of torch or torchvision could not be read")
    goes = table["torch_to_torchvision"].get(_dotted(first[:2]))
    if goes is None:
        return replace(dated, verdict="unknown", reason=f"torch {_dotted(first[:2])} is not in the table of pairs")
    reason = f"torch {_dotted(first[:2])} goes with torchvision {goes}"
    return replace(dated, verdict="yes" if _same_minor(goes, second) else "no", reason=reason, goes_with=(goes,))


def torch_and_directml(torch: str | None, directml: str) -> Answer:
    """Return whether torch is the one that a torch-directml was compiled for; a torch that is missing is not."""
    row = directml_row(directml)
    if row is None:
        dated = _dated(_csv("torch_directml.csv")[0])
        return replace(dated, reason=f"torch-directml {directml} is not in the table")
    fits, reason = numbers(torch) == numbers(row["torch"]), f"torch-directml {directml} goes with torch {row['torch']}"
    return replace(_dated(row, (row["torch"],)), verdict="yes" if fits else "no", reason=reason)


def _dated(row: Mapping[str, Any], goes_with: tuple[str, ...] = ()) -> Answer:
    """Return an answer with a row's source and date, whose verdict and reason are still to be set."""
    source, date = str(row["source"]), str(row["source_date"])
    return Answer(verdict="unknown", reason="", goes_with=goes_with, source=source, source_date=date)


def _packed_release(number: int) -> str | None:
    """Return the release in the last number of a driver package: 60401 is 6.4, 30300400 is 30.30."""
    text = str(number)
    if len(text) == 5:
        return f"{int(text[0])}.{int(text[1:3])}"
    return f"{int(text[:2])}.{int(text[2:4])}" if len(text) == 8 else None


def _tested_drivers(rocm: tuple[int, ...]) -> tuple[dict[str, str] | None, tuple[str, ...]]:
    rows = _rocm_rows(rocm)
    return (rows[0] if rows else None), tuple(dict.fromkeys(d for row in rows for d in _items(row["amdgpu_driver"])))


def _too_far(rocm: tuple[int, ...], release: tuple[int, ...]) -> bool:
    """Return whether both are in the published range of the older rule, and more than two releases apart."""
    order = sorted({(numbers(row["rocm"]) or ())[:2] for row in _rows()})
    if rocm >= _RULE_SINCE or rocm not in order or release not in order:
        return False
    return abs(order.index(rocm) - order.index(release)) > 2


def _rocm_rows(rocm: tuple[int, ...]) -> list[dict[str, str]]:
    """Return the row of exactly this release, else all of its minor release: HIP's third number is a build."""
    rows = _rows()
    exact = [row for row in rows if row["rocm"] == _dotted(rocm)]
    return exact or [row for row in rows if (numbers(row["rocm"]) or ())[:2] == rocm[:2]]


def _newest_rocm() -> tuple[int, ...]:
    return max(numbers(row["rocm"]) or () for row in _rows())


def _same_minor(listed: str, wanted: tuple[int, ...]) -> bool:
    return (numbers(listed) or ())[:2] == wanted[:2]


def _dotted(parts: Sequence[int]) -> str:
    return ".".join(map(str, parts))


def _items(cell: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in cell.split(",") if item.strip() not in ("", "N/A"))


def _rows() -> list[dict[str, str]]:
    return _csv("rocm_frameworks.csv")


def _csv(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(_text(name).splitlines()))


def _json(name: str) -> dict[str, Any]:
    return dict(json.loads(_text(name)))


def _text(name: str) -> str:
    return files("linne.doctor").joinpath("data", name).read_text("utf-8")
