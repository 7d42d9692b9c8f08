"""AMD's own `rocm_agent_enumerator` as an oracle for what is read from KFD topologies.

It is in Debian's and Ubuntu's package `rocminfo` and in ROCm's. It reads one folder, whose name is a constant of the
script: so a copy with another name is run.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from machines.parts import KFD_LINK, topology

from linne.doctor.machine import Machine
from linne.doctor.sysfs import gpus_of_files
from linne.host import gfx_of

PROGRAM = shutil.which("rocm_agent_enumerator")
FOLDER = "/sys/class/kfd/kfd/topology/nodes/"
CAPTURES = {
    "kfd_topology_mi210_xgmi_pcie.txt": 8,
    "kfd_topology_mi300_cpx_first8.txt": 6,
    "kfd_topology_vega10_1gpu_old_kernel.txt": 0,  # its kernel tells no architecture
}
VERSIONS = (
    *(80003, 90000, 90002, 90006, 90008, 90010, 90012, 90400, 90402, 90500, 100100, 100101, 100102, 100300, 100301),
    *(100302, 100303, 100304, 100305, 100306, 110000, 110001, 110002, 110003, 110500, 110501, 110502, 110503, 120000),
    *(120001, 120500),
)


def enumerated(root: Path) -> list[str]:
    """Return the architectures that AMD's program finds in a folder that stands for `/`."""
    if PROGRAM is None:
        pytest.skip("rocm_agent_enumerator is not installed here: it is in the package rocminfo")
    text = Path(PROGRAM).read_text("utf-8")
    if FOLDER not in text:
        pytest.skip(f"this rocm_agent_enumerator does not name {FOLDER}, which has to be changed for the test")
    script = root / "enumerator"
    script.write_text(text.replace(FOLDER, f"{root}{FOLDER}"), "utf-8")
    # Beside the topology it would ask lspci and rocminfo; it finds no rocminfo beside its copy.
    command = [sys.executable, "-W", "ignore", str(script)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": "/nonexistent"})
    assert ended.returncode == 0, ended.stderr
    return [gfx for gfx in ended.stdout.split() if gfx != "gfx000"]


def built(root: Path, files: dict[str, str]) -> Machine:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, "utf-8")
    for path, target in KFD_LINK.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(target)
    return Machine(root=root, path=(), environ={}, system="Linux")


@pytest.mark.parametrize("capture", CAPTURES)
def test_the_captured_topologies_hold_what_amds_own_program_finds_in_them(capture: str, tmp_path: Path) -> None:
    machine = built(tmp_path, topology(capture))
    ours = [gpu.arch for gpu in gpus_of_files(machine) for _ in range(gpu.partitions) if gpu.arch]
    assert len(ours) == CAPTURES[capture]
    assert sorted(ours) == sorted(enumerated(tmp_path))


def test_every_version_is_decoded_as_amds_own_program_decodes_it(tmp_path: Path) -> None:
    node = "sys/devices/virtual/kfd/kfd/topology/nodes/{}/properties"
    built(tmp_path, {node.format(i): f"simd_count 4\ngfx_target_version {v}\n" for i, v in enumerate(VERSIONS)})
    assert sorted(enumerated(tmp_path)) == sorted(str(gfx_of(version)) for version in VERSIONS)
    assert all(re.fullmatch(r"gfx[0-9a-f]{3,6}", str(gfx_of(version))) for version in VERSIONS)
