"""One graphics processor as it was found, and how two findings of it become one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from linne.doctor.compatibility import products

AMD, NVIDIA, INTEL, APPLE = "AMD", "NVIDIA", "Intel", "Apple"
VENDORS = {0x1002: AMD, 0x10DE: NVIDIA, 0x8086: INTEL}

_BUS_ID = re.compile(r"([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-9a-f])", re.ASCII | re.IGNORECASE)
_GFX = re.compile(r"gfx[0-9a-f]{3,5}", re.ASCII)
_NOTHING = ("", "n/a", "none", "unknown", "not supported")


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """A GPU; None where nothing said it.

    `arch` is `gfx942` or `sm_90`; `bus_id` is `0000:c1:00.0` and `device` its vendor's number for it; `driver` is the
    version of the driver and `module` the kernel module bound to the GPU; `shared_bytes` are what it may take of the
    machine's memory; `partitions` is above 1 where one GPU is
    split into many (CPX mode of MI300); `evidence` says which files and tools it comes from.
    """

    vendor: str
    name: str | None = None
    arch: str | None = None
    bus_id: str | None = None
    device: int | None = None
    memory_bytes: int | None = None
    shared_bytes: int | None = None
    driver: str | None = None
    module: str | None = None
    partitions: int = 1
    evidence: tuple[str, ...] = ()


def as_bus_id(text: str | None) -> str | None:
    """Return a PCI address as `0000:c1:00.0`; None where `text` is none. NVIDIA writes eight digits of domain."""
    found = _BUS_ID.fullmatch(text.strip()) if text else None
    if found is None:
        return None
    domain, bus, device, function = (int(part, 16) for part in found.groups())
    return f"{domain:04x}:{bus:02x}:{device:02x}.{function:x}"


def as_gfx(value: object) -> str | None:
    """Return AMD's name of an architecture, such as `gfx90a`; None for what is none, `gfx0` and `N/A` too."""
    return value if isinstance(value, str) and _GFX.fullmatch(value) else None


def as_word(value: object) -> str | None:
    """Return a printable text that says something; None for `N/A` and its like."""
    if not isinstance(value, str) or value.strip().strip("[]").lower() in _NOTHING:
        return None
    return "".join(char for char in value.strip()[:200] if char.isprintable()) or None


def best_gpu(gpus: Sequence[Gpu]) -> Gpu | None:
    """Return the GPU to compute on: NVIDIA's before AMD's before Intel's, the largest of them."""
    order = (NVIDIA, AMD, INTEL, APPLE)
    return min(gpus, key=lambda gpu: (order.index(gpu.vendor), -(gpu.memory_bytes or 0)), default=None)


def is_integrated(gpu: Gpu) -> bool:
    """Return whether a GPU is known for a processor's own graphics, which use the machine's memory."""
    if gpu.vendor == AMD:
        return any(word in products(gpu.arch or "") for word in ("Ryzen", "iGPU"))
    # Where every processor of Intel has its own.
    return gpu.vendor == INTEL and gpu.bus_id in (None, "0000:00:02.0")


def join(first: Gpu, second: Gpu) -> Gpu:
    """Return `first` with what only `second` knows, and the evidence of both."""
    filled = {
        field: getattr(second, field)
        for field in ("name", "arch", "bus_id", "device", "memory_bytes", "shared_bytes", "driver", "module")
        if getattr(first, field) is None
    }
    return dataclasses.replace(
        first,
        partitions=max(first.partitions, second.partitions),
        evidence=tuple(dict.fromkeys((*first.evidence, *second.evidence))),
        **filled,
    )


def merge(known: Iterable[Gpu], told: Iterable[Gpu]) -> list[Gpu]:
    """Return `known` completed by `told`, GPU by GPU of one PCI address, with those only `told` has.

    Where a tool gives no address its order is not trusted (tools and runtimes count differently): one GPU of a vendor
    on both sides is one GPU, and of more than one those that are known stand as they are.
    """
    gpus, told = list(known), list(told)
    before = {vendor: [gpu for gpu in gpus if gpu.vendor == vendor] for vendor in VENDORS.values()}
    for gpu in told:
        same_vendor = before.get(gpu.vendor, [])
        alone = len(same_vendor) == 1 and sum(other.vendor == gpu.vendor for other in told) == 1
        nowhere = gpu.bus_id is None or any(other.bus_id is None for other in same_vendor)
        match = next((i for i, other in enumerate(gpus) if gpu.bus_id and other.bus_id == gpu.bus_id), None)
        if match is None and alone and nowhere:
            match = gpus.index(same_vendor[0])
        if match is not None:
            gpus[match] = join(gpus[match], gpu)
        elif gpu.bus_id or not same_vendor:
            gpus.append(gpu)
    return gpus
