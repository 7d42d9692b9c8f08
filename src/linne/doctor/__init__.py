"""Whether the accelerator stack of this machine computes right answers, and what to do where it does not.

Nothing here imports a framework but `battery` and the probes, which run in child processes: a driver that crashes is a
finding, not the end.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from pathlib import Path

from linne import __version__
from linne.doctor.accelerators import accelerator_section, look
from linne.doctor.machine import Machine
from linne.doctor.packages import packages_section
from linne.doctor.proof import proof_section
from linne.doctor.report import Check, DoctorReport, Section, Summary
from linne.doctor.runtimes import runtimes_section
from linne.doctor.summary import summarise
from linne.doctor.system import system_section

__all__ = ["Check", "DoctorReport", "Machine", "Section", "Summary", "examine"]


def examine(
    machine: Machine | None = None,
    *,
    devices: Sequence[str] = ("auto",),
    quick: bool = False,
    bundle: Path | str | None = None,
    trust_code: bool = False,
    limit_s: float | None = None,
) -> DoctorReport:
    """Return what is found on `machine`, this one by default: system, accelerators, packages, proof, runtimes.

    Args:
        devices: What the proof computes on, as `--device` names it; `auto` takes what training would.
        quick: Look only, at files: no device is touched, no program is started.
        bundle: The folder of a bundle whose answers are replayed on each of the devices.
        trust_code: Whether the Python file may be run that a bundle of the user's own network names.
        limit_s: Seconds for each child that proves a device, in place of its own limit (60 s on the CPU, 240 s
            elsewhere).
    """
    machine = Machine() if machine is None else machine
    if quick:  # the kernel's files say what is there; the vendors' tools take seconds
        machine = dataclasses.replace(machine, path=())
    looked = look(machine)
    proof = proof_section(machine, devices, quick, looked.gpus, limit_s=limit_s)
    sections = [
        system_section(machine),
        accelerator_section(machine, looked),
        packages_section(machine, gpus=looked.gpus),
        proof,
    ]
    if not quick:
        sections.append(runtimes_section(machine, looked.gpus))
    if bundle is not None:
        from linne.doctor.replay import bundle_section  # with numpy and Pillow, which nothing else here needs

        sections.append(bundle_section(machine, bundle, devices, quick, proof, trust_code=trust_code))
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return DoctorReport(
        sections=tuple(sections), summary=summarise(sections, looked.gpus), version=__version__, created=created
    )
