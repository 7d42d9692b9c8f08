"""Whether the accelerator stack of this machine computes right answers, and what to do where it does not.

Nothing here imports torch but `battery`, which runs in a child process: a driver that crashes is a finding, not the
end.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence

from linne import __version__
from linne.doctor.accelerators import accelerator_section, look
from linne.doctor.machine import Machine
from linne.doctor.packages import packages_section
from linne.doctor.proof import proof_section
from linne.doctor.report import Check, DoctorReport, Section
from linne.doctor.runtimes import runtimes_section
from linne.doctor.system import system_section

__all__ = ["Check", "DoctorReport", "Machine", "Section", "examine"]


def examine(machine: Machine | None = None, *, devices: Sequence[str] = ("auto",), quick: bool = False) -> DoctorReport:
    """Return what is found on `machine`, this one by default: system, packages, accelerators, proof, runtimes.

    Args:
        devices: What the proof computes on, as `--device` names it; `auto` takes what training would.
        quick: Look only, at files: no device is touched, no program is started.
    """
    machine = Machine() if machine is None else machine
    if quick:  # the kernel's files say what is there; the vendors' tools take seconds
        machine = dataclasses.replace(machine, path=())
    looked = look(machine)
    sections = [system_section(machine), packages_section(machine), accelerator_section(machine, looked)]
    sections.append(proof_section(machine, devices, quick, looked.gpus))
    if not quick:
        sections.append(runtimes_section(machine, looked.gpus))
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return DoctorReport(sections=tuple(sections), version=__version__, created=created)
