"""Machines with GPUs of AMD."""

from __future__ import annotations

import json
import re

from machines.build import Answer, Spec, Wheel
from machines.children import ABSENT, NO_TORCH, cpu_proofs, onnxruntime, proof, proofs
from machines.parts import (
    CAPTURES,
    KFD_LINK,
    NODES,
    PLAIN,
    TRAIN,
    bank,
    drivers,
    linux,
    pci,
    pci_links,
    topology,
    torch_wheels,
    ubuntu,
)

AMDGPU = {**drivers("amdgpu"), "sys/module/amdgpu/refcnt": "0\n"}
DKMS = {"sys/module/amdgpu/version": "6.16.13\n"}
"""The driver of AMD's own packages says its version, that of the kernel does not."""
NODE_FILES = {"dev/kfd": "", "dev/dri/card1": "", "dev/dri/renderD128": ""}

MI300X_PCI = pci(
    "0000:05:00.0",
    "0x1002",
    "0x74a1",
    "0x120000",
    mem_info_vram_total="206141652992",
    product_name="AMD Instinct MI300X OAM",
)
# The captured machine is split (CPX); whole, a GPU is one node of eight dies.
MI300X_NODE = topology("kfd_topology_mi300_cpx_first8.txt", {0: 0, 1: 1, 2: 2}, simd_count=1216, num_xcc=8) | bank(
    2, 206141652992
)
MI300X_SMI = {
    "gpu_data": [
        {
            "gpu": 0,
            "asic": {"market_name": "AMD Instinct MI300X OAM", "target_graphics_version": "gfx942"},
            "bus": {"bdf": "0000:05:00.0"},
            "driver": {"name": "amdgpu", "version": "6.16.13"},
            "vram": {"type": "HBM", "vendor": "N/A", "size": {"value": 196592, "unit": "MB"}},
        }
    ]
}
MI300X = {"kind": "rocm", "name": "AMD Instinct MI300X", "torch_device": "cuda:0", "torch": "2.9.1+rocm7.2.0"}
PCIE5 = {"to": 55.3, "back": 54.8, "within": 3810.0}

MI300X_GOOD = Spec(
    title="MI300X whose driver, ROCm and frameworks go together",
    files=ubuntu(gib=2048)
    | AMDGPU
    | DKMS
    | NODE_FILES
    | MI300X_PCI
    | MI300X_NODE
    | {"opt/rocm/.info/version": "7.2.0-43\n"},
    links=KFD_LINK | pci_links("0000:05:00.0", "amdgpu", 1),
    tools={"amd-smi": {"static --json": Answer(stdout=json.dumps(MI300X_SMI, indent=4) + "\n")}},
    groups=NODES,
    wheels=(
        *TRAIN,
        *torch_wheels("2.9.1+rocm7.2.0", "0.24.1", "torch (==2.9.1)", hip="7.2.26015-fc0010cf6a"),
        Wheel(name="onnxruntime-migraphx", version="1.23.2"),
    ),
    children=proofs(
        "auto",
        fp32=proof("fp32", MI300X, tflops=112.4, copy_gbs=PCIE5),
        bf16=proof("bf16", MI300X, tflops=641.0, copy_gbs=PCIE5),
        fp16=proof("fp16", MI300X, tflops=655.2, copy_gbs=PCIE5),
    )
    | onnxruntime("1.23.2", ("MIGraphX", "CPU")),
)

BROKEN_SMI = """\
Traceback (most recent call last):
  File "/opt/rocm/bin/amd-smi", line 33, in <module>
    from amdsmi_init import *
ModuleNotFoundError: No module named 'amdsmi'
"""
OLD_MI300X = MI300X | {"torch": "2.8.0+rocm6.4"}
_crash = Answer(
    signal="SEGV", stderr="MIOpen(HIP): Warning [IsEnoughWorkspace] [EvaluateInvokers] Solver <GemmFwdRest>\n"
)

MI300X_BAD = Spec(
    title="MI300X with versions of four different years",
    files=ubuntu(gib=2048)
    | AMDGPU
    | NODE_FILES
    | MI300X_PCI
    | MI300X_NODE
    | {"opt/rocm/.info/version": "5.7.1-98\n", "sys/module/amdgpu/version": "6.12.12\n"},
    links=KFD_LINK | pci_links("0000:05:00.0", "amdgpu", 1),
    tools={"amd-smi": {"*": Answer(stderr=BROKEN_SMI, code=1)}},
    groups=NODES,
    wheels=(
        *TRAIN,
        *torch_wheels("2.8.0+rocm6.4", "0.22.1", "torch (==2.7.1)", hip="6.4.43482-0f2d60242", vision_tag="rocm6.3"),
        Wheel(name="onnxruntime", version="1.31.1"),
        Wheel(name="onnxruntime-migraphx", version="1.23.2"),
        Wheel(name="migraphx", version="0.0.1"),
    ),
    children=proofs(
        "auto",
        fp32=proof("fp32", OLD_MI300X, stops_in="convolution", end=_crash),
        bf16=proof("bf16", OLD_MI300X, stops_in="convolution", end=_crash),
        fp16=proof("fp16", OLD_MI300X, stops_in="convolution", end=_crash),
    )
    | onnxruntime("1.31.1", ("CPU",)),
)

_ROCMINFO = (CAPTURES / "rocm-blogs_rocprof_sysinfo_HIP_trace.txt").read_text("utf-8")
# The head, and the agents of both processors and two GPUs.
MI210_ROCMINFO = "".join(re.split(r"(?=\*{7}\s+\nAgent \d+)", _ROCMINFO)[:5])
MI210 = {"kind": "rocm", "name": "AMD Instinct MI210", "torch_device": "cuda:0", "torch": "2.9.1+rocm6.4"}
PCIE4 = {"to": 26.1, "back": 25.7, "within": 1180.0}

MI210_PAIR = Spec(
    title="two MI210, the first of which computes wrong numbers in bf16",
    files=ubuntu(gib=512)
    | AMDGPU
    | {"sys/module/amdgpu/version": "6.12.12\n", "opt/rocm/.info/version": "6.4.1-83\n"}
    | NODE_FILES
    | {"dev/dri/renderD129": ""}
    | topology("kfd_topology_mi210_xgmi_pcie.txt", {0: 0, 1: 1, 2: 2, 3: 3})
    | bank(2, 68702699520)
    | bank(3, 68702699520)
    | pci("0000:63:00.0", "0x1002", "0x740f", "0x038000", mem_info_vram_total="68702699520")
    | pci("0000:43:00.0", "0x1002", "0x740f", "0x038000", mem_info_vram_total="68702699520"),
    links=KFD_LINK | pci_links("0000:63:00.0", "amdgpu", 1) | pci_links("0000:43:00.0", "amdgpu", 2),
    tools={"rocminfo": {"": Answer(stdout=MI210_ROCMINFO)}},
    groups=NODES,
    wheels=(*TRAIN, *torch_wheels("2.9.1+rocm6.4", "0.24.1", "torch (==2.9.1)", hip="6.4.43484-123eb5128")),
    children=proofs(
        "auto",
        fp32=proof("fp32", MI210, tflops=33.8, copy_gbs=PCIE4),
        bf16=proof(
            "bf16",
            MI210,
            tflops=118.0,
            copy_gbs=PCIE4,
            changed={"attention": {"ok": False, "error": 0.71}, "layer norm": {"ok": False, "error": 0.094}},
        ),
        fp16=proof("fp16", MI210, tflops=121.5, copy_gbs=PCIE4),
    )
    | ABSENT,
)

PHOENIX = (CAPTURES / "amd-smi_list_and_static_text_780m_pve-mods-348.txt").read_text("utf-8")
PHOENIX_STATIC = PHOENIX[PHOENIX.index("# amd-smi static") :].partition("\n")[2]
_780M_NODE = topology(
    "kfd_topology_mi210_xgmi_pcie.txt",
    {0: 0, 2: 1},
    simd_count=24,
    simd_per_cu=2,
    gfx_target_version=110003,
    device_id=0x1900,
    location_id=0x6500,
    unique_id=0,
    hive_id=0,
)
_780M_AS_7900 = {"kind": "rocm", "name": "AMD Radeon 780M", "torch_device": "cuda:0", "torch": "2.9.1+rocm6.4"} | {
    "architecture": "gfx1100"
}
_780M = {"kind": "rocm", "name": "AMD Radeon 780M", "torch_device": "cuda:0", "torch": "2.9.1+rocm6.4"}

ROCM64 = ("gfx900", "gfx906", "gfx908", "gfx90a", "gfx942", "gfx1030", "gfx1100", "gfx1101", "gfx1200", "gfx1201")
"""What torch's wheel for ROCm 6.4 has code for."""

LAPTOP_780M = Spec(
    title="laptop with a 780M, disguised as another GPU for a torch without code for it",
    files=linux("Debian GNU/Linux 13 (trixie)", "7.0.14-17-pve", os_id="debian", gib=32, members="ada", pci_ids=False)
    | AMDGPU
    | NODE_FILES
    | _780M_NODE
    | pci("0000:65:00.0", "0x1002", "0x1900", mem_info_vram_total="4294967296"),
    links=KFD_LINK | pci_links("0000:65:00.0", "amdgpu", 1),
    tools={
        "amd-smi": {
            "static --json": Answer(stderr="usage: amd-smi [-h] ...\namd-smi: error: JSON output failed\n", code=2),
            "static": Answer(stdout=PHOENIX_STATIC),
        }
    },
    environ={"HSA_OVERRIDE_GFX_VERSION": "11.0.0"},
    groups=NODES,
    wheels=(*TRAIN, *torch_wheels("2.9.1+rocm6.4", "0.24.1", "torch (==2.9.1)", hip="6.4.43484-123eb5128")),
    children=proofs(
        "auto",
        fp32=proof("fp32", _780M_AS_7900, stops_in="training step", end=Answer(hangs=True), architectures=ROCM64),
    )
    | ABSENT,
    limit_s=0.5,
)

TENSILE = "rocBLAS error: Cannot read TensileLibrary.dat: Illegal seek for GPU arch : gfx1103\n"

LAPTOP_780M_PLAIN = Spec(
    title="the same laptop without the disguise: the wheel has no code for its GPU",
    files=LAPTOP_780M.files,
    links=LAPTOP_780M.links,
    tools=LAPTOP_780M.tools,
    groups=NODES,
    wheels=LAPTOP_780M.wheels,
    children=proofs(
        "auto",
        **{
            dtype: proof(
                dtype,
                _780M | {"architecture": "gfx1103"},
                stops_in="convolution",
                end=Answer(stderr=TENSILE, signal="ABRT"),
                architectures=ROCM64,
            )
            for dtype in ("fp32", "bf16", "fp16")
        },
    )
    | ABSENT,
)

_STRIX = (CAPTURES / "sysfs_drm_card0_amd_glances.txt").read_text("utf-8")
STRIX_FILES = dict(re.findall(r"^== (\S+)\n((?:(?!== ).*\n)+)", _STRIX, re.MULTILINE))
STRIX_SMI = {
    "gpu_data": [
        {
            "gpu": 0,
            "asic": {"market_name": "AMD Radeon 8060S Graphics", "target_graphics_version": "gfx1151", "oam_id": "N/A"},
            "bus": {"bdf": "0000:c6:00.0", "max_pcie_width": "N/A"},
            "driver": {"name": "amdgpu", "version": "6.17.8-300.fc43.x86_64"},
            "vram": {"type": "LPDDR5", "size": "N/A"},
        }
    ]
}
STRIX = {"kind": "rocm", "name": "AMD Radeon 8060S Graphics", "torch_device": "cuda:0", "torch": "2.15.0+rocm7.2"}

STRIX_HALO = Spec(
    title="Strix Halo, whose metrics are N/A, on the kernel's own driver",
    files=linux(
        "Fedora Linux 43 (Workstation Edition)", "6.17.8-300.fc43.x86_64", os_id="fedora", gib=32, pci_ids=False
    )
    | AMDGPU
    | NODE_FILES
    | topology(
        "kfd_topology_mi210_xgmi_pcie.txt",
        {0: 0, 2: 1},
        simd_count=80,
        simd_per_cu=2,
        gfx_target_version=110501,
        device_id=0x1586,
        location_id=0xC600,
        unique_id=0,
        hive_id=0,
    )
    | pci(
        "0000:c6:00.0",
        "0x1002",
        "0x1586",
        **{name: text.strip() for name, text in STRIX_FILES.items() if name != "device"},
    ),
    links=KFD_LINK | pci_links("0000:c6:00.0", "amdgpu", 1),
    tools={
        "amd-smi": {
            "static --json": Answer(stdout="WARNING: metrics are not supported\n" + json.dumps(STRIX_SMI) + "\n")
        }
    },
    groups=NODES,
    wheels=(*TRAIN, *torch_wheels("2.15.0+rocm7.2", "0.29.2", "torch (>=2.14.0)", hip="7.2.53211-158f6ff1a")),
    children=proofs(
        "auto",
        fp32=proof("fp32", STRIX, tflops=7.9, copy_gbs={"to": 41.0, "back": 38.2, "within": 201.0}),
        bf16=proof("bf16", STRIX, tflops=29.6, copy_gbs={"to": 41.0, "back": 38.2, "within": 201.0}),
        fp16=proof("fp16", STRIX, tflops=30.4, copy_gbs={"to": 41.0, "back": 38.2, "within": 201.0}),
    )
    | ABSENT,
)

_7900_SMI = (CAPTURES / "rocm-smi_json_rx7900xt_marimo-9237.json").read_text("utf-8")
_7900_FILES = (
    AMDGPU
    | NODE_FILES
    | topology(
        "kfd_topology_mi210_xgmi_pcie.txt",
        {0: 0, 2: 1},
        simd_count=168,
        simd_per_cu=2,
        gfx_target_version=110000,
        device_id=0x744C,
        location_id=0x300,
    )
    | bank(1, 21458059264)
    | pci("0000:03:00.0", "0x1002", "0x744c", mem_info_vram_total="21458059264")
)

RX7900_SHUT = Spec(
    title="RX 7900 XT whose device nodes this user may not open",
    files=ubuntu() | _7900_FILES,
    links=KFD_LINK | pci_links("0000:03:00.0", "amdgpu", 1),
    tools={
        "rocm-smi": {"--showproductname --showmeminfo vram --showbus --json": Answer(stdout=_7900_SMI)},
        "rocminfo": {
            "": Answer(
                stdout='Unable to open /dev/kfd read-write: Permission denied\nada is not member of "render" group, '
                "the default DRM access group.\n",
                code=1,
            )
        },
    },
    groups=NODES,
    shut=("kfd", "renderD128"),
    wheels=(*TRAIN, *torch_wheels("2.15.0+rocm7.2", "0.29.2", "torch (>=2.14.0)", hip="7.2.53211-158f6ff1a")),
    children=cpu_proofs("2.15.0+rocm7.2") | ABSENT,
)

CONTAINER_WITHOUT_KFD = Spec(
    title="a Docker container on a host with an RX 7900 XT, started without its devices",
    files={path: text for path, text in (ubuntu() | _7900_FILES).items() if not path.startswith("dev/")}
    | {".dockerenv": "", "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"},
    links=KFD_LINK | pci_links("0000:03:00.0", "amdgpu", 1),
    wheels=(*TRAIN, *torch_wheels("2.15.0+rocm7.2", "0.29.2", "torch (>=2.14.0)", hip="7.2.53211-158f6ff1a")),
    environ={"USER": "root"},
    children=cpu_proofs("2.15.0+rocm7.2") | ABSENT,
)

AMD_WITHOUT_TORCH = Spec(
    title="RX 7900 XT in a new Python without torch",
    files=ubuntu() | _7900_FILES,
    links=KFD_LINK | pci_links("0000:03:00.0", "amdgpu", 1),
    groups=NODES,
    wheels=PLAIN,
    children=proofs("auto", fp32=NO_TORCH) | ABSENT,
)
