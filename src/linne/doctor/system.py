"""The machine below the packages: operating system, Python, memory, disk, and the limits a container sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from linne.doctor import advice
from linne.doctor.compatibility import numbers
from linne.doctor.report import Check, Section, Status
from linne.host import available_memory_bytes, total_memory_bytes

if TYPE_CHECKING:
    from linne.doctor.machine import Limits, Machine

_GIB = 2**30
_LEAST_MEMORY = 2 * _GIB
"""torch with a GPU's libraries takes about a gigabyte before the first image."""
_LEAST_DISK, _GOOD_DISK = _GIB // 2, 5 * _GIB
"""A bundle of a small model and a run take tens of megabytes; torch for a GPU is 3 to 5 GiB."""
_GOOD_SHARED = _GIB
_LEAST_FILES, _GOOD_FILES = 256, 1024
"""256 is what macOS gives, 1024 what most of Linux does; GPU runtimes hold hundreds."""
_LEAST_PYTHON = (3, 11)


def system_section(machine: Machine) -> Section:
    """Return what the operating system gives."""
    checks = [_operating_system(machine), _python(machine)]
    if machine.system == "Linux":
        checks.append(_memory(machine))
    checks.append(_disk_check(machine.limits))
    if machine.system == "Linux":
        checks.append(_shared_memory(machine))
    if machine.system != "Windows":
        checks.append(_files_check(machine.limits))
    return Section(title="System", checks=tuple(checks))


def _operating_system(machine: Machine) -> Check:
    kernel = machine.read_text("proc/sys/kernel/osrelease") or ""
    name, inside = _os_name(machine), advice.container(machine)
    around = [f"in {advice.CONTAINERS.get(inside, f'a container ({inside})')}"] if inside else []
    around += ["in Windows (WSL)"] if "microsoft" in kernel.lower() else []
    found = ", ".join([name, *([f"kernel {kernel}"] if kernel else []), *around])
    details = {"system": machine.system, "name": name, "kernel": kernel or None, "inside": inside or None}
    return Check(name="Operating system", status="note", found=found, details=details)


def _os_name(machine: Machine) -> str:
    for line in (machine.read_text("etc/os-release") or "").splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME" and value.strip("\"' "):
            return value.strip("\"' ")
    return machine.system_name


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
        fix="py -3.12 -m venv .venv\n.venv\\Scripts\\pip install linne"
        if machine.system == "Windows"
        else "python3.12 -m venv .venv\n.venv/bin/pip install linne",
        details=details,
    )


def _memory(machine: Machine) -> Check:
    total = total_memory_bytes(machine.root)
    if total is None:
        return Check(name="Memory", status="unknown", found="how much there is could not be read")
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
        fix="start the container again with: docker run --memory 8g"
        if advice.container(machine)
        else "close other programs",
        details=details,
    )


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


def _shared_memory(machine: Machine) -> Check:
    name, size = "Shared memory", machine.limits.shared_size
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
        fix="for a program that does: docker run --shm-size 8g" if advice.container(machine) else "",
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


def _size(count: int) -> str:
    return f"{count / _GIB:,.1f} GiB" if count >= _GIB else f"{count / 2**20:,.0f} MiB"
