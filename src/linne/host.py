"""The machine that programs run on, without torch: processor, memory, drivers, and how busy its cores are."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Mapping
from pathlib import Path

_NO_LIMIT = 2**60
"""Larger limits mean none; version 1 of control groups says so with a number near 2**63."""
_LONGEST_FILE = 1 << 20
"""Of what the kernel writes; /proc/cpuinfo of 256 cores has half of it."""


def cache_folder() -> Path:
    """Return where linne keeps what it can make again: `$LINNE_CACHE`, or the user's cache folder."""
    from platformdirs import user_cache_path

    stated = os.environ.get("LINNE_CACHE")
    return Path(stated).expanduser() if stated else user_cache_path("linne", appauthor=False)


def prepare_for_torch() -> None:
    """Set what torch reads from the environment as it is imported: how threads wait, and that fallbacks have names.

    GNU OpenMP spins for milliseconds by default. On cores that other programs use as well, a spinning thread keeps
    its partner from running, and training was seen to slow down ten to thirty times; on idle cores a spin of 1,000
    is as fast (docs/benchmarks/training-step.md, "Threads"). Intel's backend names the operators that it leaves to the
    CPU only where it is asked to. What is set already is left alone.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("PYTORCH_DEBUG_XPU_FALLBACK", "1")


def processes_here() -> int:
    """Return how many processes of this training share the machine, as torchrun says; 1 without it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def usable_cores() -> int:
    """Return how many cores this process may run on, where the system says so; else how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def others_use_of_cores(seconds: float = 0.2) -> float | None:
    """Return the share of the processor that other programs use now; None where the system does not say.

    This process sleeps while it is measured.
    """
    before = _processor_times()
    if before is None:
        return None
    time.sleep(seconds)
    after = _processor_times()
    if after is None or after[0] == before[0]:
        return None
    return 1.0 - (after[1] - before[1]) / (after[0] - before[0])


def _processor_times() -> tuple[int, int] | None:
    """Return the ticks of all cores since the start of the system, and how many of them were idle."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            ticks = [int(text) for text in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    return (sum(ticks), ticks[3] + ticks[4]) if len(ticks) == 8 else None


def accelerator_files(root: Path = Path("/")) -> tuple[str, ...]:
    """Return the device files that a program would compute with on an accelerator; none where the system has no such.

    `/dev/dri` alone is no sign: every display has it. On macOS and Windows there are no such files, and the first
    accelerator is named for what it is: `Apple silicon`, `a GPU of Windows, perhaps`.
    """
    if platform.system() == "Darwin":
        return ("Apple silicon",) if platform.machine() == "arm64" else ()
    if platform.system() == "Windows":
        return ("a GPU of Windows, perhaps",)
    names = ("nvidiactl", "kfd", "accel/accel0", "davinci_manager", "dxg")
    return tuple(f"/dev/{name}" for name in names if (root / "dev" / name).exists())


def accelerator_names(root: Path = Path("/")) -> tuple[str, ...]:
    """Return model and driver of each GPU that the kernel's files name, without a tool or a library being asked."""
    found = []
    for path in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        model = re.search(r"^Model:\s*(.+)$", _text(path), re.MULTILINE)
        found.append(
            f"{model[1].strip() if model else 'NVIDIA GPU'}, driver {nvidia_driver_version(root) or 'unknown'}"
        )
    for path in sorted((root / "sys/class/kfd/kfd/topology/nodes").glob("*/properties")):
        target = re.search(r"^gfx_target_version (\d+)$", _text(path), re.MULTILINE)
        if target and target[1] != "0":  # 0 is a processor
            found.append(f"AMD GPU {target[1]}, driver {amdgpu_driver_version(root) or 'of the kernel'}")
    return tuple(found)


def gfx_of(version: int) -> str | None:
    """Return `gfx90a` for 90010; None for what is none. As AMD's rocm_agent_enumerator decodes it."""
    if not 0 < version < 10_000_000:
        return None
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"


def first_amd_architecture(environ: Mapping[str, str] = os.environ, root: Path = Path("/")) -> str | None:
    """Return the architecture, as `gfx942`, of the GPU that ROCm's programs take; None where the kernel names none.

    `ROCR_VISIBLE_DEVICES` and `HIP_VISIBLE_DEVICES` are heeded where they hold numbers, and so is
    `HSA_OVERRIDE_GFX_VERSION`, by which a GPU passes for another.
    """
    disguise = re.fullmatch(r"(\d{1,3})\.(\d{1,2})\.(\d{1,2})", environ.get("HSA_OVERRIDE_GFX_VERSION", ""))
    if disguise is not None:
        return gfx_of(int(disguise[1]) * 10_000 + int(disguise[2]) * 100 + int(disguise[3]))
    nodes = (root / "sys/class/kfd/kfd/topology/nodes").glob("*/properties")
    texts = [_text(path) for path in sorted(nodes, key=lambda path: (len(path.parent.name), path.parent.name))]
    found = [re.search(r"^gfx_target_version (\d{1,9})$", text, re.MULTILINE) for text in texts]
    names = [name for match in found if match and (name := gfx_of(int(match[1]))) is not None]
    for variable in ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        said = environ.get(variable, "").split(",")
        if all(number.strip().isdecimal() for number in said):
            names = [names[int(number)] for number in said if int(number) < len(names)]
    return names[0] if names else None


def processor_name() -> str | None:
    """Return what the processor calls itself; None where the system does not say."""
    found = re.search(r"^model name\s*:\s*(.+)$", _text(Path("/proc/cpuinfo")), re.MULTILINE)
    return found[1].strip() if found else None


def processor_features() -> str:
    """Return what programs choose their instructions by: the processor's name and what it can do; empty if unknown."""
    text = _text(Path("/proc/cpuinfo"))
    found = [re.search(rf"^{key}\s*:\s*(.+)$", text, re.MULTILINE) for key in ("model name", "flags", "Features")]
    known = "\n".join(line[1].strip() for line in found if line)
    return known or f"{platform.machine()} {platform.processor()}".strip()


def nvidia_driver_version(root: Path = Path("/")) -> str | None:
    """Return the version of NVIDIA's driver where its kernel module is loaded; WSL and Windows have no such file."""
    found = re.search(
        r"Kernel Module\b.*?\s(\d{2,4}\.\d+(?:\.\d+)?)(?=\s|$)", _text(root / "proc/driver/nvidia/version"), re.ASCII
    )
    return found[1] if found else None


def amdgpu_driver_version(root: Path = Path("/")) -> str | None:
    """Return the version of the amdgpu driver; None for the one of the Linux kernel, which names none."""
    return _text(root / "sys/module/amdgpu/version").strip() or None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LONGEST_FILE).decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""


def total_memory_bytes(root: Path = Path("/")) -> int | None:
    """Return all the memory of the machine; None where the system does not say."""
    found = re.search(r"^MemTotal:\s*(\d{1,15}) kB\s*$", _text(root / "proc/meminfo"), re.MULTILINE | re.ASCII)
    return int(found[1]) * 1024 if found else None


def available_memory_bytes(root: Path = Path("/")) -> int:
    """Return how much memory this process can still take; 4 GiB where the system does not say.

    The least of what the kernel counts as available and what is left of the limits of its control groups: inside a
    container the kernel's number is that of the whole machine. `root` is where `proc` and `sys` are.
    """
    return min([_available(root), *_left_in_groups(root)])


def _available(root: Path) -> int:
    try:
        with open(root / "proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 4 * 2**30


def _left_in_groups(root: Path) -> list[int]:
    """Return what each limit on memory leaves: of this process's control group and of all above it."""
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return []
    left: list[int] = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":  # version 2
            folder, limit, used = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            folder, limit, used = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        parts = [part for part in group.split("/") if part]
        # In a container the path may be the host's, of which only the end, or nothing, is there.
        for depth in range(len(parts) + 1):
            most, taken = (_number(folder.joinpath(*parts[:depth], name)) for name in (limit, used))
            if most is not None and taken is not None and most < _NO_LIMIT:
                left.append(max(most - taken, 0))
    return left


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):  # not there, or `max`
        return None
