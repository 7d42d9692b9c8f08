"""Whole machines built in folders: what the doctor finds in them and what it says."""

import dataclasses
import random
import re
import stat
from pathlib import Path

import pytest

from linne.doctor.accelerators import accelerator_section, find_gpus
from linne.doctor.gpu import Gpu, join, merge
from linne.doctor.machine import Machine
from linne.doctor.sysfs import gfx_of

CAPTURES = Path(__file__).parents[2] / "fixtures" / "captures"


def build(root, files, *, tools=(), blocked=(), environ=None, system="Linux"):
    """Return a machine of these files and of tools that print a text and end with a code."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8")
    (root / "bin").mkdir(exist_ok=True)
    for name, (text, code) in dict(tools).items():
        (root / "bin" / f"{name}.txt").write_text(text, "utf-8")
        tool = root / "bin" / name
        tool.write_text(f'#!/bin/sh\nwhile IFS= read -r line; do printf "%s\\n" "$line"; done <"$0.txt"\nexit {code}\n')
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    return Machine(
        root=root,
        path=(root / "bin",),
        environ=environ or {},
        system=system,
        may_use=lambda path: path.name not in blocked,
    )


def topology(name):
    """Return the files of a captured KFD topology."""
    parts = re.split(r"^== .*?(nodes/.*)\n", (CAPTURES / name).read_text("utf-8"), flags=re.MULTILINE)[1:]
    return {f"sys/class/kfd/kfd/topology/{path}": text for path, text in zip(parts[::2], parts[1::2], strict=True)}


def pci(bus_id, vendor, kind="0x030000", **files):
    folder = f"sys/bus/pci/devices/{bus_id}"
    return {f"{folder}/vendor": vendor, f"{folder}/class": kind} | {f"{folder}/{k}": v for k, v in files.items()}


AMD_NODES = {"dev/kfd": "", "dev/dri/renderD128": ""}
MI210 = topology("kfd_topology_mi210_xgmi_pcie.txt") | AMD_NODES
MI300X = (
    topology("kfd_topology_mi300_cpx_first8.txt")
    | AMD_NODES
    | pci("0000:05:00.0", "0x1002", "0x120000", mem_info_vram_total="206141652992", product_name="AMD Instinct MI300X")
    | {"sys/module/amdgpu/version": "6.12.12\n", "opt/rocm/.info/version": "6.4.1-83\n"}
)
RX7900 = AMD_NODES | {
    "sys/class/kfd/kfd/topology/nodes/1/properties": "simd_count 192\ngfx_target_version 110000\nvendor_id 4098\n"
    "location_id 768\nlocal_mem_size 0\n",
    "sys/class/kfd/kfd/topology/nodes/1/mem_banks/0/properties": "heap_type 1\nsize_in_bytes 25753026560\n",
    "sys/class/kfd/kfd/topology/nodes/1/mem_banks/1/properties": "heap_type 0\nsize_in_bytes 1\n",
}
NVIDIA_BOX = pci("0000:01:00.0", "0x10de", "0x030200") | pci("0000:01:00.1", "0x10de", "0x040300")
STRIX = {
    f"sys/class/drm/card0/device/{name}": text.strip()
    for name, text in re.findall(r"== (\S+)\n(.*)", (CAPTURES / "sysfs_drm_card0_amd_glances.txt").read_text("utf-8"))
} | {"sys/class/drm/card0/device/vendor": "0x1002", "sys/class/drm/card0-HDMI-A-1/device/vendor": "0x1002"}


def checks(machine):
    return {check.name: check for check in accelerator_section(machine).checks}


def test_eight_mi210_are_found_by_the_topology_alone(tmp_path):
    gpus = find_gpus(build(tmp_path, MI210))
    assert len(gpus) == 8
    assert {(gpu.vendor, gpu.arch, gpu.partitions) for gpu in gpus} == {("AMD", "gfx90a", 1)}
    assert gpus[0].bus_id == "0000:63:00.0"
    assert gpus[0].evidence == ("/sys/class/kfd/kfd/topology/nodes/2",)


def test_rocminfo_names_the_mi210_that_the_topology_found_without_adding_any(tmp_path):
    text = (CAPTURES / "rocm-blogs_rocprof_sysinfo_HIP_trace.txt").read_text("utf-8")
    text = text.replace("9984", "9728")  # two machines of one kind, whose fourth GPU sits in another slot
    gpus = find_gpus(build(tmp_path, MI210, tools={"rocminfo": (text, 0)}))
    assert len(gpus) == 8
    assert {gpu.name for gpu in gpus} == {"AMD Instinct MI210"}
    assert gpus[0].evidence == ("/sys/class/kfd/kfd/topology/nodes/2", "rocminfo")


def test_an_mi300x_split_into_partitions_is_one_gpu_with_the_memory_of_the_whole(tmp_path):
    machine = build(tmp_path, MI300X)
    (gpu,) = find_gpus(machine)
    assert (gpu.arch, gpu.bus_id, gpu.name) == ("gfx942", "0000:05:00.0", "AMD Instinct MI300X")
    assert gpu.partitions > 1
    assert gpu.memory_bytes == 206141652992
    found = checks(machine)
    assert found["AMD GPU 0000:05:00.0"].found == (
        f"AMD Instinct MI300X, gfx942, 192.0 GiB, driver 6.12.12, split into {gpu.partitions}"
    )
    assert found["Access to /dev/kfd"].status == "good"


def test_an_old_kernel_that_tells_no_architecture_leaves_it_unknown(tmp_path):
    gpu, _ = find_gpus(build(tmp_path, topology("kfd_topology_vega10_1gpu_old_kernel.txt")))
    assert (gpu.vendor, gpu.arch, gpu.bus_id, gpu.memory_bytes) == ("AMD", None, "0000:19:00.0", 17163091968)


def test_a_laptop_with_strix_halo_is_found_by_drm_and_told_that_kfd_is_missing(tmp_path):
    machine = build(tmp_path, STRIX)
    assert [(gpu.vendor, gpu.memory_bytes) for gpu in find_gpus(machine)] == [("AMD", 2 << 30)]
    kfd = checks(machine)["Access to /dev/kfd"]
    assert (kfd.status, kfd.found) == ("bad", "/dev/kfd does not exist")
    assert kfd.fix.startswith("in a container: start it with --device=/dev/kfd --device=/dev/dri;")


def test_an_rx_7900_without_permission_is_told_the_groups_to_join(tmp_path):
    machine = build(tmp_path, RX7900, blocked=("kfd", "renderD128"))
    (gpu,) = find_gpus(machine)
    assert (gpu.arch, gpu.bus_id, gpu.memory_bytes) == ("gfx1100", "0000:03:00.0", 25753026560)
    found = checks(machine)
    for name, node in (("Access to /dev/kfd", "/dev/kfd"), ("Access to /dev/dri/renderD*", "/dev/dri/renderD128")):
        assert (found[name].status, found[name].found) == ("bad", f"this user may not open {node}")
        assert found[name].fix.startswith("sudo usermod -aG render,video $USER, then log in again;")
        assert found[name].fix.endswith(f"stat -c %g {node}")


def test_one_render_node_of_two_that_is_permitted_is_only_a_warning(tmp_path):
    machine = build(tmp_path, RX7900 | {"dev/dri/renderD129": ""}, blocked=("renderD129",))
    assert checks(machine)["Access to /dev/dri/renderD*"].status == "warning"


def test_an_nvidia_gpu_without_a_driver_is_said_plainly(tmp_path):
    text = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n"
    machine = build(tmp_path, NVIDIA_BOX, tools={"nvidia-smi": (text, 9)})
    assert [(gpu.vendor, gpu.bus_id, gpu.driver) for gpu in find_gpus(machine)] == [("NVIDIA", "0000:01:00.0", None)]
    driver = checks(machine)["NVIDIA driver"]
    assert (driver.status, driver.found) == ("bad", "no NVIDIA driver is loaded")
    assert driver.fix.endswith("then run: nvidia-smi")
    assert checks(machine)["nvidia-smi"].status == "unknown"


@pytest.mark.parametrize(
    "kind", ["x86_64 Kernel Module  570.86.10  Thu", "Open Kernel Module for x86_64  570.86.10  Rel"]
)
def test_an_nvidia_driver_is_good_only_with_its_device_nodes(tmp_path, kind):
    files = NVIDIA_BOX | {
        "proc/driver/nvidia/version": f"NVRM version: NVIDIA UNIX {kind}\nGCC version: 12.3.0",
        "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA H200\nBus Location: \t 0000:01:00.0\n",
    }
    machine = build(tmp_path, files)
    assert [(gpu.name, gpu.driver) for gpu in find_gpus(machine)] == [("NVIDIA H200", "570.86.10")]
    missing = checks(machine)["NVIDIA driver"]
    assert (missing.status, missing.found) == ("bad", "driver 570.86.10 is loaded, but /dev/nvidiactl is missing")
    nodes = {"dev/nvidiactl": "", "dev/nvidia0": ""}
    assert checks(build(tmp_path, nodes))["NVIDIA driver"].status == "good"
    assert checks(build(tmp_path, nodes, blocked=("nvidia0",)))["NVIDIA driver"].status == "bad"


def test_an_intel_gpu_is_found_and_its_neural_processor_is_not_one(tmp_path):
    files = pci("0000:03:00.0", "0x8086") | pci("0000:00:0b.0", "0x8086", "0x120000") | {"dev/dri/renderD128": ""}
    machine = build(tmp_path, files)
    assert [(gpu.vendor, gpu.bus_id) for gpu in find_gpus(machine)] == [("Intel", "0000:03:00.0")]
    assert checks(machine)["Access to /dev/dri/renderD*"].status == "good"


def test_a_machine_with_nothing_says_so_and_one_that_cannot_be_read_says_that(tmp_path):
    expected = {"Linux": "note", "Darwin": "note", "Windows": "unknown"}
    for system, status in expected.items():
        (check,) = accelerator_section(build(tmp_path, {}, system=system)).checks
        assert (check.name, check.status) == ("GPU", status)
    (check,) = accelerator_section(build(tmp_path, {})).checks
    assert (check.found, check.why) == ("none found by the kernel or by any tool", "everything runs on the CPU")


def test_tools_that_say_there_is_no_gpu_are_heard_whatever_their_exit_code(tmp_path):
    no_driver = ("ERROR:root:Driver not initialized (amdgpu not found in modules)\n", 0)
    not_loaded = ("\x1b[31mROCk module is NOT loaded, possibly no GPU devices\x1b[0m\n", 1)
    machine = build(tmp_path, {}, tools={"rocm-smi": no_driver, "rocminfo": not_loaded, "amd-smi": ("", 255)})
    found = checks(machine)
    assert found["GPU"].status == "note"
    assert found["amd-smi"].status == "unknown"
    assert "rocm-smi" not in found


def test_a_gpu_that_wsl_passes_on_needs_no_device_nodes_of_linux(tmp_path):
    text = (CAPTURES / "rocminfo_mi300x_docs_use-rocminfo.rst.txt").read_text("utf-8")
    assert checks(build(tmp_path, {"dev/dxg": ""}))["GPU"].found.startswith("WSL passes on a GPU of Windows")
    found = checks(build(tmp_path, {}, tools={"rocminfo": (text, 0)}))
    assert {name: check.status for name, check in found.items()} == {"AMD GPU 0000:03:00.0": "good"}


def test_variables_that_hide_or_disguise_gpus_are_shown(tmp_path):
    environ = {"HSA_OVERRIDE_GFX_VERSION": "10.3.0", "HIP_VISIBLE_DEVICES": "1"}
    found = checks(build(tmp_path, RX7900, environ=environ))
    assert found["Overridden architecture"].fix == "try without: unset HSA_OVERRIDE_GFX_VERSION"
    assert (found["Hidden devices"].status, found["Hidden devices"].found) == ("note", "HIP_VISIBLE_DEVICES=1")
    hidden = checks(build(tmp_path, RX7900, environ={"CUDA_VISIBLE_DEVICES": ""}))["Hidden devices"]
    assert (hidden.status, hidden.fix) == ("warning", "unset CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize(
    ("version", "gfx"),
    [(90010, "gfx90a"), (90402, "gfx942"), (110501, "gfx1151"), (100300, "gfx1030"), (0, None), (2**70, None)],
)
def test_versions_of_the_topology_become_the_names_amd_uses(version, gfx):
    assert gfx_of(version) == gfx


def test_gpus_without_an_address_are_joined_only_where_there_is_one_on_both_sides():
    known = Gpu(vendor="AMD", arch="gfx1100", bus_id="0000:03:00.0", evidence=("a",))
    other = dataclasses.replace(known, bus_id="0000:04:00.0")
    told = Gpu(vendor="AMD", name="Radeon", arch="gfx1", evidence=("b",))
    assert merge([known], [told]) == [dataclasses.replace(known, name="Radeon", evidence=("a", "b"))]
    assert merge([known, other], [told, told]) == [known, other]
    assert merge([], [told]) == [told]
    assert join(told, known).arch == "gfx1"


def test_damaged_files_of_the_kernel_raise_nothing(tmp_path):
    random_source = random.Random(4)
    names = [name for name in MI300X if name.startswith("sys/")][:12]
    machine = build(tmp_path, MI300X)
    for round_number in range(100):
        name = names[round_number % len(names)]
        text = MI300X[name]
        at = random_source.randrange(len(text) + 1)
        junk = random_source.choice(["\0", "9" * 5000, "-5", "N/A", "\n\n", "²", "simd_count x"])
        (tmp_path / name).write_text(text[:at] + junk + text[at + random_source.randrange(40) :], "utf-8")
        assert accelerator_section(machine).checks
