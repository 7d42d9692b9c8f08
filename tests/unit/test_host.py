"""What is known of the machine without torch."""

import os
import sys

import pytest

from linne.host import (
    accelerator_files,
    accelerator_names,
    amdgpu_driver_version,
    available_memory_bytes,
    first_amd_architecture,
    nvidia_driver_version,
    others_use_of_cores,
    prepare_for_torch,
)

GIB = 2**30


def test_waiting_threads_are_told_to_sleep_unless_the_user_said_otherwise(monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    prepare_for_torch()
    assert os.environ["GOMP_SPINCOUNT"] == "1000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    prepare_for_torch()
    assert os.environ["GOMP_SPINCOUNT"] == "7"


def test_operators_that_intels_backend_leaves_to_the_cpu_are_named(monkeypatch):
    monkeypatch.delenv("PYTORCH_DEBUG_XPU_FALLBACK", raising=False)
    prepare_for_torch()
    assert os.environ["PYTORCH_DEBUG_XPU_FALLBACK"] == "1"


def test_the_drivers_say_their_versions_in_files(tmp_path):
    assert (nvidia_driver_version(tmp_path), amdgpu_driver_version(tmp_path)) == (None, None)
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.82.07  Release Build  (dvs-builder@U22)\n"
        "GCC version:  gcc version 11.4.0\n"
    )
    (tmp_path / "sys/module/amdgpu").mkdir(parents=True)
    (tmp_path / "sys/module/amdgpu/version").write_text("6.14.14\n")
    assert (nvidia_driver_version(tmp_path), amdgpu_driver_version(tmp_path)) == ("580.82.07", "6.14.14")


def test_the_use_of_the_cores_by_others_is_a_share_or_unknown():
    share = others_use_of_cores(0.05)
    assert share is None or 0.0 <= share <= 1.0


def machine(root, available, cgroup, files):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable: {available // 1024} kB\n")
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/\n", {}, 8 * GIB),
        ("0::/\n", {"memory.max": "max", "memory.current": GIB}, 8 * GIB),
        ("0::/\n", {"memory.max": 2 * GIB, "memory.current": GIB // 2}, 3 * GIB // 2),
        ("0::/\n", {"memory.max": GIB, "memory.current": 2 * GIB}, 0),
        ("0::/a/b\n", {"a/memory.max": 3 * GIB, "a/memory.current": GIB, "a/b/memory.max": "max"}, 2 * GIB),
        ("0::/on/the/host\n", {"memory.max": 2 * GIB, "memory.current": 0}, 2 * GIB),
        (
            "4:memory:/job\n0::/\n",
            {"memory/job/memory.limit_in_bytes": 5 * GIB, "memory/job/memory.usage_in_bytes": GIB},
            4 * GIB,
        ),
        (
            "4:memory:/\n",
            {"memory/memory.limit_in_bytes": 2**63 - 4096, "memory/memory.usage_in_bytes": GIB},
            8 * GIB,
        ),
        ("", {}, 8 * GIB),
    ],
)
def test_the_limit_of_a_container_counts_and_not_the_memory_of_its_host(tmp_path, cgroup, files, expected):
    assert available_memory_bytes(machine(tmp_path, 8 * GIB, cgroup, files)) == expected


def test_a_system_that_does_not_say_is_taken_to_have_little(tmp_path):
    assert available_memory_bytes(tmp_path) == 4 * GIB


def test_accelerators_are_named_by_the_files_of_their_drivers(tmp_path):
    assert accelerator_names(tmp_path) == ()
    assert accelerator_files(tmp_path) == ()
    card = tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0"
    card.mkdir(parents=True)
    (card / "information").write_text("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t 64\n")
    node = tmp_path / "sys/class/kfd/kfd/topology/nodes"
    for number, target in enumerate((0, 110000)):
        (node / str(number)).mkdir(parents=True)
        (node / str(number) / "properties").write_text(f"cpu_cores_count 8\ngfx_target_version {target}\n")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kfd").touch()
    assert accelerator_names(tmp_path) == (
        "NVIDIA H100 80GB HBM3, driver unknown",
        "AMD GPU 110000, driver of the kernel",
    )
    if sys.platform == "linux":
        assert accelerator_files(tmp_path) == ("/dev/kfd",)


def test_the_architecture_of_the_gpu_that_programs_take_first_is_told(tmp_path):
    assert first_amd_architecture({}, tmp_path) is None
    nodes = tmp_path / "sys/class/kfd/kfd/topology/nodes"
    for number, target in {0: 0, 1: 90402, 2: 110000, 10: 90010}.items():
        (nodes / str(number)).mkdir(parents=True)
        (nodes / str(number) / "properties").write_text(f"gfx_target_version {target}\n")
    told = {
        (): "gfx942",
        ("HIP_VISIBLE_DEVICES", "2,0"): "gfx90a",
        ("ROCR_VISIBLE_DEVICES", "1"): "gfx1100",
        ("HIP_VISIBLE_DEVICES", "7"): None,
        ("HIP_VISIBLE_DEVICES", "GPU-12ab"): "gfx942",
        ("HSA_OVERRIDE_GFX_VERSION", "10.3.0"): "gfx1030",
    }
    for said, expected in told.items():
        assert first_amd_architecture(dict([said]) if said else {}, tmp_path) == expected
