"""What a device can do: an answer with evidence to each question that training, evaluation and tracing ask.

`unknown` is an answer of its own. Whoever decides by a fact asks whether it `holds`, so that what nobody knows is not
used; the report shows the evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Answer = Literal["yes", "no", "unknown"]


@dataclass(frozen=True, slots=True)
class Fact:
    """One answer, and what says so."""

    answer: Answer
    evidence: str

    @property
    def holds(self) -> bool:
        """Whether the answer is yes; what is unknown does not hold."""
        return self.answer == "yes"


def yes(evidence: str) -> Fact:
    """Return a fact that holds."""
    return Fact("yes", evidence)


def no(evidence: str) -> Fact:
    """Return a fact that does not hold."""
    return Fact("no", evidence)


def unknown(evidence: str) -> Fact:
    """Return a fact that nothing decides."""
    return Fact("unknown", evidence)


def fact(holds: bool, evidence: str) -> Fact:
    """Return the fact that something was found to hold, or not to."""
    return Fact("yes" if holds else "no", evidence)


@dataclass(frozen=True, kw_only=True, slots=True)
class Capabilities:
    """What one device can do."""

    dtypes: Mapping[str, Fact]
    """`fp64`, `fp32`, `bf16`, `fp16`: whether networks compute in it at the device's own speed, not emulated."""
    autocast: Fact
    """Whether torch casts operations to a narrower dtype there; without it only fp32 trains."""
    autocast_dtype: str | None
    """The dtype that autocast takes when none is named."""
    grad_scaler: Fact
    """Whether a loss can be scaled against the underflow of fp16."""
    foreach: Fact
    """Whether optimisers may update many tensors in one call."""
    fused: Fact
    """Whether SGD and AdamW update all weights in one kernel."""
    pinned_memory: Fact
    """Whether copies from page-locked memory are faster, and may overlap with computing."""
    non_blocking: Fact
    """Whether a copy to the device returns before it is done."""
    channels_last: Fact
    """Whether convolutions gain from images whose channels lie side by side."""
    compile_backends: tuple[str, ...] = ()
    """What `torch.compile` can build for it; nothing where nobody has shown that it works."""
    synchronise: Fact
    """Whether one can wait for all that is queued; elsewhere reading a number does it."""
    timed_events: Fact
    """Whether the device's own clock can be read."""
    memory_statistics: Fact
    """Whether it says how much memory is used and free."""
    profiler_activities: tuple[str, ...] = ()
    """What `torch.profiler` records there."""
    deterministic: Fact
    """Whether deterministic algorithms can be asked for; elsewhere a run is seeded, and may still differ."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {**asdict(self), "dtypes": {name: asdict(found) for name, found in self.dtypes.items()}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """What a device is, as far as anything says; None where nothing does."""

    vendor: str | None = None
    architecture: str | None = None
    """`x86_64 AVX512`, `sm_90`, `gfx942`."""
    runtime: str | None = None
    """`CUDA 13.2`, `ROCm 7.2`: what this torch was built with."""
    driver: str | None = None
    memory_bytes: int | None = None
    """All of it, free or not."""
    notes: tuple[str, ...] = field(default=())
    """What a user should know of this kind of device."""
