"""From what the passes of a trace measured to the summary that is shown."""

from __future__ import annotations

import os
import statistics
from typing import Any

from linne.device import Device
from linne.device.fallbacks import Fallbacks
from linne.host import others_use_of_cores
from linne.profiling.operators import device_use, operators
from linne.profiling.parts import Parts
from linne.profiling.passes import Measured
from linne.profiling.summary import DeviceFacts, TraceSummary, milliseconds, parts_of, percent

BUSY = 0.15
"""Share of the cores that other programs use from which it is said."""


def _describe(device: Device) -> DeviceFacts:
    """Return what advice asks of a device."""
    return DeviceFacts(
        address=device.address,
        name=device.name,
        is_accelerator=device.is_accelerator,
        num_cores=os.cpu_count() or 1,
        compiles=bool(device.can.compile_backends),
        pins_memory=device.pins_memory,
    )


def summarise(
    measured: Measured,
    parts: Parts,
    device: Device,
    fallbacks: Fallbacks,
    **facts: Any,
) -> TraceSummary:
    """Return the summary; `facts` are the fields that nothing here measures."""
    use = device_use(measured.recorded, measured.profiled.num_steps)
    others = others_use_of_cores()
    copied = {"copied_bytes": parts.copied_bytes / parts.num_steps, **facts}
    return TraceSummary(
        device=_describe(device),
        num_steps=measured.whole.num_steps,
        images=measured.whole.images,
        seconds=measured.whole.seconds,
        cpu_seconds=measured.whole.cpu_seconds,
        parts=parts_of(measured.rows),
        operators=operators(measured.recorded, measured.profiled.num_steps),
        profiled_seconds=measured.profiled.seconds,
        device_seconds=None if use is None else use[0],
        num_kernels=None if use is None else use[1],
        fallbacks={name: count / parts.num_steps for name, count in fallbacks.counts.items()},
        others=others,
        first_seconds=measured.first_seconds,
        notes=tuple(_notes(measured, device, others)),
        **copied,
    )


def _notes(measured: Measured, device: Device, others: float | None) -> list[str]:
    """Return what to know before believing the numbers."""
    whole, notes = measured.whole, []
    if device.is_accelerator:
        parted = statistics.fmean(sum(row.values()) for row in measured.rows)
        notes.append(
            f"the parts were timed by waiting for {device.address} after each: {milliseconds(parted)} that way, "
            f"{milliseconds(whole.seconds)} without"
        )
    if device.is_accelerator and len(device.can.profiler_activities) == 1:
        notes.append(
            f"torch's profiler sees only the CPU's side of {device.address}: the operators' times are those of "
            "queueing them; the parts are the device's own"
        )
    slower = measured.profiled.seconds / whole.seconds
    notes.append(f"steps took {slower:.1f} times as long in the profiler, from which only the operators' shares come")
    if others is not None and others > BUSY:
        notes.append(
            f"other programs use {percent(others)} of the cores: alone this would be faster, and other settings may win"
        )
    return notes
