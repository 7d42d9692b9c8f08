"""GPUs as the vendors' tools print them; None where the text cannot be read, `()` where it says there are none.

No text raises: tools change their words and JSON between releases, write warnings before it, and stop half-way.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from linne.doctor.gpu import AMD, APPLE, INTEL, NVIDIA, VENDORS, Gpu, as_bus_id, as_gfx, as_word
from linne.doctor.machine import Machine, Ran
from linne.doctor.sysfs import as_int, as_size

Parser = Callable[[str], tuple[Gpu, ...] | None]

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_UNITS = {"B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30}
"""AMD writes MB for mebibytes: 196592 MB are the 192 GiB of an MI300X."""
_NO_GPU = (
    "ROCk module is NOT loaded",
    "Driver not initialized",
    "Drivers not loaded",
    "couldn't communicate with the NVIDIA driver",
    "No devices were found",
)
"""What tools print where there is no driver or no GPU, whatever their exit code."""
_NVIDIA_FIELDS = "name,pci.bus_id,memory.total,driver_version"
_WINDOWS_ADAPTERS = (
    "Get-CimInstance Win32_VideoController | Select-Object Name,PNPDeviceID,DriverVersion | ConvertTo-Json"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What a tool said: its GPUs, None where its answer cannot be read, and then what it printed instead."""

    gpus: tuple[Gpu, ...] | None
    said: str = ""


def gpus_of_tools(machine: Machine) -> dict[str, Told]:
    """Return what each tool in the path says, by its name."""
    asked: tuple[tuple[str, tuple[tuple[str, ...], ...], Parser], ...] = (
        ("amd-smi", (("static", "--json"), ("static",)), amd_smi),
        ("rocm-smi", (("--showproductname", "--showmeminfo", "vram", "--showbus", "--json"),), rocm_smi),
        ("rocminfo", ((),), rocminfo),
        (
            "nvidia-smi",
            tuple(
                (f"--query-gpu={fields}", "--format=csv,noheader,nounits")
                for fields in (f"{_NVIDIA_FIELDS},compute_cap", _NVIDIA_FIELDS)  # old drivers know no compute_cap
            ),
            nvidia_smi,
        ),
        ("xpu-smi", (("discovery", "-j"),), xpu_smi),
        ("system_profiler", (("SPDisplaysDataType", "-json"),), system_profiler),
        # Linux inside Windows reaches Windows's own programs, unless that was switched off.
        ("powershell.exe", (("-NoProfile", "-NonInteractive", "-Command", _WINDOWS_ADAPTERS),), windows_adapters),
    )
    found = {}
    for tool, commands, parse in asked:
        if machine.find_tool(tool) is not None:
            found[tool] = _first_answer(machine, tool, commands, parse)
    return found


def _first_answer(machine: Machine, tool: str, commands: tuple[tuple[str, ...], ...], parse: Parser) -> Told:
    said = ""
    for arguments in commands:
        ran = machine.run(tool, *arguments)
        if ran is None:
            break
        # The exit code is not asked: rocm-smi ends with 0 on an error and others fail after a full answer.
        gpus = parse(ran.stdout)
        if gpus is None and any(words in ran.stdout + ran.stderr for words in _NO_GPU):
            gpus = ()
        if gpus is not None:
            return Told(gpus=gpus)
        said = _said(ran)
        if ran.code is None:
            break  # it hung: asking again takes as long
    return Told(gpus=None, said=said)


def _said(ran: Ran) -> str:
    """Return the line that says most: the first of stdout, else the last of stderr, where a traceback has its error."""
    for lines, place in ((ran.stdout.splitlines(), 0), (ran.stderr.splitlines(), -1)):
        printed = [line.strip() for line in lines if line.strip()]
        if printed:
            return _ANSI.sub("", printed[place])[:200]
    return f"nothing, with exit code {ran.code}"


def json_after_noise(text: str) -> dict[str, Any] | list[Any] | None:
    """Return the first whole JSON object or list that starts a line; None where there is none."""
    decoder = json.JSONDecoder()
    for start in re.finditer(r"^[\[{]", text, re.MULTILINE):
        try:
            found = decoder.raw_decode(text, start.start())[0]
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) or (isinstance(found, list) and all(isinstance(item, dict) for item in found)):
            return found
    return None


def amd_smi(text: str) -> tuple[Gpu, ...] | None:
    """Return the GPUs of `amd-smi static`, in JSON (a list up to ROCm 6.4, `gpu_data` since 7) or as text."""
    found = json_after_noise(text)
    records = found.get("gpu_data") if isinstance(found, dict) else found
    if records is None:
        records = _amd_smi_text(text)
    if not isinstance(records, list) or not records:
        return None
    gpus = tuple(_amd_smi_gpu(record) for record in records if isinstance(record, dict) and "asic" in record)
    return gpus or None


def _amd_smi_gpu(record: Mapping[str, Any]) -> Gpu:
    asic, bus = _mapping(record.get("asic")), _mapping(record.get("bus"))
    driver, vram = _mapping(record.get("driver")), _mapping(record.get("vram"))
    return Gpu(
        vendor=AMD,
        name=as_word(asic.get("market_name")),
        arch=as_gfx(asic.get("target_graphics_version")),
        bus_id=as_bus_id(as_word(bus.get("bdf"))),
        memory_bytes=_amount(vram.get("size")),
        driver=as_word(driver.get("version")),
        evidence=("amd-smi static",),
    )


def _amd_smi_text(text: str) -> list[dict[str, Any]] | None:
    """Return the records of `amd-smi static` as text, with the keys of its JSON."""
    records: list[dict[str, Any]] = []
    group: dict[str, Any] | None = None
    for line in _whole_lines(text):
        key, colon, value = line.strip().partition(":")
        if not colon:
            continue
        depth = len(line) - len(line.lstrip(" "))
        if key == "GPU" and depth == 0:
            records.append({})
            group = None
        elif depth == 4 and not value.strip() and records:
            group = records[-1].setdefault(key.lower(), {})
        elif depth == 8 and group is not None:
            group[key.lower()] = value.strip()
    return records or None


def rocm_smi(text: str) -> tuple[Gpu, ...] | None:
    """Return the GPUs of `rocm-smi`, in JSON, CSV or the text of `--showproductname`."""
    found = json_after_noise(text)
    if isinstance(found, dict):
        cards = {name: card for name, card in found.items() if re.fullmatch(r"card\d+", name, re.ASCII)}
    else:
        cards = _rocm_smi_csv(text) or _rocm_smi_text(text)
    system = _mapping(found.get("system")) if isinstance(found, dict) else {}
    driver = as_word(system.get("Driver version"))
    gpus = tuple(_rocm_smi_gpu(card, driver) for card in cards.values() if isinstance(card, dict) and card)
    return gpus or None


def _rocm_smi_gpu(card: Mapping[str, Any], driver: str | None) -> Gpu:
    facts = {str(key).lower().rstrip(":"): value for key, value in card.items()}
    # Old releases print a number where they know no name.
    names = (as_word(facts.get(key)) for key in ("card series", "card model"))
    return Gpu(
        vendor=AMD,
        name=next((name for name in names if name and as_int(name) is None), None),
        arch=as_gfx(facts.get("gfx version")),
        bus_id=as_bus_id(as_word(facts.get("pci bus"))),
        memory_bytes=as_size(facts.get("vram total memory (b)")),
        driver=driver,
        evidence=("rocm-smi",),
    )


def _rocm_smi_csv(text: str) -> dict[str, dict[str, Any]]:
    lines = _whole_lines(text)
    start = next((i for i, line in enumerate(lines) if line.startswith("device,")), None)
    if start is None:
        return {}
    try:
        rows = [row for row in csv.DictReader(lines[start:]) if None not in row and None not in row.values()]
    except csv.Error:
        return {}
    return {row["device"]: row for row in rows if row["device"].startswith("card")}


def _rocm_smi_text(text: str) -> dict[str, dict[str, Any]]:
    cards: dict[str, dict[str, Any]] = {}
    for line in _whole_lines(text):
        found = re.match(r"GPU\[(\d+)\]\s*: ([^:]+):\s*(.*)", line, re.ASCII)
        if found:
            cards.setdefault(found[1], {})[found[2]] = found[3].strip()
    return cards


def rocminfo(text: str) -> tuple[Gpu, ...] | None:
    """Return the GPUs among the agents `rocminfo` lists."""
    if any(words in text for words in _NO_GPU):
        return ()
    lines = [_ANSI.sub("", line).strip().rstrip("\\") for line in _whole_lines(text)]
    agents: list[list[tuple[str, str]]] = []
    for line in lines:
        key, colon, value = line.partition(":")
        if re.fullmatch(r"Agent \d+", line, re.ASCII):
            agents.append([])
        elif colon and agents:
            agents[-1].append((key.strip(), value.strip()))
    if not agents:
        return None
    return tuple(_rocminfo_gpu(agent) for agent in agents if ("Device Type", "GPU") in agent)


def _rocminfo_gpu(agent: list[tuple[str, str]]) -> Gpu:
    first = dict(reversed(agent))  # the first of each key is the agent's own; later ones are its pools' and ISA's
    location = as_int(first.get("BDFID"))
    sizes, is_global = [], False
    for key, value in agent:
        if key == "Segment":
            is_global = value.startswith("GLOBAL")
        elif key == "Size" and is_global and (kib := as_size(value.partition("(")[0])):
            sizes.append(kib * 2**10)
    return Gpu(
        vendor=AMD,
        name=as_word(first.get("Marketing Name")),
        arch=as_gfx(first.get("Name")),
        bus_id=_location(location, as_int(first.get("Domain")) or 0),
        memory_bytes=as_size(max(sizes, default=0)),
        evidence=("rocminfo",),
    )


def _location(location: int | None, domain: int) -> str | None:
    if location is None or location > 0xFFFF or domain > 0xFFFF:
        return None
    return f"{domain:04x}:{location >> 8:02x}:{location >> 3 & 31:02x}.{location & 7:x}"


def nvidia_smi(text: str) -> tuple[Gpu, ...] | None:
    """Return the GPUs of `nvidia-smi --query-gpu`: name, address, MiB, driver and, from new ones, capability."""
    gpus = []
    for line in _whole_lines(text):
        parts = [part.strip() for part in line.split(",")]
        if len(parts) not in (4, 5) or as_bus_id(parts[1]) is None:
            continue
        mib = as_size(parts[2])
        capability = re.fullmatch(r"(\d{1,2})\.(\d)", parts[4], re.ASCII) if len(parts) == 5 else None
        gpus.append(
            Gpu(
                vendor=NVIDIA,
                name=as_word(parts[0]),
                arch=f"sm_{capability[1]}{capability[2]}" if capability else None,
                bus_id=as_bus_id(parts[1]),
                memory_bytes=mib * 2**20 if mib else None,
                driver=as_word(parts[3]),
                evidence=("nvidia-smi",),
            )
        )
    return tuple(gpus) or None


def xpu_smi(text: str) -> tuple[Gpu, ...] | None:
    """Return the GPUs of `xpu-smi discovery -j`."""
    found = json_after_noise(text)
    devices = found.get("device_list") if isinstance(found, dict) else None
    if not isinstance(devices, list):
        return None
    return tuple(
        Gpu(
            vendor=INTEL,
            name=as_word(device.get("device_name")),
            bus_id=as_bus_id(as_word(device.get("pci_bdf_address"))),
            evidence=("xpu-smi discovery",),
        )
        for device in devices
        if isinstance(device, dict)
    )


def system_profiler(text: str) -> tuple[Gpu, ...] | None:
    """Return the GPUs of macOS's `system_profiler SPDisplaysDataType -json`."""
    found = json_after_noise(text)
    displays = found.get("SPDisplaysDataType") if isinstance(found, dict) else None
    if not isinstance(displays, list):
        return None
    vendors = {"apple": APPLE, "amd": AMD, "intel": INTEL, "nvidia": NVIDIA}
    gpus = []
    for display in filter(_mapping, displays):
        words = as_word(display.get("spdisplays_vendor")) or ""
        vendor = next((name for word, name in vendors.items() if word in words.lower()), None)
        if vendor is not None:
            name = as_word(display.get("sppci_model")) or as_word(display.get("_name"))
            gpus.append(Gpu(vendor=vendor, name=name, evidence=("system_profiler",)))
    return tuple(gpus)


def windows_adapters(text: str) -> tuple[Gpu, ...] | None:
    """Return the GPUs of Windows's `Win32_VideoController`: one object for one, a list for more.

    Its memory is left out: it is a 32-bit number, which ends at 4 GiB.
    """
    found = json_after_noise(text)
    if found is None:
        return None
    gpus = []
    for adapter in found if isinstance(found, list) else [found]:
        # Adapters of virtual machines and remote desktops are no PCI devices.
        pci = re.match(r"PCI\\VEN_([0-9A-F]{4})&DEV_([0-9A-F]{4})", str(adapter.get("PNPDeviceID")), re.ASCII)
        vendor = VENDORS.get(int(pci[1], 16)) if pci else None
        if pci and vendor:
            name, device = as_word(adapter.get("Name")), int(pci[2], 16)
            # The basic adapter drives any screen, and computes on none.
            driver = None if name and "Basic" in name else as_word(adapter.get("DriverVersion"))
            # What NVIDIA calls 580.88 is 32.0.15.8088 to Windows.
            if vendor == NVIDIA and driver and (digits := driver.replace(".", ""))[-5:].isdecimal() and len(digits) > 5:
                driver = f"{digits[-5:-2]}.{digits[-2:]}"
            gpus.append(Gpu(vendor=vendor, name=name, device=device, driver=driver, evidence=("Windows",)))
    return tuple(gpus)


def _whole_lines(text: str) -> list[str]:
    """Return the lines that end: the last of a text cut short would read as another name or a smaller number."""
    return text.split("\n")[:-1]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _amount(value: object) -> int | None:
    """Return bytes from `{"value": 16, "unit": "MB"}` or `16 MB`; None for a number without a unit."""
    if isinstance(value, str):
        value = dict(zip(("value", "unit"), value.split(), strict=False))
    facts = _mapping(value)
    number, unit = as_size(facts.get("value")), facts.get("unit")
    scale = _UNITS.get(unit) if isinstance(unit, str) else None
    return number * scale if number and scale else None
