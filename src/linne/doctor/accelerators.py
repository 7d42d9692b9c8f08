"""The GPUs of the machine, their drivers, and whether this user may use them; no device is touched."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from linne.doctor import advice
from linne.doctor.amd_library import ask_amd_library, library_check
from linne.doctor.gpu import AMD, INTEL, NVIDIA, VENDORS, Gpu, best_gpu, is_integrated, merge
from linne.doctor.machine import Machine
from linne.doctor.report import Check, Section, Status
from linne.doctor.sysfs import gpus_of_files, pci_name
from linne.doctor.tools import Told, gpus_of_tools
from linne.host import nvidia_driver_version

_HIDING = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
_ON_CPU = "everything runs on the CPU"
_NO_COMPUTING = ("nouveau", "vfio-pci", "simple-framebuffer")
"""Kernel modules that may hold a GPU and let nobody compute on it."""
_NUMBERS = {vendor: number for number, vendor in VENDORS.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Looked:
    """The GPUs of a machine, what each tool said of them, and a check for whatever could not be asked."""

    gpus: tuple[Gpu, ...]
    told: Mapping[str, Told]
    silent: tuple[Check, ...] = ()


def look(machine: Machine) -> Looked:
    """Return the GPUs of the machine by the kernel's files; what is left open, by AMD's package, then tools."""
    library, told = ask_amd_library(machine), gpus_of_tools(machine)
    answers = [library.gpus if library else (), *(answer.gpus or () for answer in told.values())]
    gpus = [_named(machine, gpu) for gpu in functools.reduce(merge, answers, gpus_of_files(machine))]
    silent = library_check(library, gpus) if library else []
    silent += [_unreadable(tool, answer) for tool, answer in told.items() if answer.gpus is None]
    return Looked(gpus=tuple(gpus), told=told, silent=tuple(silent))


def _named(machine: Machine, gpu: Gpu) -> Gpu:
    if gpu.name or gpu.vendor not in _NUMBERS:
        return gpu
    return replace(gpu, name=pci_name(machine, _NUMBERS[gpu.vendor], gpu.device))


def accelerator_section(machine: Machine, looked: Looked | None = None) -> Section:
    """Return what there is to compute on besides the CPU and what keeps it from being used.

    `looked` is what `look(machine)` returned, where that has been called already.
    """
    looked = look(machine) if looked is None else looked
    checks = [_gpu(gpu) for gpu in looked.gpus] or [_none(machine)]
    vendors = {gpu.vendor for gpu in looked.gpus} if machine.system == "Linux" else set()
    if NVIDIA in vendors:
        checks.append(_nvidia_driver(machine, looked))
    in_wsl = machine.exists("dev/dxg")  # GPUs are reached through Windows there, with none of the nodes of Linux
    if AMD in vendors and not in_wsl:
        checks.append(_at_worst(_amd_nodes(machine), AMD, looked.gpus))
    elif INTEL in vendors and not in_wsl:
        checks.append(_at_worst(_render_nodes(machine), INTEL, looked.gpus))
    if all(check.status != "bad" for check in checks):  # else it is said why nothing answers
        checks += looked.silent
    return Section(title="Accelerators", checks=(*checks, *_environment(machine)))


def _gpu(gpu: Gpu) -> Check:
    facts = [gpu.name or "name unknown", *([gpu.arch] if gpu.arch else [])]
    if gpu.memory_bytes:
        shared = gpu.shared_bytes if is_integrated(gpu) else None
        also = f" of its own and {shared / 2**30:.1f} GiB of the machine's" if shared else ""
        facts.append(f"{gpu.memory_bytes / 2**30:.1f} GiB{also}")
    if gpu.driver:
        facts.append(f"driver {gpu.driver}")
    elif gpu.module:
        facts.append(
            f"held by {gpu.module}" if gpu.module in _NO_COMPUTING else f"the kernel's own {gpu.module} driver"
        )
    if gpu.partitions > 1:
        facts.append(f"split into {gpu.partitions}")
    driven = gpu.arch or gpu.driver or (gpu.module and gpu.module not in _NO_COMPUTING) or gpu.vendor not in _NUMBERS
    return Check(
        name=f"{gpu.vendor} GPU {gpu.bus_id or ''}".strip(),
        status="good" if driven else "note",
        found=", ".join(facts),
        details=dataclasses.asdict(gpu) | {"evidence": list(gpu.evidence)},
    )


def _none(machine: Machine) -> Check:
    if machine.system == "Linux" and machine.exists("dev/dxg"):
        found = "Windows passes one on (/dev/dxg), and no tool here says which"
        return Check(name="GPU", status="note", found=found, why="the proof below says what torch can use")
    if machine.system == "Linux":
        return Check(name="GPU", status="note", found="none found by the kernel or by any tool", why=_ON_CPU)
    return Check(
        name="GPU",
        status="unknown",
        found="no tool answered that lists GPUs, and there are no files that do",
        why="a GPU may be there: the proof below says what torch can use",
    )


def _nvidia_driver(machine: Machine, looked: Looked) -> Check:
    name, version = "NVIDIA driver", nvidia_driver_version(machine.root)
    told = next((gpu.driver for gpu in looked.gpus if gpu.vendor == NVIDIA and gpu.driver), None)
    smi = looked.told.get("nvidia-smi")
    if smi is not None and "version mismatch" in smi.said:
        text = f"{version or 'the driver'} is loaded, and its libraries are of another version"
        why = "it was updated, and the kernel still holds the old one: CUDA refuses the pair"
        return Check(name=name, status="bad", found=text, why=why, fix="sudo reboot")
    if version is None and told is None:
        return _no_nvidia_driver(machine, looked, name)
    node = "dev/nvidiactl"
    if not machine.exists(node) and not machine.exists("dev/dxg"):
        inside = advice.container(machine)
        return Check(
            name=name,
            status="bad",
            found=f"{version or told} is loaded, and /{node} is missing{' in this container' if inside else ''}",
            why=f"CUDA finds no GPU without the device nodes; {_ON_CPU}",
            fix=advice.pass_on(machine, NVIDIA) if inside else "sudo nvidia-modprobe -u -c=0",
        )
    blocked = [path for path in machine.paths("dev/nvidia[0-9]*") if not machine.may_use(path)]
    if blocked:
        text = f"{version or told} is loaded, and this user may not open {_shown(machine, blocked)}"
        return Check(name=name, status="bad", found=text, why=_ON_CPU, fix=advice.permit(machine, blocked))
    return Check(name=name, status="good", found=f"{version or told}")


def _no_nvidia_driver(machine: Machine, looked: Looked, name: str) -> Check:
    module = next((gpu.module for gpu in looked.gpus if gpu.vendor == NVIDIA and gpu.module), None)
    why = "CUDA needs NVIDIA's own driver, whatever is installed in Python"
    if module == "vfio-pci":
        text, fix = "not loaded: vfio-pci keeps the GPU for a virtual machine", "use it in that machine, or release it"
        return Check(name=name, status="bad", found=text, why=why, fix=fix)
    if "nvidia-smi" in looked.told and not advice.container(machine):
        fix = "sudo modprobe nvidia\nand if that fails: sudo dmesg | grep -iE 'nvidia|secure|lockdown'"
        return Check(name=name, status="bad", found="installed, and not loaded by the kernel", why=why, fix=fix)
    return Check(
        name=name,
        status="bad",
        found=f"not loaded{f': the GPU is held by {module}, which cannot compute' if module else ''}",
        why=why,
        fix=advice.install_nvidia_driver(machine),
    )


def _at_worst(check: Check, vendor: str, gpus: Sequence[Gpu]) -> Check:
    """Return a check of device nodes, as grave as the GPUs behind them: most processors hold small graphics as well."""
    best = best_gpu(gpus)
    if check.status not in ("bad", "warning") or best is None:
        return check
    if best.vendor != vendor:
        return replace(check, status="note")
    if all(is_integrated(gpu) for gpu in gpus if gpu.vendor == vendor):
        return replace(check, status="warning" if vendor == AMD else "note")
    return check


def _amd_nodes(machine: Machine) -> Check:
    why = "ROCm computes through /dev/kfd and the render nodes alone"
    if not machine.exists("dev/kfd"):
        # The kernel makes the node where it has the topology: what is missing then was kept out on purpose.
        kept_out = advice.container(machine) or machine.exists("sys/class/kfd")
        found, fix = "/dev/kfd does not exist", "sudo modprobe amdgpu"
        if kept_out:
            found, fix = f"{found} in this container", advice.pass_on(machine, AMD)
        elif machine.exists("sys/module/amdgpu"):
            found, fix = f"{found}, though the amdgpu driver is loaded", "sudo dmesg | grep -iE 'kfd|amdgpu'"
        return Check(name="Device nodes", status="bad", found=found, why=why, fix=fix)
    return _render_nodes(machine, [machine.root / "dev/kfd"], why)


def _render_nodes(
    machine: Machine, others: Sequence[Path] = (), why: str = "a GPU is opened by its render node"
) -> Check:
    nodes = list(machine.paths("dev/dri/renderD*"))
    if not nodes:
        vendor = AMD if others else INTEL
        kept_out = advice.container(machine)
        fix = advice.pass_on(machine, vendor) if kept_out else "sudo dmesg | grep -iE 'amdgpu|i915|xe'"
        return Check(name="Device nodes", status="bad", found="there is no /dev/dri/renderD*", why=why, fix=fix)
    blocked = [node for node in (*others, *nodes) if not machine.may_use(node)]
    details = {"nodes": [f"/{node.relative_to(machine.root).as_posix()}" for node in (*others, *nodes)]}
    if not blocked:
        found = f"{_shown(machine, [*others, *nodes])}: present and permitted"
        return Check(name="Device nodes", status="good", found=found, why=why, details=details)
    # One usable node of many is a machine shared out on purpose.
    shut = any(node in blocked for node in others) or all(node in blocked for node in nodes)
    status: Status = "bad" if shut else "warning"
    groups = advice.group_names(machine, blocked)
    return Check(
        name="Device nodes",
        status=status,
        found=f"this user may not open {_shown(machine, blocked)}{f', of the group {groups}' if groups else ''}",
        why=f"{why}; {_ON_CPU if shut else 'this GPU is not used'}",
        fix=advice.permit(machine, blocked),
        details=details | {"blocked": [f"/{node.relative_to(machine.root).as_posix()}" for node in blocked]},
    )


def _shown(machine: Machine, nodes: Sequence[Path]) -> str:
    names = [f"/{node.relative_to(machine.root).as_posix()}" for node in nodes]
    many = [name for name in names if name.startswith("/dev/dri/renderD")]
    if len(many) < 4:
        return ", ".join(names)
    others = [name for name in names if name not in many]
    return f"{' and '.join([*others, f'{len(many)} of /dev/dri/renderD*'])}"


def _unreadable(tool: str, answer: Told) -> Check:
    return Check(
        name=tool,
        status="unknown",
        found=f"names no GPU: `{answer.said}`",
        why="it knows names and memory; what stands above comes from elsewhere",
    )


def _environment(machine: Machine) -> list[Check]:
    checks, environ = [], machine.environ
    overrides = {key: environ[key] for key in sorted(environ) if key.startswith("HSA_OVERRIDE_GFX_VERSION")}
    if overrides:
        found = ", ".join(f"{key}={value}" for key, value in overrides.items())
        why = "ROCm then takes the GPU for another; AMD does not support it: it may hang, crash or compute wrongly"
        fix = advice.unset(machine, list(overrides))
        checks.append(Check(name="GPU override", status="warning", found=found, why=why, fix=fix, details=overrides))
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
                fix=advice.unset(machine, list(hiding)) if nothing else "",
                details=hiding,
            )
        )
    return checks
