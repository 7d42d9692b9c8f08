"""What machines have in common: distributions, PCI devices, KFD topologies from captures, wheels of torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from machines.build import Wheel

CAPTURES = Path(__file__).parents[1] / "fixtures" / "captures"
VIDEO, RENDER = 44, 992
NODES = {"kfd": RENDER, "renderD": RENDER, "card": VIDEO}
"""The groups of AMD's and Intel's device nodes, as systemd's rules set them."""

PCI_IDS = """\
#	List of PCI ID's
1002  Advanced Micro Devices, Inc. [AMD/ATI]
	740f  Aldebaran/MI200 [Instinct MI210]
	744c  Navi 31 [Radeon RX 7900 XT/7900 XTX]
		1002 0e3b  RX 7900 GRE [XFX]
10de  NVIDIA Corporation
	2204  GA102 [GeForce RTX 3090]
	2684  AD102 [GeForce RTX 4090]
8086  Intel Corporation
	56a0  DG2 [Arc A770]
"""
"""A few lines of https://pci-ids.ucw.cz (2023.04.11)."""


def linux(
    name: str, kernel: str, *, os_id: str, like: str = "", gib: int = 64, members: str = "", pci_ids: bool = True
) -> dict[str, str]:
    """Return the files of a distribution; `members` are of the group `render`."""
    like_line = f"ID_LIKE={like}\n" if like else ""
    files = {
        "etc/os-release": f'PRETTY_NAME="{name}"\nNAME="{name.split()[0]}"\nID={os_id}\n{like_line}',
        "etc/group": f"root:x:0:\nvideo:x:{VIDEO}:\nrender:x:{RENDER}:{members}\nada:x:1000:\n",
        "proc/sys/kernel/osrelease": f"{kernel}\n",
        "proc/meminfo": f"MemTotal:       {gib << 20} kB\nMemFree:        1048576 kB\n"
        f"MemAvailable:   {gib * 7 // 8 << 20} kB\n",
    }
    return files | ({"usr/share/misc/pci.ids": PCI_IDS} if pci_ids else {})


def ubuntu(**options: object) -> dict[str, str]:
    """Return the files of Ubuntu 24.04."""
    return linux("Ubuntu 24.04.3 LTS", "6.8.0-85-generic", os_id="ubuntu", like="debian", **options)  # type: ignore[arg-type]


def pci(address: str, vendor: str, device: str, kind: str = "0x030000", **files: str) -> dict[str, str]:
    """Return the files of a PCI device; `pci_links` makes them appear where the kernel shows them."""
    folder = f"sys/devices/pci0000:00/{address}"
    own = {"vendor": vendor, "device": device, "class": kind, **files}
    return {f"{folder}/{name}": f"{text}\n" for name, text in own.items()}


def pci_links(address: str, driver: str = "", card: int | None = None) -> dict[str, str]:
    """Return the links to a PCI device: on the bus, to the driver it is bound to, and of its DRM card."""
    links = {f"sys/bus/pci/devices/{address}": f"../../../devices/pci0000:00/{address}"}
    if driver:
        links[f"sys/devices/pci0000:00/{address}/driver"] = f"../../../bus/pci/drivers/{driver}"
    if card is not None:
        links[f"sys/class/drm/card{card}"] = f"../../devices/pci0000:00/{address}/drm/card{card}"
        links[f"sys/devices/pci0000:00/{address}/drm/card{card}/device"] = "../../../" + address
    return links


def drivers(*names: str) -> dict[str, str]:
    """Return the folders of kernel modules that drive PCI devices."""
    return {f"sys/bus/pci/drivers/{name}/uevent": "" for name in names}


def topology(capture: str, nodes: Mapping[int, int] | None = None, **changed: int) -> dict[str, str]:
    """Return the files of a captured KFD topology: all of it, or `nodes` by their new numbers, with values changed."""
    text = (CAPTURES / capture).read_text("utf-8")
    parts = re.split(r"^== .*?nodes/(\d+)/(.*)\n", text, flags=re.MULTILINE)[1:]
    files = {}
    for number, name, values in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        new = int(number) if nodes is None else (nodes or {}).get(int(number))
        if new is None:
            continue
        if name == "properties" and "\nsimd_count 0\n" not in values:
            for key, value in changed.items():
                values = re.sub(rf"^{key} \d+$", f"{key} {value}", values, flags=re.MULTILINE)
        files[f"sys/devices/virtual/kfd/kfd/topology/nodes/{new}/{name}"] = values
    return files


KFD_LINK = {"sys/class/kfd/kfd": "../../devices/virtual/kfd/kfd"}


def bank(node: int, size_bytes: int) -> dict[str, str]:
    """Return the memory of a node of the KFD topology."""
    text = f"heap_type 1\nsize_in_bytes {size_bytes}\nflags 0\nwidth 8192\nmem_clk_max 1300\n"
    return {f"sys/devices/virtual/kfd/kfd/topology/nodes/{node}/mem_banks/0/properties": text}


def torch_wheels(
    version: str, vision: str, asks: str, *, cuda: str = "", hip: str = "", xpu: str = "", vision_tag: str | None = None
) -> tuple[Wheel, ...]:
    """Return torch and torchvision with the `version.py` of each; `asks` is what torchvision asks of torch."""
    tag = version.partition("+")[2]
    said = [
        f"{name}: Optional[str] = {repr(value) if value else None}"
        for name, value in (("cuda", cuda), ("hip", hip), ("rocm", hip), ("xpu", xpu))
    ]
    text = "\n".join(["from typing import Optional", "", f"__version__ = '{version}'", "debug = False", *said]) + "\n"
    vision_tag = tag if vision_tag is None else vision_tag
    vision = f"{vision}+{vision_tag}" if vision_tag else vision
    vision_text = f"__version__ = '{vision}'\n"
    return (
        Wheel(name="torch", version=version, version_py=text),
        Wheel(name="torchvision", version=vision, requires=("numpy", asks), version_py=vision_text),
    )


PLAIN = (
    Wheel(name="linne", version="0.1.0"),
    Wheel(name="numpy", version="2.4.6"),
    Wheel(name="pillow", version="13.0.0", requires=()),
)
TRAIN = (*PLAIN, Wheel(name="timm", version="1.0.31", requires=("torch", "torchvision")))
