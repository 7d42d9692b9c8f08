"""What the doctor finds on machines built in folders, and what it says of drivers, device nodes and tools."""

import dataclasses
import itertools
import random
import re
from pathlib import Path

import pytest
from machines.build import Answer, Spec
from machines.build import build as built

from linne.doctor.accelerators import accelerator_section, look
from linne.doctor.gpu import Gpu, join, merge
from linne.host import gfx_of

CAPTURES = Path(__file__).parents[2] / "fixtures" / "captures"
_numbers = itertools.count()


def build(folder, files, *, tools=(), shut=(), environ=None, system="Linux", groups=None):
    """Return a machine of these files, and of tools that print a text and end with a code, whatever they are asked."""
    spec = Spec(
        title="",
        files=files,
        tools={name: {"*": Answer(stdout=text, code=code)} for name, (text, code) in dict(tools).items()},
        shut=shut,
        environ=environ or {},
        system=system,
        groups=groups or {},
    )
    return built(spec, folder / str(next(_numbers)))


def find_gpus(machine):
    return list(look(machine).gpus)


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
    assert found["Device nodes"].status == "good"


def test_an_old_kernel_that_tells_no_architecture_leaves_it_unknown(tmp_path):
    gpu, _ = find_gpus(build(tmp_path, topology("kfd_topology_vega10_1gpu_old_kernel.txt")))
    assert (gpu.vendor, gpu.arch, gpu.bus_id, gpu.memory_bytes) == ("AMD", None, "0000:19:00.0", 17163091968)


def test_a_laptop_without_dev_kfd_is_told_to_load_the_driver_or_to_see_why_it_offers_no_computing(tmp_path):
    machine = build(tmp_path, STRIX)
    assert [(gpu.vendor, gpu.memory_bytes) for gpu in find_gpus(machine)] == [("AMD", 2 << 30)]
    nodes = checks(machine)["Device nodes"]
    assert (nodes.status, nodes.found, nodes.fix) == ("bad", "/dev/kfd does not exist", "sudo modprobe amdgpu")
    loaded = checks(build(tmp_path, STRIX | {"sys/module/amdgpu/refcnt": "1"}))["Device nodes"]
    assert loaded.found == "/dev/kfd does not exist, though the amdgpu driver is loaded"
    assert loaded.fix == "sudo dmesg | grep -iE 'kfd|amdgpu'"


@pytest.mark.parametrize(
    ("marks", "environ", "fix"),
    [
        ({".dockerenv": ""}, {}, "start the container again with: docker run --device /dev/kfd --device /dev/dri"),
        (
            {"run/.containerenv": ""},
            {},
            "start the container again with: podman run --device /dev/kfd --device /dev/dri --group-add keep-groups",
        ),
        ({}, {"container": "lxc"}, "pass /dev/kfd and /dev/dri of the host on to this container"),
        (
            {".dockerenv": ""},
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
            "ask for a GPU in the pod's `resources.limits`, through the device plugin of its vendor",
        ),
        (
            {"sys/class/kfd/kfd/topology/system_properties": ""},
            {},
            "pass /dev/kfd and /dev/dri of the host on to this container",
        ),
    ],
)
def test_a_container_without_dev_kfd_is_told_how_to_be_started(tmp_path, marks, environ, fix):
    nodes = checks(build(tmp_path, STRIX | marks, environ=environ))["Device nodes"]
    assert (nodes.status, nodes.found, nodes.fix) == ("bad", "/dev/kfd does not exist in this container", fix)


GROUPS = {"etc/group": "root:x:0:\nvideo:x:44:ada\nrender:x:992:\n"}


@pytest.mark.parametrize(
    ("extra", "groups", "fix"),
    [
        (GROUPS, {"kfd": 992, "renderD": 992}, "sudo usermod -aG render $USER\nthen log out and in again"),
        (GROUPS, {"kfd": 44, "renderD": 992}, "sudo usermod -aG video,render $USER\nthen log out and in again"),
        (GROUPS, {"kfd": 44, "renderD": 44}, "log out and in again: `ada` has joined video since this session began"),
        # The group of the root user, or one without a name, is none to join.
        (GROUPS, {"kfd": 0, "renderD": 992}, "ls -l /dev/kfd /dev/dri/renderD128\n"),
        (GROUPS, {"kfd": 65534, "renderD": 65534}, "ls -l /dev/kfd /dev/dri/renderD128\n"),
        (
            {".dockerenv": ""},
            {"kfd": 992, "renderD": 44},
            "start the container again with: docker run --group-add 44 --group-add 992",
        ),
        ({"run/.containerenv": ""}, {"kfd": 992}, "start the container again with: podman run --group-add keep-groups"),
        (
            {"run/systemd/container": "lxc"},
            {"kfd": 992, "renderD": 992},
            "put this container's user into the groups 992",
        ),
    ],
)
def test_a_user_who_may_not_open_the_nodes_is_told_whose_they_are(tmp_path, extra, groups, fix):
    machine = build(tmp_path, RX7900 | extra, shut=("kfd", "renderD128"), groups=groups)
    (gpu,) = find_gpus(machine)
    assert (gpu.arch, gpu.bus_id, gpu.memory_bytes) == ("gfx1100", "0000:03:00.0", 25753026560)
    nodes = checks(machine)["Device nodes"]
    assert nodes.status == "bad"
    assert nodes.found.startswith("this user may not open /dev/kfd, /dev/dri/renderD128")
    assert nodes.fix.startswith(fix)


def test_a_pod_that_may_not_open_the_nodes_is_told_the_groups_to_ask_for(tmp_path):
    pod, groups = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, {"kfd": 992, "renderD": 44}
    machine = build(tmp_path, RX7900, shut=("kfd", "renderD128"), groups=groups, environ=pod)
    fix = checks(machine)["Device nodes"].fix
    assert fix == "add to the pod's `securityContext`: supplementalGroups: [44, 992]"


def test_one_render_node_of_two_that_is_permitted_is_only_a_warning(tmp_path):
    machine = build(tmp_path, RX7900 | {"dev/dri/renderD129": ""}, shut=("renderD129",))
    assert checks(machine)["Device nodes"].status == "warning"


def test_nodes_are_as_grave_as_the_gpu_behind_them(tmp_path):
    shut = {"shut": ("kfd", "renderD128")}
    small = {name: text.replace("110000", "110003") for name, text in RX7900.items()}
    beside_a_card = small | DRIVER | {"dev/nvidiactl": "", "dev/nvidia0": ""}
    intel = pci("0000:00:02.0", "0x8086") | {"dev/dri/renderD128": ""}
    card = pci("0000:03:00.0", "0x8086") | {"dev/dri/renderD128": ""}
    for files, status in ((small, "warning"), (beside_a_card, "note"), (intel, "note"), (card, "bad"), (RX7900, "bad")):
        assert checks(build(tmp_path, files, **shut))["Device nodes"].status == status


def test_many_render_nodes_are_told_by_their_number(tmp_path):
    machine = build(tmp_path, RX7900 | {f"dev/dri/renderD{number}": "" for number in range(128, 136)})
    assert checks(machine)["Device nodes"].found == "/dev/kfd and 8 of /dev/dri/renderD*: present and permitted"


SMI_FAILS = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n"
UBUNTU = {"etc/os-release": 'ID=pop\nID_LIKE="ubuntu debian"\n'}


@pytest.mark.parametrize(
    ("files", "tools", "fix"),
    [
        (UBUNTU, {}, "sudo ubuntu-drivers install\nsudo reboot"),
        ({"etc/os-release": "ID=fedora\n"}, {}, "install NVIDIA's driver: https://docs.nvidia.com/datacenter/tesla/"),
        (UBUNTU | {".dockerenv": ""}, {}, "on the host, install NVIDIA's driver: https://docs.nvidia.com/"),
        (UBUNTU, {"nvidia-smi": (SMI_FAILS, 9)}, "sudo modprobe nvidia\nand if that fails: sudo dmesg"),
    ],
)
def test_an_nvidia_gpu_without_a_driver_is_said_plainly_with_what_to_type_here(tmp_path, files, tools, fix):
    machine = build(tmp_path, NVIDIA_BOX | files, tools=tools)
    assert [(gpu.vendor, gpu.bus_id, gpu.driver) for gpu in find_gpus(machine)] == [("NVIDIA", "0000:01:00.0", None)]
    found = checks(machine)
    assert found["NVIDIA GPU 0000:01:00.0"].status == "note"
    assert found["NVIDIA driver"].status == "bad"
    assert found["NVIDIA driver"].found == ("installed, and not loaded by the kernel" if tools else "not loaded")
    assert found["NVIDIA driver"].fix.startswith(fix)
    assert "nvidia-smi" not in found, "one fault is reported once"


DRIVER = NVIDIA_BOX | {
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.10  Thu\nGCC version: 12.3.0",
    "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA H200\nBus Location: \t 0000:01:00.0\n",
}


@pytest.mark.parametrize(
    "kind", ["x86_64 Kernel Module  570.86.10  Thu", "Open Kernel Module for x86_64  570.86.10  Rel"]
)
def test_an_nvidia_driver_is_good_only_with_its_device_nodes(tmp_path, kind):
    files = DRIVER | {"proc/driver/nvidia/version": f"NVRM version: NVIDIA UNIX {kind}\nGCC version: 12.3.0"}
    machine = build(tmp_path, files)
    assert [(gpu.name, gpu.driver) for gpu in find_gpus(machine)] == [("NVIDIA H200", "570.86.10")]
    missing = checks(machine)["NVIDIA driver"]
    assert (missing.status, missing.found) == ("bad", "570.86.10 is loaded, and /dev/nvidiactl is missing")
    assert missing.fix == "sudo nvidia-modprobe -u -c=0"
    files |= {"dev/nvidiactl": "", "dev/nvidia0": ""}
    assert checks(build(tmp_path, files))["NVIDIA driver"].status == "good"
    assert checks(build(tmp_path, files, shut=("nvidia0",)))["NVIDIA driver"].status == "bad"


def test_a_container_without_the_nodes_of_nvidia_is_told_how_to_be_started(tmp_path):
    check = checks(build(tmp_path, DRIVER | {".dockerenv": ""}))["NVIDIA driver"]
    assert check.found == "570.86.10 is loaded, and /dev/nvidiactl is missing in this container"
    assert check.fix.startswith("start the container again with: docker run --gpus all\n")


def test_a_driver_that_was_updated_and_not_loaded_yet_asks_for_a_restart(tmp_path):
    said = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.95\n"
    check = checks(build(tmp_path, DRIVER, tools={"nvidia-smi": (said, 18)}))["NVIDIA driver"]
    assert check.found == "570.86.10 is loaded, and its libraries are of another version"
    assert (check.status, check.fix) == ("bad", "sudo reboot")


def test_a_gpu_kept_for_a_virtual_machine_is_said_to_be(tmp_path):
    machine = build(tmp_path, NVIDIA_BOX | {"sys/bus/pci/drivers/vfio-pci/uevent": ""})
    (machine.root / "sys/bus/pci/devices/0000:01:00.0/driver").symlink_to("../../drivers/vfio-pci")
    assert checks(machine)["NVIDIA driver"].found == "not loaded: vfio-pci keeps the GPU for a virtual machine"


def test_a_gpu_that_no_driver_names_is_named_by_the_list_of_pci_devices(tmp_path):
    pci_ids = "10de  NVIDIA Corporation\n\t2684  AD102 [GeForce RTX 4090]\n1102  Creative Labs\n\t2685  Sound\n"
    files = pci("0000:01:00.0", "0x10de", device="0x2684") | pci("0000:02:00.0", "0x10de", device="0x2685")
    for place in ("usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids"):
        names = [gpu.name for gpu in find_gpus(build(tmp_path, files | {place: pci_ids}))]
        assert names == ["AD102 [GeForce RTX 4090]", None]


def test_an_intel_gpu_is_found_and_its_neural_processor_is_not_one(tmp_path):
    files = pci("0000:03:00.0", "0x8086") | pci("0000:00:0b.0", "0x8086", "0x120000") | {"dev/dri/renderD128": ""}
    machine = build(tmp_path, files)
    assert [(gpu.vendor, gpu.bus_id) for gpu in find_gpus(machine)] == [("Intel", "0000:03:00.0")]
    assert checks(machine)["Device nodes"].status == "good"


def test_a_machine_with_nothing_says_so_and_one_that_cannot_be_read_says_that(tmp_path):
    expected = {"Linux": "note", "Darwin": "unknown", "Windows": "unknown"}
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
    assert checks(build(tmp_path, {"dev/dxg": ""}))["GPU"].found.startswith("Windows passes one on (/dev/dxg)")
    found = checks(build(tmp_path, {"dev/dxg": ""}, tools={"rocminfo": (text, 0)}))
    assert {name: check.status for name, check in found.items()} == {"AMD GPU 0000:03:00.0": "good"}


def test_variables_that_hide_or_disguise_gpus_are_shown(tmp_path):
    environ = {"HSA_OVERRIDE_GFX_VERSION": "10.3.0", "HIP_VISIBLE_DEVICES": "1"}
    found = checks(build(tmp_path, RX7900, environ=environ))
    assert found["GPU override"].fix == "unset HSA_OVERRIDE_GFX_VERSION"
    assert (found["Hidden devices"].status, found["Hidden devices"].found) == ("note", "HIP_VISIBLE_DEVICES=1")
    hidden = checks(build(tmp_path, RX7900, environ={"CUDA_VISIBLE_DEVICES": ""}))["Hidden devices"]
    assert (hidden.status, hidden.fix) == ("warning", "unset CUDA_VISIBLE_DEVICES")
    windows = checks(build(tmp_path, {}, environ={"CUDA_VISIBLE_DEVICES": "-1"}, system="Windows"))["Hidden devices"]
    assert windows.fix == "Remove-Item Env:CUDA_VISIBLE_DEVICES"


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
    root = machine.root
    for round_number in range(100):
        name = names[round_number % len(names)]
        text = MI300X[name]
        at = random_source.randrange(len(text) + 1)
        junk = random_source.choice(["\0", "9" * 5000, "-5", "N/A", "\n\n", "²", "simd_count x"])
        (root / name).write_text(text[:at] + junk + text[at + random_source.randrange(40) :], "utf-8")
        assert accelerator_section(machine).checks
