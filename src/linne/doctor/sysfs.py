"""GPUs as the Linux kernel shows them in files: KFD topology, PCI, DRM and NVIDIA's folder in /proc; no tool is run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from linne.doctor.gpu import AMD, NVIDIA, VENDORS, Gpu, as_bus_id, join, merge
from linne.doctor.machine import Machine
from linne.host import amdgpu_driver_version, gfx_of, nvidia_driver_version

_KFD = "sys/class/kfd/kfd/topology/nodes"
_LARGEST = 2**63
"""Numbers beyond are damage: the kernel's own sentinels are near 2**64."""
_LARGEST_LIST = 8 << 20
"""The list of PCI devices has 1.5 MB."""


def gpus_of_files(machine: Machine) -> list[Gpu]:
    """Return the GPUs the files of the kernel show, those of the KFD topology first."""
    found = merge(_kfd_gpus(machine), _pci_gpus(machine))
    found = merge(found, _drm_gpus(machine, found))
    found = merge(found, _nvidia_gpus(machine))
    drivers = {AMD: amdgpu_driver_version(machine.root), NVIDIA: nvidia_driver_version(machine.root)}
    return [replace(gpu, driver=gpu.driver or drivers.get(gpu.vendor)) for gpu in found]


def properties(text: str | None) -> dict[str, int]:
    """Return the `key number` lines of a KFD file, leaving out lines that are none."""
    found = {}
    for line in (text or "").splitlines():
        match line.split():
            case [key, value] if (number := as_int(value)) is not None:
                found[key] = number
    return found


def as_int(text: object) -> int | None:
    """Return a whole number of 0 and above, decimal or 0x; None where `text` (such as `N/A`) is none."""
    if isinstance(text, bool) or not isinstance(text, str | int):
        return None
    try:
        number = int(str(text)[:40].strip(), 0)
    except ValueError:
        return None
    return number if number >= 0 else None


def as_size(text: object) -> int | None:
    """Return a number of bytes; None where it is none, nothing or absurd."""
    number = as_int(text)
    return number if number and number < _LARGEST else None


def pci_name(machine: Machine, vendor: int, device: int | None) -> str | None:
    """Return what the list of PCI devices calls a device; None where the machine has no list or it is not in it."""
    if device is None:
        return None
    for path in ("usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids"):
        _, _, after = f"\n{machine.read_text(path, _LARGEST_LIST) or ''}".partition(f"\n{vendor:04x}  ")
        # Its devices are the indented lines up to the next vendor.
        own = re.split(r"\n(?=[0-9a-fA-F]{4}  )", after, maxsplit=1)[0]
        if found := re.search(rf"^\t{device:04x}  (.*)$", own, re.MULTILINE):
            return found[1].strip()[:200] or None
    return None


def kfd_gpu(node: Mapping[str, int], banks: Sequence[Mapping[str, int]], evidence: str) -> Gpu | None:
    """Return the GPU of one node of the KFD topology; None where the node is a processor."""
    if not node.get("simd_count"):
        return None
    location, domain = node.get("location_id", 0), node.get("domain", 0)
    bus_id = f"{domain & 0xFFFF:04x}:{location >> 8 & 0xFF:02x}:{location >> 3 & 31:02x}.{location & 7:x}"
    in_banks = sum(bank.get("size_in_bytes", 0) for bank in banks if bank.get("heap_type") in (1, 2))
    return Gpu(
        vendor=VENDORS.get(node.get("vendor_id", 0x1002), AMD),
        arch=gfx_of(node.get("gfx_target_version", 0)),
        bus_id=bus_id,
        device=node.get("device_id"),
        memory_bytes=as_size(node.get("local_mem_size", 0)) or as_size(in_banks),
        evidence=(evidence,),
    )


def _kfd_gpus(machine: Machine) -> list[Gpu]:
    """Return the GPUs of the topology, one for all nodes of a GPU in CPX mode."""
    gpus: dict[tuple[int, str | None], Gpu] = {}
    for folder in machine.paths(f"{_KFD}/*"):
        here = folder.relative_to(machine.root).as_posix()
        node = properties(machine.read_text(f"{here}/properties"))
        banks = [properties(_text(machine, file)) for file in machine.paths(f"{here}/mem_banks/*/properties")]
        gpu = kfd_gpu(node, banks, f"/{here}")
        if gpu is None:
            continue
        unique = node.get("unique_id", 0)
        key = (unique, None if unique else gpu.bus_id)
        if other := gpus.get(key):
            # The nodes of one GPU may each tell the whole memory or their share, so that no sum is right.
            gpu = replace(join(other, gpu), partitions=other.partitions + 1, memory_bytes=None)
        gpus[key] = gpu
    return list(gpus.values())


def _pci_gpus(machine: Machine) -> list[Gpu]:
    gpus = []
    for folder in machine.paths("sys/bus/pci/devices/*"):
        kind = as_int(_text(machine, folder / "class")) or 0
        gpu = _of_device(machine, folder, as_bus_id(folder.name))
        # MI200 and later are processing accelerators (0x12) to PCI, and so are Intel's neural processors.
        if gpu and (kind >> 16 == 0x03 or (kind >> 16 == 0x12 and gpu.vendor == AMD)):
            gpus.append(gpu)
    return gpus


def _drm_gpus(machine: Machine, known: list[Gpu]) -> list[Gpu]:
    gpus = []
    for folder in machine.paths("sys/class/drm/card*/device"):
        if not folder.parent.name[4:].isdigit():
            continue  # card0-HDMI-A-1 is a socket
        try:
            bus_id = as_bus_id(folder.resolve().name)
        except (OSError, RuntimeError):
            bus_id = None
        gpu = _of_device(machine, folder, bus_id)
        if gpu and (bus_id or not any(other.vendor == gpu.vendor for other in known)):
            gpus.append(gpu)
    return gpus


def _of_device(machine: Machine, folder: Path, bus_id: str | None) -> Gpu | None:
    vendor = VENDORS.get(as_int(_text(machine, folder / "vendor")) or 0)
    if vendor is None:
        return None
    try:
        module = (folder / "driver").resolve().name if (folder / "driver").exists() else None
    except (OSError, RuntimeError):
        module = None
    return Gpu(
        vendor=vendor,
        name=_text(machine, folder / "product_name") or None,
        bus_id=bus_id,
        device=as_int(_text(machine, folder / "device")),
        memory_bytes=as_size(_text(machine, folder / "mem_info_vram_total")),
        shared_bytes=as_size(_text(machine, folder / "mem_info_gtt_total")),
        module=module,
        evidence=(f"/{folder.relative_to(machine.root).as_posix()}",),
    )


def _nvidia_gpus(machine: Machine) -> list[Gpu]:
    gpus = []
    for file in machine.paths("proc/driver/nvidia/gpus/*/information"):
        lines = (line.partition(":") for line in (_text(machine, file) or "").splitlines())
        facts = {key.strip(): value.strip() for key, _, value in lines}
        gpus.append(
            Gpu(
                vendor=NVIDIA,
                name=facts.get("Model") or None,
                bus_id=as_bus_id(facts.get("Bus Location")) or as_bus_id(file.parent.name),
                module="nvidia",
                evidence=(f"/{file.relative_to(machine.root).as_posix()}",),
            )
        )
    return gpus


def _text(machine: Machine, file: Path) -> str | None:
    return machine.read_text(file.relative_to(machine.root).as_posix())
