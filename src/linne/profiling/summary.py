"""What a trace found, as plain numbers, and how that is shown. Computes nothing that was not measured."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Traced = Literal["train", "evaluate", "predict"]

PARTS = {
    "wait": "waiting for data",
    "decode": "reading, decoding",
    "copy": "copying to the device",
    "prepare": "augmenting, normalising",
    "forward": "forward",
    "backward": "backward",
    "optimiser": "optimiser",
    "back": "copying back",
    "other": "other",
}
"""The parts of a step in the order of their work, as they are called in a trace and as they are shown."""
WIDTH = 88
NUM_SHOWN = 6
"""Operators in the summary; the file has all."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a step."""

    name: str
    """A key of `PARTS`."""
    seconds: float
    """The mean of a step: the parts' sum is the step's."""
    median: float


@dataclass(frozen=True, slots=True)
class Operator:
    """One of torch's operators, or what else the profiler counts as one."""

    name: str
    share: float
    """Of the time of all operators, without the operators that each calls."""
    calls: float
    """A step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceFacts:
    """The device as far as advice asks."""

    address: str
    name: str
    is_accelerator: bool = False
    num_cores: int = 1
    """Of the host."""
    compiles: bool = False
    pins_memory: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceSummary:
    """Where the time of a step goes; all seconds and counts are those of one step, on average."""

    traced: Traced
    subject: str
    """The network, the images, how many a step, the precision."""
    device: DeviceFacts
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The recipe's fields that decide speed; empty for a bundle."""
    num_steps: int
    """That were timed."""
    images: float
    seconds: float
    """As steps follow one another when nobody waits for the device in between."""
    cpu_seconds: float
    """Of all threads of the process."""
    parts: tuple[Part, ...]
    operators: tuple[Operator, ...] = ()
    """The longest first."""
    profiled_seconds: float | None = None
    """While the profiler watched."""
    device_seconds: float | None = None
    """During which the device computed; None where the profiler does not see it."""
    num_kernels: float | None = None
    copied_bytes: float = 0.0
    """From the host to the device."""
    resident_bytes: int | None = None
    """What the pixels of the training would take in memory, where they are decoded anew and would fit."""
    fallbacks: Mapping[str, float] = field(default_factory=dict)
    """Operators that the device left to the CPU, with their calls."""
    trials: Mapping[str, float] = field(default_factory=dict)
    """Settings that were tried, as typed, and how many times as fast a step was with each."""
    others: float | None = None
    """The share of the machine's cores that other programs used."""
    setup_seconds: float = 0.0
    """Before the first step: opening, decoding what is kept, building the network."""
    first_seconds: float = 0.0
    """Of the very first step."""
    size: tuple[int, int] = (0, 0)
    """Height and width that the network sees."""
    notes: tuple[str, ...] = ()

    @property
    def parted_seconds(self) -> float:
        """A step whose parts were timed: their sum."""
        return sum(part.seconds for part in self.parts)

    def share(self, *names: str) -> float:
        """Return what part of a step some parts take together."""
        return sum(part.seconds for part in self.parts if part.name in names) / max(self.parted_seconds, 1e-12)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)


def parts_of(rows: Sequence[Mapping[str, float]]) -> tuple[Part, ...]:
    """Return the parts of the steps in `rows`, each a step's seconds by part, in the order of `PARTS`."""
    found = []
    for name in (name for name in PARTS if any(name in row for row in rows)):
        seconds = [row.get(name, 0.0) for row in rows]
        found.append(Part(name, statistics.fmean(seconds), statistics.median(seconds)))
    return tuple(found)


def to_text(summary: TraceSummary) -> str:
    """Return what a terminal shows of a trace."""
    unit = "step" if summary.traced == "train" else "batch"
    lines = [
        f"traced   {summary.subject}",
        f"device   {_device(summary, unit)}",
        f"pace     {summary.images / summary.seconds:,.0f} images/s: {milliseconds(summary.seconds)} a {unit}, over "
        f"{summary.num_steps:,} of them",
        f"start    {summary.setup_seconds:.1f} s before the first {unit}, {milliseconds(summary.first_seconds)} for it",
        "",
        *_table(_part_rows(summary, unit)),
    ]
    if summary.operators:
        lines += ["", *_table(_operator_rows(summary, unit))]
    if summary.notes:
        lines += ["", *(wrapped(f"note: {note}", 6) for note in summary.notes)]
    return "\n".join(lines) + "\n"


def _device(summary: TraceSummary, unit: str) -> str:
    device, cores = summary.device, summary.cpu_seconds / max(summary.seconds, 1e-12)
    name = f"{device.address}, {device.name}" if device.is_accelerator else device.name
    whose = "the host's " if device.is_accelerator else ""
    used = f"{cores:.1f} of {whose}{device.num_cores} core{'s' * (device.num_cores != 1)} used"
    return f"{name}; {used}, {milliseconds(summary.cpu_seconds)} of CPU time a {unit}"


def _part_rows(summary: TraceSummary, unit: str) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [(f"part of a {unit}", "mean", "share", "median")]
    whole = max(summary.parted_seconds, 1e-12)
    for part in summary.parts:
        share = percent(part.seconds / whole)
        name = "normalising" if part.name == "prepare" and summary.traced != "train" else PARTS[part.name]
        rows.append((name, milliseconds(part.seconds), share, milliseconds(part.median)))
    rows.append((f"whole {unit}", milliseconds(summary.parted_seconds), "100 %", ""))
    return rows


def _operator_rows(summary: TraceSummary, unit: str) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("operator, without those it calls", "share", f"calls a {unit}")]
    for operator in summary.operators[:NUM_SHOWN]:
        rows.append((operator.name, percent(operator.share), f"{operator.calls:,.0f}"))
    return rows


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows in columns, all but the first to the right, with the head apart."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    shown = [
        "  " + "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return [line.rstrip() for line in [shown[0], "  " + "-" * (sum(widths) + 2 * len(widths) - 2), *shown[1:]]]


def wrapped(text: str, indent: int) -> str:
    """Return `text` in lines that a page holds, all but the first indented."""
    return textwrap.fill(text, WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def milliseconds(seconds: float) -> str:
    """Return "12.3 ms", with more digits where it is little."""
    value = 1000 * seconds
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.1f} ms" if value >= 10 else f"{value:.2f} ms"


def percent(fraction: float) -> str:
    """Return "38 %", and "<1 %" for what is there and rounds to nothing."""
    return "<1 %" if 0 < fraction < 0.005 else f"{100 * fraction:.0f} %"
