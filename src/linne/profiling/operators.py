"""What torch's profiler recorded, as plain numbers: which operators take the time, and whether the device was busy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch.profiler import profile

from linne.profiling.parts import STEP
from linne.profiling.summary import PARTS, Operator

SORT_BY, MOST_ROWS = "cpu_time_total", 1000
"""Of the table, as torch's and DirectML's samples print it."""
NUM_KEPT = 20
"""Operators in a summary."""


def table(recorded: profile) -> str:
    """Return torch's own table of the operators, those that take longest with all they call first."""
    return str(recorded.key_averages().table(sort_by=SORT_BY, row_limit=MOST_ROWS))


def operators(recorded: profile, num_steps: int) -> tuple[Operator, ...]:
    """Return the operators by the time each takes itself: of the device where the profiler sees it, else of the CPU."""
    events = [e for e in recorded.key_averages() if not _is_elsewhere(e) and not _is_ours(e, e.key)]
    on_device = any(e.self_device_time_total > 0 for e in events)
    times = [max(e.self_device_time_total if on_device else e.self_cpu_time_total, 0.0) for e in events]
    whole = max(sum(times), 1e-9)
    longest = sorted(zip(times, events, strict=True), key=lambda pair: -pair[0])[:NUM_KEPT]
    return tuple(Operator(event.key, time / whole, event.count / num_steps) for time, event in longest if time > 0)


def device_use(recorded: profile, num_steps: int) -> tuple[float, float] | None:
    """Return (seconds in which the device did something, kernels), both a step; None where nothing of it was recorded.

    Copies count as doing something and not as kernels.
    """
    events: Any = recorded.events()  # type: ignore[no-untyped-call]
    there = [event for event in events if _is_of_the_device(event)]
    if not there:
        return None
    busy = covered((event.time_range.start, event.time_range.end) for event in there) / 1e6
    kernels = sum(not event.name.startswith(("Memcpy", "Memset")) for event in there)
    return busy / num_steps, kernels / num_steps


def covered(ranges: Iterable[tuple[float, float]]) -> float:
    """Return how much the ranges cover together, where some overlap."""
    return sum(end - start for start, end in _joined(sorted(ranges)))


def _joined(ranges: Iterable[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    begun: tuple[float, float] | None = None
    for start, end in ranges:
        if begun is not None and start <= begun[1]:
            begun = begun[0], max(begun[1], end)
            continue
        if begun is not None:
            yield begun
        begun = start, end
    if begun is not None:
        yield begun


def _is_of_the_device(event: Any) -> bool:
    return _is_elsewhere(event) and not _is_ours(event, event.name)


def _is_elsewhere(event: Any) -> bool:
    return bool(event.device_type.name != "CPU")


def _is_ours(event: Any, name: str) -> bool:
    """Return whether it is a span, as `Parts` names them, and no operator; torch shows spans on devices as well."""
    return name == STEP or name in PARTS or bool(getattr(event, "is_user_annotation", False))
