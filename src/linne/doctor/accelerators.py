"""The GPUs of the machine, their drivers, and whether this user may use them; no device is touched."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from linne.doctor.amd_library import ask_amd_library, library_check
from linne.doctor.gpu import AMD, INTEL, NVIDIA, Gpu, merge
from linne.doctor.machine import Machine
from linne.doctor.report import Check, Section, Status
from linne.doctor.sysfs import gpus_of_files, nvidia_version
from linne.doctor.tools import gpus_of_tools

_HIDING = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
_ON_CPU = "everything runs on the CPU"


@dataclass(frozen=True, kw_only=True, slots=True)
class Looked:
    """The GPUs of a machine, and a check for each program or library that could not be asked about them."""

    gpus: tuple[Gpu, ...]
    silent: tuple[Check, ...] = ()


def look(machine: Machine) -> Looked:
    """Return the GPUs of the machine by the kernel's files; what is left open, by AMD's package, then tools."""
    library, told = ask_amd_library(machine), gpus_of_tools(machine)
    answers = [library.gpus if library else (), *(answer or () for answer in told.values())]
    gpus = functools.reduce(merge, answers, gpus_of_files(machine))
    silent = library_check(library, gpus) if library else []
    silent += [_unreadable(tool) for tool, answer in told.items() if answer is None]
    return Looked(gpus=tuple(gpus), silent=tuple(silent))


def find_gpus(machine: Machine) -> list[Gpu]:
    """Return the GPUs of the machine."""
    return list(look(machine).gpus)


def accelerator_section(machine: Machine, looked: Looked | None = None) -> Section:
    """Return what there is to compute on besides the CPU and what keeps it from being used.

    `looked` is what `look(machine)` returned, where that has been called already.
    """
    looked = look(machine) if looked is None else looked
    gpus = looked.gpus
    checks = [_gpu(gpu) for gpu in gpus] or [_none(machine)]
    if any(gpu.vendor == NVIDIA for gpu in gpus) and machine.system == "Linux":
        checks.append(_nvidia_driver(machine, gpus))
    in_wsl = machine.exists("dev/dxg")  # GPUs are reached through Windows there, with none of the nodes of Linux
    if any(gpu.vendor == AMD for gpu in gpus) and machine.system == "Linux" and not in_wsl:
        checks += [_kfd(machine), _render_nodes(machine)]
    elif any(gpu.vendor == INTEL for gpu in gpus) and machine.system == "Linux" and not in_wsl:
        checks.append(_render_nodes(machine))
    checks += looked.silent
    return Section(title="Accelerators", checks=(*checks, *_environment(machine.environ)))


def _gpu(gpu: Gpu) -> Check:
    memory = f"{gpu.memory_bytes / 2**30:.1f} GiB" if gpu.memory_bytes else "memory unknown"
    split = f", split into {gpu.partitions}" if gpu.partitions > 1 else ""
    driver = f"driver {gpu.driver}" if gpu.driver else "driver version unknown"
    return Check(
        name=f"{gpu.vendor} GPU {gpu.bus_id or ''}".strip(),
        status="good",
        found=f"{gpu.name or 'name unknown'}, {gpu.arch or 'architecture unknown'}, {memory}, {driver}{split}",
        details=dataclasses.asdict(gpu) | {"evidence": list(gpu.evidence)},
    )


def _none(machine: Machine) -> Check:
    if machine.system == "Darwin":
        return Check(
            name="GPU",
            status="note",
            found="macOS lists no GPU in files",
            why="the proof below tries Metal (mps) itself",
        )
    if machine.system == "Windows":
        return Check(
            name="GPU",
            status="unknown",
            found="no vendor tool answered, and Windows lists no GPU in files",
            why="a GPU may be there: the proof below says what torch can use",
        )
    if machine.exists("dev/dxg"):
        found = "WSL passes on a GPU of Windows (/dev/dxg), whose name no tool here says"
        return Check(name="GPU", status="note", found=found, why="the proof below says what torch can use")
    return Check(name="GPU", status="note", found="none found by the kernel or by any tool", why=_ON_CPU)


def _nvidia_driver(machine: Machine, gpus: Sequence[Gpu]) -> Check:
    name, version = "NVIDIA driver", nvidia_version(machine)
    told = next((gpu.driver for gpu in gpus if gpu.vendor == NVIDIA and gpu.driver), None)
    if version is None and told is None:
        bound = next((gpu.module for gpu in gpus if gpu.vendor == NVIDIA and gpu.module), None)
        return Check(
            name=name,
            status="bad",
            found=f"no NVIDIA driver is loaded{f': the GPU is bound to {bound}' if bound else ''}",
            why="CUDA needs NVIDIA's own driver, whatever is installed in Python",
            fix="install it (Ubuntu: sudo ubuntu-drivers install), restart, then run: nvidia-smi",
        )
    node = "dev/nvidiactl"
    if not machine.exists(node) and not machine.exists("dev/dxg"):
        return Check(
            name=name,
            status="bad",
            found=f"driver {version or told} is loaded, but /{node} is missing",
            why="without the device nodes CUDA finds no GPU; in a container they have to be passed on",
            fix="in a container: start it with docker run --gpus all; else run: sudo nvidia-modprobe -u -c=0",
        )
    blocked = [path for path in machine.paths("dev/nvidia[0-9]*") if not machine.may_use(path)]
    if blocked:
        found = f"driver {version or told} is loaded, but this user may not open {_shown(machine, blocked)}"
        fix = f"ls -l {_shown(machine, blocked)} shows the group that may; then: sudo usermod -aG GROUP $USER"
        return Check(name=name, status="bad", found=found, why=_ON_CPU, fix=fix)
    return Check(name=name, status="good", found=f"{version or told}")


def _kfd(machine: Machine) -> Check:
    name, why = "Access to /dev/kfd", "ROCm computes through this device alone"
    if not machine.exists("dev/kfd"):
        return Check(
            name=name,
            status="bad",
            found="/dev/kfd does not exist",
            why=why,
            fix="in a container: start it with --device=/dev/kfd --device=/dev/dri; else run: sudo modprobe amdgpu",
        )
    return _permitted(machine, name, why, [machine.root / "dev/kfd"])


def _render_nodes(machine: Machine) -> Check:
    name, why = "Access to /dev/dri/renderD*", "each GPU is opened through its render node"
    nodes = list(machine.paths("dev/dri/renderD*"))
    if not nodes:
        return Check(
            name=name,
            status="bad",
            found="there is no /dev/dri/renderD*",
            why=why,
            fix="in a container: start it with --device=/dev/dri; else see: sudo dmesg | grep -iE 'amdgpu|i915|xe'",
        )
    return _permitted(machine, name, why, nodes)


def _permitted(machine: Machine, name: str, why: str, nodes: Sequence[Path]) -> Check:
    blocked = [node for node in nodes if not machine.may_use(node)]
    details = {"nodes": [f"/{node.relative_to(machine.root).as_posix()}" for node in nodes]}
    if not blocked:
        return Check(name=name, status="good", found="present and permitted", why=why, details=details)
    # One usable node of many is a machine shared out on purpose.
    status: Status = "bad" if len(blocked) == len(nodes) else "warning"
    return Check(
        name=name,
        status=status,
        found=f"this user may not open {_shown(machine, blocked)}",
        why=f"{why}; the commonest reason that ROCm and XPU find no GPU",
        fix="sudo usermod -aG render,video $USER, then log in again; in a container add --group-add with the number "
        f"that this prints on the host: stat -c %g {_shown(machine, blocked[:1])}",
        details=details | {"blocked": [f"/{node.relative_to(machine.root).as_posix()}" for node in blocked]},
    )


def _shown(machine: Machine, nodes: Sequence[Path]) -> str:
    return " ".join(f"/{node.relative_to(machine.root).as_posix()}" for node in nodes)


def _unreadable(tool: str) -> Check:
    return Check(
        name=tool,
        status="unknown",
        found="its answer could not be read, or it did not answer",
        why="it names the GPU and its memory; the facts above come from the kernel where there are any",
        fix=f"see what it prints: {tool}",
    )


def _environment(environ: Mapping[str, str]) -> list[Check]:
    checks = []
    overrides = {key: value for key, value in environ.items() if key.startswith("HSA_OVERRIDE_GFX_VERSION")}
    if overrides:
        found = ", ".join(f"{key}={value}" for key, value in sorted(overrides.items()))
        why = "ROCm then takes the GPU for another; AMD does not support it, and results may be wrong"
        checks.append(
            Check(
                name="Overridden architecture",
                status="warning",
                found=found,
                why=why,
                fix=f"try without: unset {' '.join(sorted(overrides))}",
                details=overrides,
            )
        )
    hiding = {key: environ[key] for key in _HIDING if key in environ}
    if hiding:
        found = ", ".join(f"{key}={value or '(empty)'}" for key, value in hiding.items())
        nothing = any(value.strip() in ("", "-1") for value in hiding.values())
        checks.append(
            Check(
                name="Hidden devices",
                status="warning" if nothing else "note",
                found=found,
                why=f"it hides {'every GPU' if nothing else 'the other GPUs'} of that kind from torch",
                fix=f"unset {' '.join(hiding)}" if nothing else "",
                details=hiding,
            )
        )
    return checks
