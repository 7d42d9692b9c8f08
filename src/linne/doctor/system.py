"""The machine below the packages: operating system, Python, memory, disk, and the limits a container sets."""

from __future__ import annotations

import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from linne.doctor.compatibility import numbers
from linne.doctor.report import Check, Section, Status
from linne.host import available_memory_bytes

if TYPE_CHECKING:
    from linne.doctor.machine import Machine

_GIB = 2**30
_LEAST_MEMORY = 2 * _GIB
"""torch with a GPU's libraries takes about a gigabyte before the first image."""
_LEAST_DISK, _GOOD_DISK = _GIB // 2, 5 * _GIB
"""A bundle of a small model and a run take tens of megabytes; torch for a GPU is 3 to 5 GiB."""
_GOOD_SHARED = _GIB
_LEAST_FILES, _GOOD_FILES = 256, 1024
"""256 is what macOS gives, 1024 what most of Linux does; GPU runtimes hold hundreds."""
_LEAST_PYTHON = (3, 11)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What only the running system can say, apart from files: free bytes, and how many files may be open.

    None where the system does not say. `disk_free` is of `folder`.
    """

    folder: str
    disk_free: int | None
    shared_size: int | None
    open_files: int | None
    open_files_most: int | None


def limits_here() -> Limits:
    """Return the limits of this process, in the folder it runs in."""
    soft, hard = _open_files()
    return Limits(
        folder=_folder(),
        disk_free=_disk(".", "free"),
        shared_size=_disk("/dev/shm", "total") if sys.platform == "linux" else None,
        open_files=soft,
        open_files_most=hard,
    )


def system_section(machine: Machine, limits: Limits | None = None) -> Section:
    """Return what the operating system gives; `limits` stands in for this process's own in tests."""
    limits = limits_here() if limits is None else limits
    checks = [_operating_system(machine), _python(machine), _memory(machine), _disk_check(limits)]
    if machine.system == "Linux":
        checks.append(_shared_memory(limits))
    if machine.system != "Windows":
        checks.append(_files_check(limits))
    return Section(title="System", checks=tuple(checks))


def _operating_system(machine: Machine) -> Check:
    kernel = machine.read_text("proc/sys/kernel/osrelease") or ""
    name = _os_name(machine)
    around = _container(machine, kernel)
    found = name + (f", kernel {kernel}" if kernel else "") + (f", in {around}" if around else "")
    details = {"system": machine.system, "name": name, "kernel": kernel or None, "inside": around or None}
    return Check(name="Operating system", status="note", found=found, details=details)


def _os_name(machine: Machine) -> str:
    for line in (machine.read_text("etc/os-release") or "").splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME" and value.strip("\"' "):
            return value.strip("\"' ")
    # A machine of a fixture is not this one, and has no more than its name.
    return platform.platform() if machine.system == platform.system() and machine.root == Path("/") else machine.system


def _container(machine: Machine, kernel: str) -> str:
    if "microsoft" in kernel.lower():
        return "Windows (WSL)"
    marks = {".dockerenv": "a Docker container", "run/.containerenv": "a Podman container"}
    return next((name for mark, name in marks.items() if machine.exists(mark)), "")


def _python(machine: Machine) -> Check:
    version = machine.python_version
    parts = numbers(version)
    if parts is None:
        return Check(name="Python", status="unknown", found=f"its version reads `{version}`")
    details = {"version": version}
    if parts[:2] >= _LEAST_PYTHON:
        return Check(name="Python", status="good", found=version, details=details)
    return Check(
        name="Python",
        status="bad",
        found=f"{version}, and linne needs 3.11 or newer",
        why="it is written in the Python of 3.11",
        fix="python3.12 -m venv .venv && .venv/bin/pip install linne",
        details=details,
    )


def _memory(machine: Machine) -> Check:
    total = _total_memory(machine)
    if total is None:
        found = f"{machine.system} does not say how much there is in a way linne reads"
        return Check(name="Memory", status="unknown" if machine.system == "Linux" else "note", found=found)
    try:
        left = available_memory_bytes(machine.root)
    except (IndexError, ValueError):  # files that are written as no kernel does
        return Check(name="Memory", status="unknown", found=f"{_size(total)}, and how much is left could not be read")
    found = f"{_size(left)} can be used of {_size(total)}, control groups counted"
    details = {"total_bytes": total, "available_bytes": left}
    if left >= _LEAST_MEMORY:
        return Check(name="Memory", status="good", found=found, details=details)
    return Check(
        name="Memory",
        status="warning",
        found=found,
        why="torch takes about 1 GiB before the first image; a process that passes the limit is killed without a word",
        fix="close other programs, or give the container more: `docker run --memory 8g`",
        details=details,
    )


def _total_memory(machine: Machine) -> int | None:
    for line in (machine.read_text("proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            words = line.split()
            return int(words[1]) * 1024 if len(words) > 1 and words[1].isdecimal() else None
    return None


def _disk_check(limits: Limits) -> Check:
    if limits.disk_free is None:
        return Check(
            name="Disk", status="unknown", found=f"how much of it is free in `{limits.folder}` could not be read"
        )
    status: Status = "good" if limits.disk_free >= _GOOD_DISK else "warning"
    if limits.disk_free < _LEAST_DISK:
        status = "bad"
    return Check(
        name="Disk",
        status=status,
        found=f"{_size(limits.disk_free)} free in `{limits.folder}`",
        why="" if status == "good" else "runs, bundles and data are written; a full disk ends a training in the middle",
        fix="" if status == "good" else "free some, or work in a folder on another disk",
        details={"folder": limits.folder, "free_bytes": limits.disk_free},
    )


def _shared_memory(limits: Limits) -> Check:
    name, size = "Shared memory", limits.shared_size
    if size is None:
        return Check(name=name, status="note", found="there is no `/dev/shm`")
    details = {"size_bytes": size}
    if size >= _GOOD_SHARED:
        return Check(name=name, status="good", found=f"{_size(size)} in `/dev/shm`", details=details)
    return Check(
        name=name,
        status="note",
        found=f"{_size(size)} in `/dev/shm`: linne needs none of it, as it decodes in threads; other programs may",
        why="PyTorch's own loaders and training on several GPUs exchange data through it, and end with a bus error",
        fix="if a program does: `docker run --shm-size 8g` or `--ipc host`",
        details=details,
    )


def _files_check(limits: Limits) -> Check:
    soft, most = limits.open_files, limits.open_files_most
    if soft is None:
        return Check(name="Open files", status="unknown", found="how many may be open could not be read")
    details = {"soft": soft, "hard": most}
    if soft >= _GOOD_FILES:
        return Check(name="Open files", status="good", found=f"{soft:,} may be open at once", details=details)
    wanted = 4096 if most is None else min(4096, most)
    return Check(
        name="Open files",
        status="warning" if soft < _LEAST_FILES else "note",
        found=f"{soft:,} may be open at once",
        why="the runtime of a GPU, shards and a server's clients each hold some",
        fix=f"ulimit -n {wanted}" if wanted > soft else "have the administrator raise the limit (`nofile`)",
        details=details,
    )


def _open_files() -> tuple[int | None, int | None]:
    """Return the soft and the hard limit; None where there is none to be read, and for a hard one without end."""
    try:
        import resource  # not on Windows

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    except (ImportError, OSError, ValueError):
        return None, None
    endless = resource.RLIM_INFINITY
    return (2**31 if soft == endless else soft), (None if hard == endless else hard)


def _folder() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # removed under our feet
        return "."


def _disk(path: str, of: str) -> int | None:
    try:
        return int(getattr(shutil.disk_usage(path), of))
    except OSError:
        return None


def _size(count: int) -> str:
    return f"{count / _GIB:,.1f} GiB" if count >= _GIB else f"{count / 2**20:,.0f} MiB"
