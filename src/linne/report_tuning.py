"""What `linne tune` measured and chose, as plain data: to JSON, and to tables for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """One way to run the bundle that went into the last round."""

    words: str
    description: str
    """What really ran."""
    open_ms: float
    """From the start of linne in its process to a network that is ready."""
    first_ms: float
    """The first answer: kernels are chosen, memory is taken. Not in the other times."""
    p50_ms: float
    """Of a batch, warm."""
    p95_ms: float
    p99_ms: float
    images_per_second: float
    peak_mib: float | None
    """The most memory of its process."""
    num_batches: int
    ratio: float
    """How many times as fast as the first row."""
    low: float
    high: float
    verdict: str
    """`faster`, `slower` or `no difference`."""
    verified: str
    """What `linne verify` says of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TuningReport:
    """What was tried, what was measured at the end, and what is used from now on."""

    bundle: str
    goal: str
    machine: str
    examples: str
    """What the answers were verified on."""
    num_tried: int
    refused: Mapping[str, str]
    """Candidates that could not be run, and why."""
    failed: Mapping[str, str]
    """Candidates that were fast enough and did not pass, and why."""
    ways: tuple[Way, ...]
    """The first is what is used without tuning, the second the same once more: what differs between them is noise."""
    chosen: str
    minutes: float

    @property
    def noise(self) -> Way:
        """The same way once more."""
        return self.ways[1]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            **asdict(self),
            "ways": [asdict(way) for way in self.ways],
            "refused": dict(self.refused),
            "failed": dict(self.failed),
        }

    def rows(self) -> list[list[str]]:
        """Return the table of the last round, its head first."""
        head = [
            "way",
            "ready ms",
            "first ms",
            "p50 ms",
            "p95 ms",
            "p99 ms",
            "images/s",
            "MiB",
            "times as fast",
            "verified",
        ]
        return [head, *(self._row(way, number) for number, way in enumerate(self.ways))]

    def _row(self, way: Way, number: int) -> list[str]:
        ratio = "1" if number == 0 else f"{way.ratio:.2f} ({way.low:.2f} to {way.high:.2f})"
        return [
            f"{way.words} (again)" if number == 1 else way.words,
            f"{way.open_ms:,.0f}",
            f"{way.first_ms:,.1f}",
            f"{way.p50_ms:,.2f}",
            f"{way.p95_ms:,.2f}",
            f"{way.p99_ms:,.2f}",
            f"{way.images_per_second:,.1f}",
            "-" if way.peak_mib is None else f"{way.peak_mib:,.0f}",
            ratio,
            way.verified,
        ]

    def lines(self) -> list[str]:
        """Return what the table means, a sentence a line."""
        best = next(way for way in self.ways if way.words == self.chosen)
        if best is self.ways[0]:
            said = f"nothing that passes is faster than `{self.chosen}`: it stays"
        else:
            said = (
                f"`{self.chosen}` is {best.ratio:.2f} times as fast (95 % interval {best.low:.2f} to {best.high:.2f})"
            )
        lines = [said, f"the same way twice differs by {abs(self.noise.ratio - 1):.1%} here: {self.noise.verdict}"]
        lines += [f"not used, {why}: {words}" for words, why in self.failed.items()]
        lines += [f"could not be run, {why}: {words}" for words, why in self.refused.items()]
        return lines
