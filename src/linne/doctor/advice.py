"""What to type on this machine, by its distribution, its container and its GPU, from dated tables.

Every answer is lines: a command each, or a sentence where there is no command.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linne.doctor.compatibility import newest_cuda_for, products, torch_index
from linne.doctor.gpu import AMD, INTEL, NVIDIA, Gpu

if TYPE_CHECKING:
    from linne.doctor.machine import Machine

CONTAINERS = {"docker": "a Docker container", "podman": "a Podman container", "kubernetes": "a Kubernetes pod"}
_FLAGS = {
    ("docker", NVIDIA): "docker run --gpus all",
    ("docker", AMD): "docker run --device /dev/kfd --device /dev/dri",
    ("docker", INTEL): "docker run --device /dev/dri",
    ("podman", NVIDIA): "podman run --device nvidia.com/gpu=all",
    ("podman", AMD): "podman run --device /dev/kfd --device /dev/dri --group-add keep-groups",
    ("podman", INTEL): "podman run --device /dev/dri --group-add keep-groups",
}
_LEAST_FOR_CUDA_13 = 75
"""Turing, as the rows of `torch_builds.csv` say."""
_DEVICES = {NVIDIA: "/dev/nvidia*", AMD: "/dev/kfd and /dev/dri", INTEL: "/dev/dri"}
_TOOLKIT = "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html"


def container(machine: Machine) -> str:
    """Return `docker`, `podman`, `kubernetes` or what else the container calls itself; empty where there is none."""
    if "KUBERNETES_SERVICE_HOST" in machine.environ:
        return "kubernetes"
    marks = {"docker": ".dockerenv", "podman": "run/.containerenv"}
    marked = next((name for name, mark in marks.items() if machine.exists(mark)), "")
    return marked or machine.environ.get("container", "") or machine.read_text("run/systemd/container") or ""


def pass_on(machine: Machine, vendor: str) -> str:
    """Return how a container is given the GPU of its host."""
    kind = container(machine)
    if kind == "kubernetes":
        return "ask for a GPU in the pod's `resources.limits`, through the device plugin of its vendor"
    flags = _FLAGS.get((kind, vendor))
    if flags is None:
        return f"pass {_DEVICES[vendor]} of the host on to this container"
    needs = f"\nwhich needs NVIDIA's toolkit on the host: {_TOOLKIT}" if vendor == NVIDIA else ""
    return f"start the container again with: {flags}{needs}"


def install_nvidia_driver(machine: Machine, least: str = "") -> str:
    """Return how NVIDIA's driver is installed or updated here; `least` is the oldest that will do."""
    table = _table("nvidia_driver")
    which = f"NVIDIA's driver{f', {least} or newer' if least else ''}"
    if machine.system == "Windows":
        return f"install {which}: {table['windows']}"
    if machine.exists("dev/dxg"):
        return f"install {which}, in Windows, not here: {table['windows']}"
    if container(machine):
        return f"on the host, install {which}: {table['linux']}"
    if "ubuntu" in _distribution(machine):
        return "\n".join(table["ubuntu"])
    return f"install {which}: {table['linux']}\nsudo reboot"


def permit(machine: Machine, nodes: Sequence[Path]) -> str:
    """Return how this user gets to open device nodes that belong to a group it is not in."""
    numbers = sorted({number for node in nodes if (number := machine.group_of(node)) is not None})
    shown = " ".join(f"/{node.relative_to(machine.root).as_posix()}" for node in nodes)
    if kind := container(machine):
        return _permit_container(kind, numbers)
    groups = _groups(machine)
    named = [groups[number] for number in numbers if number in groups and number != 0]
    if not named or len(named) < len(numbers):
        return f"ls -l {shown}\nand have the administrator give this user's group access to them"
    user = machine.environ.get("USER") or machine.environ.get("LOGNAME")
    if user and all(user in members for _, members in named):
        return f"log out and in again: `{user}` has joined {_and([name for name, _ in named])} since this session began"
    return f"sudo usermod -aG {','.join(name for name, _ in named)} $USER\nthen log out and in again"


def _permit_container(kind: str, groups: Sequence[int]) -> str:
    """Return how the process of a container gets into groups of its host, whose names mean nothing inside."""
    match kind:
        case "docker":
            return "start the container again with: docker run " + " ".join(f"--group-add {group}" for group in groups)
        case "podman":
            return "start the container again with: podman run --group-add keep-groups"
        case "kubernetes":
            return f"add to the pod's `securityContext`: supplementalGroups: {list(groups)}"
        case _:
            return f"put this container's user into the groups {' and '.join(map(str, groups))} of the host"


def group_names(machine: Machine, nodes: Sequence[Path]) -> str:
    """Return the names of the groups that device nodes belong to, empty where they have none."""
    groups = _groups(machine)
    numbers = (machine.group_of(node) for node in nodes)
    return _and(sorted(groups[number][0] for number in numbers if number is not None and number in groups))


def install_torch(machine: Machine, gpu: Gpu | None, *, replace: bool) -> str:
    """Return how to install torch for a GPU, or for the CPU without one; empty where no build is known.

    `replace` is whether there is a torch, which pip would take for good enough.
    """
    line = _torch_line(machine, gpu)
    return f"pip uninstall -y torch torchvision\n{line}" if replace and line.startswith("pip") else line


def _torch_line(machine: Machine, gpu: Gpu | None) -> str:
    system = {"Darwin": "macOS"}.get(machine.system, machine.system)
    if gpu is None:
        return _from(torch_index("cpu", system))
    if gpu.vendor == AMD:
        return _torch_for_amd(machine, gpu)
    if gpu.vendor != NVIDIA:
        return _from(torch_index({INTEL: "xpu"}.get(gpu.vendor, "mps"), system))
    # Without a driver yet, the newest, which the newest driver runs.
    newest = newest_cuda_for(gpu.driver) if gpu.driver else "13"
    if newest not in ("12", "13"):
        return ""
    capability = re.fullmatch(r"sm_(\d+)", gpu.arch or "")
    older = newest == "12" or (capability is not None and int(capability[1]) < _LEAST_FOR_CUDA_13)
    return _from(torch_index("cuda", system, "cu12" if older else ""))


def _torch_for_amd(machine: Machine, gpu: Gpu) -> str:
    """Return PyTorch's own build where it has code for the architecture, else AMD's, which comes a GPU at a time."""
    if machine.system == "Linux" and not machine.exists("dev/dxg"):
        for index, targets in _table("pytorch_rocm")["gfx_by_index"].items():
            if gpu.arch is None or gpu.arch in targets:
                return _from(torch_index("rocm", "Linux", index))
    if gpu.arch is not None and not products(gpu.arch):
        return ""
    # Where nothing says the architecture, all of them.
    extra = f"device-{gpu.arch or 'all'}"
    index = torch_index("rocm", "WSL" if machine.exists("dev/dxg") else machine.system, "amd.com")
    return f'pip install "torch[{extra}]" "torchvision[{extra}]" --index-url {index}' if index else ""


def _from(index: str | None, what: str = "torch torchvision") -> str:
    if index is None:
        return ""
    return f"pip install {what}" + ("" if index == "PyPI" else f" --index-url {index}")


def install_directml(machine: Machine) -> str:
    """Return how to install torch-directml with linne in an environment of its own; its wheels end at Python 3.12."""
    if machine.system == "Windows":
        return 'py -3.12 -m venv .venv-directml\n.venv-directml\\Scripts\\pip install "linne[train,directml]"'
    return 'python3.12 -m venv .venv-directml\n.venv-directml/bin/pip install "linne[train,directml]"'


def install_torchvision(what: str, tag: str) -> str:
    """Return how to install `what` from the index that a torch with this tag (`cu126`, `rocm6.4`) came from."""
    return _from(f"https://download.pytorch.org/whl/{tag}" if tag else "PyPI", what)


def unset(machine: Machine, names: Sequence[str]) -> str:
    """Return how variables of the environment are taken away."""
    if machine.system == "Windows":
        return "Remove-Item " + ", ".join(f"Env:{name}" for name in names)
    return f"unset {' '.join(names)}"


def _distribution(machine: Machine) -> set[str]:
    """Return the distribution's own name and those it descends from, as `/etc/os-release` has them."""
    lines = (line.partition("=") for line in (machine.read_text("etc/os-release") or "").splitlines())
    said = {key: value.strip("\"' ").lower() for key, _, value in lines}
    return {*said.get("ID", "").split(), *said.get("ID_LIKE", "").split()}


def _groups(machine: Machine) -> Mapping[int, tuple[str, tuple[str, ...]]]:
    """Return name and members of each group by its number."""
    groups = {}
    for line in (machine.read_text("etc/group") or "").splitlines():
        match line.split(":"):
            case [name, _, number, members] if number.isdecimal():
                groups[int(number)] = name, tuple(members.split(","))
    return groups


def _and(words: Sequence[str]) -> str:
    return " and ".join(dict.fromkeys(words))


def _table(name: str) -> dict[str, Any]:
    text = files("linne.doctor").joinpath("data", "installing.json").read_text("utf-8")
    return dict(json.loads(text)[name])
