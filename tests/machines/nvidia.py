"""Machines with GPUs of NVIDIA, and with its build of torch."""

from __future__ import annotations

from machines.build import Answer, Spec, Wheel
from machines.children import ABSENT, absent, cpu_proofs, onnxruntime, proof, proofs
from machines.parts import TRAIN, drivers, linux, pci, pci_links, torch_wheels, ubuntu

FIELDS = "name,pci.bus_id,memory.total,driver_version"
ASKED = f"--query-gpu={FIELDS},compute_cap --format=csv,noheader,nounits"
NODE_FILES = {"dev/nvidia0": "", "dev/nvidiactl": "", "dev/nvidia-uvm": ""}
CUDA13 = torch_wheels("2.15.0+cu132", "0.29.2", "torch (>=2.14.0)", cuda="13.2")


def driver(version: str, model: str, address: str = "0000:01:00.0") -> dict[str, str]:
    """Return what a loaded driver of NVIDIA puts into /proc."""
    return {
        "proc/driver/nvidia/version": f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}"
        "  Release Build  (dvs-builder@U22-I3-B17-02-5)  Tue Sep 23 09:55:41 UTC 2025\n"
        "GCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04)\n",
        f"proc/driver/nvidia/gpus/{address}/information": f"Model: \t\t {model}\nIRQ:   \t\t 171\nBus Type: \t PCIe\n"
        f"Bus Location: \t {address}\nDevice Minor: \t 0\nGPU Excluded:\t No\n",
    }


H200 = {"kind": "cuda", "name": "NVIDIA H200", "torch_device": "cuda:0", "torch": "2.15.0+cu132"}
PCIE5 = {"to": 55.1, "back": 53.9, "within": 3920.0}

H200_GOOD = Spec(
    title="H200 where everything is as it should be",
    files=ubuntu(gib=1024)
    | drivers("nvidia")
    | driver("580.95.05", "NVIDIA H200", "0000:05:00.0")
    | NODE_FILES
    | pci("0000:05:00.0", "0x10de", "0x2335", "0x030200"),
    links=pci_links("0000:05:00.0", "nvidia", 1),
    tools={"nvidia-smi": {ASKED: Answer(stdout="NVIDIA H200, 00000000:05:00.0, 143771, 580.95.05, 9.0\n")}},
    wheels=(*TRAIN, *CUDA13, Wheel(name="onnxruntime-gpu", version="1.31.1")),
    children=proofs(
        "auto",
        fp32=proof("fp32", H200, tflops=51.3, copy_gbs=PCIE5),
        bf16=proof("bf16", H200, tflops=774.0, copy_gbs=PCIE5),
        fp16=proof("fp16", H200, tflops=771.0, copy_gbs=PCIE5),
    )
    | onnxruntime("1.31.1", ("CUDA", "CPU")),
)

NO_DRIVER = Spec(
    title="RTX 4090 without NVIDIA's driver",
    files=ubuntu()
    | drivers("nouveau")
    | pci("0000:01:00.0", "0x10de", "0x2684")
    | pci("0000:01:00.1", "0x10de", "0x22ba", "0x040300"),
    links=pci_links("0000:01:00.0", "nouveau", 1) | pci_links("0000:01:00.1"),
    wheels=(*TRAIN, *CUDA13),
    children=cpu_proofs("2.15.0+cu132") | ABSENT,
)

CPU_BOX = Spec(
    title="a build for CUDA on a machine without any GPU",
    files=linux("Debian GNU/Linux 12 (bookworm)", "6.1.0-40-amd64", os_id="debian", gib=16),
    wheels=(*TRAIN, *CUDA13),
    children=cpu_proofs("2.15.0+cu132") | ABSENT,
)

OLD_DRIVER = Spec(
    title="RTX 3090 whose driver is older than the CUDA of the wheel, asked for by name",
    files=ubuntu()
    | drivers("nvidia")
    | driver("535.183.01", "NVIDIA GeForce RTX 3090")
    | NODE_FILES
    | pci("0000:01:00.0", "0x10de", "0x2204"),
    links=pci_links("0000:01:00.0", "nvidia", 1),
    tools={"nvidia-smi": {ASKED: Answer(stdout="NVIDIA GeForce RTX 3090, 00000000:01:00.0, 24576, 535.183.01, 8.6\n")}},
    wheels=(*TRAIN, *CUDA13, Wheel(name="onnxruntime-gpu", version="1.31.1")),
    devices=("cuda",),
    children=proofs(
        "cuda",
        fp32=absent("device `cuda` cannot be used: this torch (2.15.0+cu132) finds no NVIDIA GPU"),
    )
    | onnxruntime(
        "1.31.1",
        ("CUDA", "CPU"),
        CUDA={
            "computes": [],
            "result": None,
            "strict": False,
            "raised": "RuntimeError: Failed to load library libonnxruntime_providers_cuda.so with error: "
            "libcublasLt.so.13: cannot open shared object file: No such file or directory",
        },
    ),
)

WSL = {"kind": "cuda", "name": "NVIDIA GeForce RTX 3090", "torch_device": "cuda:0", "torch": "2.15.0+cu132"}
_copies = {"to": 11.8, "back": 11.2, "within": 812.0}
WSL_NVIDIA = Spec(
    title="Linux inside Windows (WSL) with an RTX 3090",
    files=linux("Ubuntu 24.04.3 LTS", "6.6.87.2-microsoft-standard-WSL2", os_id="ubuntu", like="debian", gib=32)
    | {"dev/dxg": "", "usr/lib/wsl/lib/libcuda.so.1": ""},
    tools={"nvidia-smi": {ASKED: Answer(stdout="NVIDIA GeForce RTX 3090, 00000000:01:00.0, 24576, 581.29, 8.6\n")}},
    wheels=(*TRAIN, *CUDA13),
    children=proofs(
        "auto",
        fp32=proof("fp32", WSL, tflops=24.9, copy_gbs=_copies),
        bf16=proof("bf16", WSL, tflops=66.1, copy_gbs=_copies),
        fp16=proof("fp16", WSL, tflops=66.4, copy_gbs=_copies),
    )
    | ABSENT,
)
