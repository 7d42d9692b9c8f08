"""GPUs as AMD's own Python package tells them, asked in a child; its library may be missing, raise or crash."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linne.child import Heard, first_event, listen
from linne.doctor.gpu import AMD, Gpu, as_bus_id, as_gfx, as_word, join
from linne.doctor.report import Check
from linne.doctor.sysfs import as_int, as_size

if TYPE_CHECKING:
    from linne.doctor.machine import Machine

_FOLDERS = ("opt/rocm/share/amd_smi", "usr/share/amd_smi")
"""Where ROCm and Debian put the package, for every Python of the machine."""
_NO_DRIVER = "AMDSMI_STATUS_DRIVER_NOT_LOADED"
_LIMIT_S = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class LibraryAnswer:
    """The GPUs that AMD's package told, and what kept it from telling all: empty where nothing did."""

    gpus: tuple[Gpu, ...]
    trouble: str = ""


def ask_amd_library(machine: Machine, *, limit_s: float = _LIMIT_S) -> LibraryAnswer | None:
    """Return what AMD's package tells of `machine`; None where there is no such package, or nothing may be started."""
    if machine.system != "Linux" or not machine.path:
        return None
    folders = [machine.root / folder for folder in _FOLDERS if machine.exists(folder)]
    # A machine that a test built has no part in what this Python has installed.
    here = machine.root == Path("/") and importlib.util.find_spec("amdsmi") is not None
    if not folders and not here:
        return None
    words = [word for folder in folders for word in ("--folder", str(folder))]
    command = (*machine.child("linne.doctor.probe_amdsmi"), *words)
    return read_answer(listen(command, environ=machine.environ, limit_s=limit_s))


def read_answer(heard: Heard) -> LibraryAnswer:
    """Return the answer in what the child reported, whatever that is."""
    gpus: dict[tuple[int, int], Gpu] = {}
    for number, event in enumerate(event for event in heard.events if event["linne"] == "gpu"):
        serial = as_int(_mapping(event.get("asic")).get("asic_serial"))
        gpu, key = _gpu(event), (serial, 0) if serial else (0, number)
        if other := gpus.get(key):
            # The parts of a GPU in CPX mode are processors to the package, all with the serial number of the whole.
            gpu = replace(join(other, gpu), partitions=other.partitions + 1, memory_bytes=None)
        gpus[key] = gpu
    failed = first_event(heard, "failed")
    raised = str(failed.get("raised")) if failed is not None else ""
    if _NO_DRIVER in raised:
        return LibraryAnswer(gpus=())  # it answers: there is none
    if not raised and first_event(heard, "end") is None:
        raised = f"{heard.how} {heard.said}".strip()
    return LibraryAnswer(gpus=tuple(gpus.values()), trouble=raised)


def library_check(answer: LibraryAnswer, gpus: Sequence[Gpu]) -> list[Check]:
    """Return a check where AMD's package told less than all: of weight only where there is a GPU of AMD's."""
    if not answer.trouble:
        return []
    needed = any(gpu.vendor == AMD for gpu in gpus)
    return [
        Check(
            name="amdsmi",
            status="unknown" if needed else "note",
            found=f"AMD's Python package does not answer: `{answer.trouble}`",
            why="it names the GPU and its memory; the facts above come from elsewhere where there are any",
            fix="see what it says: python -m linne.doctor.probe_amdsmi" if needed else "",
            details={"raised": answer.trouble},
        )
    ]


def _gpu(event: Mapping[str, Any]) -> Gpu:
    asic, vram, driver = (_mapping(event.get(name)) for name in ("asic", "vram", "driver"))
    bdf = event.get("bdf")
    # Mebibytes; ROCm 6.0 called it `vram_size_mb`.
    mib = as_size(vram.get("vram_size", vram.get("vram_size_mb")))
    return Gpu(
        vendor=AMD,
        name=as_word(asic.get("market_name")),
        arch=as_gfx(asic.get("target_graphics_version")),
        bus_id=as_bus_id(bdf) if isinstance(bdf, str) else None,
        memory_bytes=as_size(mib * 2**20) if mib else None,
        driver=as_word(driver.get("driver_version")),
        evidence=("amdsmi",),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
