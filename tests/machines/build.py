"""Machines that are only folders: files where kernels and drivers put them, and programs that say what they said."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from linne.doctor.machine import Limits, Machine

GIB = 2**30
ROOMY = Limits(
    folder="/home/ada/flowers", disk_free=412 * GIB, shared_size=16 * GIB, open_files=1024, open_files_most=2**20
)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a program does: print, then end with a code or by a signal, or never."""

    stdout: str = ""
    stderr: str = ""
    code: int = 0
    signal: str = ""
    hangs: bool = False


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """An installed package: its metadata, and the text of its `version.py` where it has one."""

    name: str
    version: str
    requires: tuple[str, ...] = ()
    version_py: str = ""


Answers = Mapping[str, Answer]
"""By the arguments, joined by spaces; those that end with `*` are beginnings, and the first that fits counts."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A machine: `files` and `links` by their path under the root, `tools` by name, `children` by what Python is given.

    `groups` holds the numbers of the groups that device nodes belong to, by file name; `shut` the nodes that this user
    may not open.
    """

    title: str
    files: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    tools: Mapping[str, Answers] = field(default_factory=dict)
    children: Answers = field(default_factory=dict)
    wheels: tuple[Wheel, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    system: str = "Linux"
    system_name: str = "Linux"
    python_version: str = "3.12.3"
    limits: Limits = ROOMY
    groups: Mapping[str, int] = field(default_factory=dict)
    shut: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("auto",)
    limit_s: float | None = None


def build(spec: Spec, folder: Path) -> Machine:
    """Return the machine of a spec, built in an empty folder."""
    root = folder / "root"
    root.mkdir(parents=True)
    for path, text in spec.files.items():
        write(root / path, text)
    for path, target in spec.links.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(target)
    for wheel in spec.wheels:
        install(wheel, folder / "site-packages")
    (folder / "bin").mkdir()
    for name, answers in spec.tools.items():
        program(folder / "bin" / name, answers)
    program(folder / "python", spec.children)
    return Machine(
        root=root,
        path=(folder / "bin",),
        environ={"PATH": os.defpath, "USER": "ada", **spec.environ},
        system=spec.system,
        system_name=spec.system_name,
        python_version=spec.python_version,
        python=(str(folder / "python"),),
        site_packages=(str(folder / "site-packages"),),
        limits=spec.limits,
        may_use=lambda path: path.name not in spec.shut,
        group_of=lambda path: spec.groups.get(path.name.rstrip("0123456789"), 0),
    )


def write(path: Path, text: str) -> None:
    """Write a file with the folders that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def program(path: Path, answers: Answers) -> None:
    """Write a program that gives each answer to its arguments."""
    cases = []
    for number, (words, answer) in enumerate(answers.items()):
        out, err = (path.with_name(f"{path.name}.{number}.{stream}") for stream in ("out", "err"))
        out.write_text(answer.stdout, "utf-8")
        err.write_text(answer.stderr, "utf-8")
        end = f"kill -{answer.signal} $$" if answer.signal else f"exit {answer.code}"
        then = "exec sleep 60" if answer.hangs else end
        pattern = f"{shlex.quote(words[:-1])}*" if words.endswith("*") else shlex.quote(words)
        cases.append(f"{pattern}) cat {shlex.quote(str(out))}; cat {shlex.quote(str(err))} >&2; {then};;")
    unknown = '*) echo "this machine has no answer to: $*" >&2; exit 97;;'
    path.write_text("\n".join(["#!/bin/sh", 'case "$*" in', *cases, unknown, "esac"]) + "\n", "utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def install(wheel: Wheel, folder: Path) -> None:
    """Write the metadata of a package as pip does, and its `version.py`."""
    asks = "".join(f"Requires-Dist: {text}\n" for text in wheel.requires)
    # PyPI takes no versions with a local part: what CUDA they are for, its wheels say in `version.py` alone.
    version = wheel.version.partition("+cu")[0]
    metadata = f"Metadata-Version: 2.1\nName: {wheel.name}\nVersion: {version}\n{asks}"
    write(folder / f"{wheel.name.replace('-', '_')}-{version}.dist-info" / "METADATA", metadata)
    if wheel.version_py:
        write(folder / wheel.name / "version.py", wheel.version_py)
