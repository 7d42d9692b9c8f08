"""Machines of Intel, Apple and Windows, and one with nothing."""

from __future__ import annotations

import json

from machines.build import Answer, Limits, Spec, Wheel
from machines.children import ABSENT, NO_TORCH, cpu_proofs, onnxruntime, proof, proofs
from machines.parts import NODES, PLAIN, TRAIN, drivers, linux, pci, pci_links, torch_wheels, ubuntu

GIB = 2**30

ARC_SMI = {
    "device_list": [
        {
            "device_function_type": "physical",
            "device_id": 0,
            "device_name": "Intel(R) Arc(TM) A770 Graphics",
            "device_type": "GPU",
            "drm_device": "/dev/dri/card1",
            "pci_bdf_address": "0000:03:00.0",
            "pci_device_id": "0x56a0",
            "uuid": "00000000-0000-0003-0000-000856a08086",
            "vendor_name": "Intel(R) Corporation",
        }
    ]
}
ARC = {"kind": "xpu", "name": "Intel(R) Arc(TM) A770 Graphics", "torch_device": "xpu:0", "torch": "2.15.0+xpu"}
_slow = {"to": 0.7, "back": 0.8, "within": 398.0}

INTEL_ARC = Spec(
    title="Arc A770 behind a slow link",
    files=ubuntu(gib=32)
    | drivers("i915")
    | {"dev/dri/card1": "", "dev/dri/renderD128": ""}
    | pci("0000:03:00.0", "0x8086", "0x56a0")
    | pci("0000:00:0b.0", "0x8086", "0x7d1d", "0x120000"),
    links=pci_links("0000:03:00.0", "i915", 1) | pci_links("0000:00:0b.0"),
    tools={"xpu-smi": {"discovery -j": Answer(stdout=json.dumps(ARC_SMI, indent=4) + "\n")}},
    groups=NODES,
    wheels=(*TRAIN, *torch_wheels("2.15.0+xpu", "0.29.2", "torch (>=2.14.0)", xpu="20250301")),
    children=proofs(
        "auto",
        fp32=proof("fp32", ARC, tflops=12.6, copy_gbs=_slow),
        bf16=proof("bf16", ARC, tflops=81.0, copy_gbs=_slow),
        fp16=proof("fp16", ARC, tflops=83.0, copy_gbs=_slow),
    )
    | ABSENT,
)

MAC_SMI = """\
{
  "SPDisplaysDataType" : [
    {
      "_name" : "Apple M4",
      "spdisplays_mtlgpufamilysupport" : "spdisplays_metal4",
      "spdisplays_vendor" : "sppci_vendor_Apple",
      "sppci_bus" : "spdisplays_builtin",
      "sppci_cores" : "10",
      "sppci_device_type" : "spdisplays_gpu",
      "sppci_model" : "Apple M4"
    }
  ]
}
"""
MPS = {"kind": "mps", "name": "Apple GPU", "torch_device": "mps:0", "torch": "2.15.0"}
_unified = {"to": 48.0, "back": 47.1, "within": 96.0}

APPLE = Spec(
    title="Mac with an M4",
    system="Darwin",
    system_name="macOS-15.6.1-arm64-arm-64bit",
    tools={"system_profiler": {"SPDisplaysDataType -json": Answer(stdout=MAC_SMI)}},
    limits=Limits(
        folder="/Users/ada/flowers", disk_free=210 * GIB, shared_size=None, open_files=256, open_files_most=None
    ),
    wheels=(*TRAIN, *torch_wheels("2.15.0", "0.29.2", "torch (>=2.14.0)")),
    children=proofs(
        "auto",
        fp32=proof("fp32", MPS, tflops=3.1, copy_gbs=_unified),
        bf16=proof("bf16", MPS, tflops=3.4, copy_gbs=_unified),
        fp16=proof("fp16", MPS, tflops=3.6, copy_gbs=_unified),
    )
    | ABSENT,
)

ASKED = (
    "-NoProfile -NonInteractive -Command Get-CimInstance Win32_VideoController | "
    "Select-Object Name,PNPDeviceID,DriverVersion | ConvertTo-Json"
)
RX6600 = {
    "Name": "AMD Radeon RX 6600",
    "PNPDeviceID": r"PCI\VEN_1002&DEV_73FF&SUBSYS_05011EAE&REV_C7\6&1C3C3A3&0&00000019",
    "DriverVersion": "32.0.21025.1024",
}
WINDOWS_LIMITS = Limits(
    folder="C:\\Users\\ada\\flowers", disk_free=180 * GIB, shared_size=None, open_files=None, open_files_most=None
)
DML = {"kind": "dml", "name": "AMD Radeon RX 6600", "torch_device": "privateuseone:0", "torch": "2.4.1+cpu"}
_fell = {
    "warnings": [
        "The operator 'aten::lerp.Scalar_out' is not currently supported on the DML backend and will fall back to run "
        "on the CPU. This may have performance implications."
    ]
}

DIRECTML = Spec(
    title="Windows with torch-directml and the one torch it goes with",
    system="Windows",
    system_name="Windows-11-10.0.26100-SP0",
    python_version="3.12.7",
    limits=WINDOWS_LIMITS,
    tools={"powershell.exe": {ASKED: Answer(stdout=json.dumps(RX6600, indent=4) + "\n")}},
    wheels=(
        *TRAIN,
        *torch_wheels("2.4.1+cpu", "0.19.1", "torch (==2.4.1)", vision_tag="cpu"),
        Wheel(name="torch-directml", version="0.2.5.dev240914", requires=("torch==2.4.1", "torchvision==0.19.1")),
        Wheel(name="onnxruntime-directml", version="1.24.4"),
    ),
    children=proofs(
        "auto",
        fp32=proof(
            "fp32", DML, tflops=4.9, copy_gbs={"to": 9.8, "back": 5.1, "within": 160.0}, changed={"AdamW": _fell}
        ),
    )
    | onnxruntime("1.24.4", ("Dml", "CPU")),
)

DIRECTML_BAD = Spec(
    title="Windows with torch-directml beside a torch it was not made for",
    system="Windows",
    system_name="Windows-11-10.0.26100-SP0",
    python_version="3.12.7",
    limits=WINDOWS_LIMITS,
    tools=DIRECTML.tools,
    wheels=(
        *TRAIN,
        *torch_wheels("2.15.0+cpu", "0.29.2", "torch (>=2.14.0)", vision_tag="cpu"),
        Wheel(name="torch-directml", version="0.2.5.dev240914", requires=("torch==2.4.1", "torchvision==0.19.1")),
    ),
    children=cpu_proofs("2.15.0+cpu") | ABSENT,
)

NOTHING = Spec(
    title="a small machine without torch, GPU or tools",
    files=linux("Debian GNU/Linux 12 (bookworm)", "6.1.0-40-amd64", os_id="debian", gib=4),
    limits=Limits(folder="/home/ada", disk_free=9 * GIB, shared_size=2 * GIB, open_files=1024, open_files_most=2**20),
    wheels=PLAIN,
    children=proofs("auto", fp32=NO_TORCH) | ABSENT,
)
