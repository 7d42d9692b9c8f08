"""The doctor's checks of the machine below the packages, on machines built in a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from linne.doctor.machine import Limits, Machine, limits_here
from linne.doctor.report import Check
from linne.doctor.system import system_section

_GIB = 2**30
_ROOMY = Limits(folder="/home/u", disk_free=100 * _GIB, shared_size=8 * _GIB, open_files=1024, open_files_most=2**20)


def _machine(root: Path, files: dict[str, str], system: str = "Linux", python: str = "3.12.3") -> Machine:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8")
    return Machine(root=root, path=(), environ={}, system=system, system_name=system, python_version=python)


def _checks(machine: Machine, limits: Limits = _ROOMY) -> dict[str, Check]:
    return {check.name: check for check in system_section(replace(machine, limits=limits)).checks}


_LINUX = {
    "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 24.04.3 LTS"\n',
    "proc/sys/kernel/osrelease": "6.8.0-60-generic\n",
    "proc/meminfo": "MemTotal:       16777216 kB\nMemAvailable:    8388608 kB\n",
}


def test_a_roomy_machine_is_good_throughout(tmp_path: Path) -> None:
    checks = _checks(_machine(tmp_path, _LINUX))
    assert {name: (check.status, check.found) for name, check in checks.items()} == {
        "Operating system": ("note", "Ubuntu 24.04.3 LTS, kernel 6.8.0-60-generic"),
        "Python": ("good", "3.12.3"),
        "Memory": ("good", "8.0 GiB can be used of 16.0 GiB, control groups counted"),
        "Disk": ("good", "100.0 GiB free in `/home/u`"),
        "Shared memory": ("good", "8.0 GiB in `/dev/shm`"),
        "Open files": ("good", "1,024 may be open at once"),
    }


def test_the_limit_of_a_container_counts_and_not_the_memory_of_its_host(tmp_path: Path) -> None:
    group = {
        ".dockerenv": "",
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": f"{2 * _GIB}\n",
        "sys/fs/cgroup/memory.current": f"{_GIB}\n",
    }
    checks = _checks(_machine(tmp_path, {**_LINUX, **group}))
    assert checks["Memory"].status == "warning"
    assert checks["Memory"].found.startswith("1.0 GiB can be used of 16.0 GiB")
    assert "--memory" in checks["Memory"].fix
    assert checks["Operating system"].found.endswith(", in a Docker container")


def test_a_container_is_named_by_what_it_says_of_itself(tmp_path: Path) -> None:
    machine = replace(_machine(tmp_path, {}), environ={"container": "lxc"})
    assert _checks(machine)["Operating system"].found == "Linux, in a container (lxc)"
    pod = replace(machine, environ={"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    assert _checks(pod)["Operating system"].found == "Linux, in a Kubernetes pod"


def test_files_of_proc_that_no_kernel_writes_are_unknown_and_no_exception(tmp_path: Path) -> None:
    files = {"proc/meminfo": "MemTotal: lots kB\n", "proc/self/cgroup": "junk\n", "etc/os-release": "PRETTY_NAME\n="}
    assert _checks(_machine(tmp_path, files))["Memory"].status == "unknown"
    (tmp_path / "proc/meminfo").write_text("MemTotal: 16777216 kB\nMemAvailable:\n", "utf-8")
    assert _checks(_machine(tmp_path, {}))["Memory"].status == "unknown"
    (tmp_path / "proc/meminfo").write_text(_LINUX["proc/meminfo"], "utf-8")
    checks = _checks(_machine(tmp_path, {}))
    assert checks["Memory"].status == "unknown"
    assert checks["Operating system"].found == "Linux"


def test_linux_inside_windows_is_named(tmp_path: Path) -> None:
    files = {"proc/sys/kernel/osrelease": "5.15.167.4-microsoft-standard-WSL2\n"}
    assert _checks(_machine(tmp_path, files))["Operating system"].found.endswith("in Windows (WSL)")


@pytest.mark.parametrize(
    ("python", "status"), [("3.10.12", "bad"), ("3.11.0", "good"), ("3.15.0a3", "good"), ("?", "unknown")]
)
def test_python_before_3_11_is_bad(tmp_path: Path, python: str, status: str) -> None:
    check = _checks(_machine(tmp_path, {}, python=python))["Python"]
    assert check.status == status
    assert bool(check.fix) == (status == "bad")


def test_a_newer_python_is_asked_for_in_the_words_of_the_system(tmp_path: Path) -> None:
    linux, windows = (_machine(tmp_path, {}, system=system, python="3.9.1") for system in ("Linux", "Windows"))
    assert _checks(linux)["Python"].fix == "python3.12 -m venv .venv\n.venv/bin/pip install linne"
    assert _checks(windows)["Python"].fix == "py -3.12 -m venv .venv\n.venv\\Scripts\\pip install linne"


@pytest.mark.parametrize(
    ("free", "status"), [(10 * _GIB, "good"), (2 * _GIB, "warning"), (100 * 2**20, "bad"), (None, "unknown")]
)
def test_a_full_disk_is_bad_and_a_small_one_a_warning(tmp_path: Path, free: int | None, status: str) -> None:
    assert _checks(_machine(tmp_path, {}), replace(_ROOMY, disk_free=free))["Disk"].status == status


def test_the_64_mib_of_docker_are_a_note_as_linne_needs_none(tmp_path: Path) -> None:
    check = _checks(_machine(tmp_path, {}), replace(_ROOMY, shared_size=64 * 2**20))["Shared memory"]
    assert (check.status, check.found.split(":")[0]) == ("note", "64 MiB in `/dev/shm`")
    assert check.fix == ""
    check = _checks(_machine(tmp_path, {".dockerenv": ""}), replace(_ROOMY, shared_size=64 * 2**20))["Shared memory"]
    assert check.fix == "for a program that does: docker run --shm-size 8g"


@pytest.mark.parametrize(
    ("soft", "most", "status", "fix"),
    [
        (64, 2**20, "warning", "ulimit -n 4096"),
        (256, 1024, "note", "ulimit -n 1024"),
        (64, 64, "warning", "have the administrator raise the limit (`nofile`)"),
        (64, None, "warning", "ulimit -n 4096"),
        (None, None, "unknown", ""),
    ],
)
def test_few_open_files_come_with_the_command_that_allows_more(
    tmp_path: Path, soft: int | None, most: int | None, status: str, fix: str
) -> None:
    check = _checks(_machine(tmp_path, {}), replace(_ROOMY, open_files=soft, open_files_most=most))["Open files"]
    assert (check.status, check.fix) == (status, fix)


@pytest.mark.parametrize(("system", "names"), [("Windows", set()), ("Darwin", {"Open files"})])
def test_other_systems_are_not_asked_what_only_linux_has(tmp_path: Path, system: str, names: set[str]) -> None:
    checks = _checks(_machine(tmp_path, {}, system=system))
    assert set(checks) == {"Operating system", "Python", "Disk"} | names
    assert not [check for check in checks.values() if check.status in ("bad", "warning")]


def test_this_very_machine_is_read_without_an_exception() -> None:
    section = system_section(Machine())
    assert [check.name for check in section.checks][:4] == ["Operating system", "Python", "Memory", "Disk"]
    assert limits_here().disk_free is not None
