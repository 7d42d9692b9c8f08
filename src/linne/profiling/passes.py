"""The passes of a trace: steps timed by their parts, timed as they run, and recorded by torch's profiler."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

from torch.profiler import ProfilerActivity, profile

from linne.device import Device
from linne.device.fallbacks import Fallbacks
from linne.profiling.parts import Parts

Steps = Callable[[], Generator[int]]
"""Begins anew each time, and yields the number of images of each step when that is done; never ends."""

WARM_UP = 2
"""Steps that are not counted at first: kernels are chosen, the network is compiled."""
SECONDS_EACH, LEAST_STEPS, MOST_STEPS = 4.0, 3, 500
"""How long steps are timed where nobody said how many, and at least and at most how many then."""
ROUNDS, LEAST_ROUNDS, ROUND_SECONDS = 5, 2, 0.3
"""How often two kinds of steps are compared, and about how long each is timed then."""
NUM_RECORDED = 3
"""Steps in the profiler's record: more of them show the same, in a file that viewers cannot open."""


@dataclass(frozen=True, slots=True)
class Pass:
    """Some steps, timed; seconds are the mean of a step."""

    num_steps: int
    images: float
    """A step, on average."""
    seconds: float
    cpu_seconds: float
    """Of all threads of this process."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What all passes found."""

    first_seconds: float
    """Of the very first step."""
    rows: Sequence[Mapping[str, float]]
    """Seconds by part, one row a step."""
    whole: Pass
    """As steps run when nobody waits for the device in between."""
    recorded: profile
    profiled: Pass
    """While the profiler watched."""


def run_passes(steps: Steps, parts: Parts, device: Device, fallbacks: Fallbacks, num_steps: int | None) -> Measured:
    """Return what the passes over `steps` found, which tell `parts` what they do; `num_steps` as in `time_parts`.

    Timing the parts of a step waits for the device, and the profiler slows down what it watches: so each has a pass
    of its own, and neither is the one whose pace is said. On the CPU nothing is queued, and timing changes nothing.

    Raises:
        DeviceError: an operator ran on the CPU that was not allowed to.
    """
    first_seconds = warm_up(steps, device)
    fallbacks.check()
    whole = time_parts(steps, parts, device, num_steps)
    rows = parts.rows
    if device.is_accelerator:
        whole = _time(steps, device, whole.num_steps)
    recorded, profiled = record(steps, parts, device, min(whole.num_steps, NUM_RECORDED))
    fallbacks.check()
    return Measured(first_seconds, rows, whole, recorded, profiled)


def warm_up(steps: Steps, device: Device) -> float:
    """Return the seconds that the first step took, after which a second one was made."""
    start = time.perf_counter()
    taken = 0.0
    with contextlib.closing(steps()) as running:
        for number in range(WARM_UP):
            next(running)
            device.synchronise()
            if number == 0:
                taken = time.perf_counter() - start
    return taken


def time_parts(steps: Steps, parts: Parts, device: Device, num_steps: int | None) -> Pass:
    """Time `num_steps` steps by their parts, into `parts.rows`; None for as many as a few seconds hold."""
    with parts.timed():
        timed = _time(steps, device, num_steps)
    parts.rows = parts.rows[1:]
    return timed


def times_as_fast(steps: Steps, others: Steps, device: Device, seconds: float, num_steps: int | None) -> float:
    """Return how many times as fast `others` are as `steps`, of about so many seconds each: the median of a few rounds.

    In each round both run, one after the other, so that what else the machine does falls on both.
    """
    count = min(max(int(ROUND_SECONDS / seconds), 1), num_steps or MOST_STEPS)
    rounds = min(max(int(ROUNDS * ROUND_SECONDS / seconds), LEAST_ROUNDS), ROUNDS)
    warm_up(others, device)
    pairs = [(_time(steps, device, count), _time(others, device, count)) for _ in range(rounds)]
    return statistics.median(ours.seconds / theirs.seconds for ours, theirs in pairs)


def record(steps: Steps, parts: Parts, device: Device, num_steps: int) -> tuple[profile, Pass]:
    """Return what torch's profiler recorded of some steps on the host, and on the device where it sees that."""
    activities = [ProfilerActivity.__members__[name] for name in device.can.profiler_activities]
    recorded = profile(activities=activities, record_shapes=True, profile_memory=True, with_stack=True)
    with parts.named(), contextlib.closing(steps()) as running:
        next(running)
        device.synchronise()
        with recorded:
            start, cpu = time.perf_counter(), time.process_time()
            images = sum(itertools.islice(running, num_steps))
            device.synchronise()
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return recorded, Pass(num_steps, images / num_steps, seconds / num_steps, cpu / num_steps)


def _time(steps: Steps, device: Device, num_steps: int | None) -> Pass:
    """Time steps after one that is not counted: what decodes ahead has nothing ready at first."""
    with contextlib.closing(steps()) as running:
        next(running)
        device.synchronise()
        start, cpu = time.perf_counter(), time.process_time()
        done = images = 0
        while not _enough(done, time.perf_counter() - start, num_steps):
            images += next(running)
            done += 1
        device.synchronise()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return Pass(done, images / done, seconds / done, cpu / done)


def _enough(done: int, seconds: float, num_steps: int | None) -> bool:
    if num_steps is not None:
        return done >= num_steps
    return done >= MOST_STEPS or (done >= LEAST_STEPS and seconds >= SECONDS_EACH)
