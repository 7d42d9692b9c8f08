"""How each process of an attempt ended, in a file each has written, and what the supervisor makes of that."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FOLDER = "LINNE_LAUNCH"
"""The variable that tells a process where to write; it is there where `linne launch` has started it."""
ENDED_BY_SIGNAL = (128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + getattr(signal, "SIGUSR1", 10))
"""Exit codes of a process that has saved and left because it was asked to."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a process ended that had time to say so."""

    code: int
    """The exit code of `linne`."""
    message: str | None = None
    hint: str | None = None
    is_fault: bool = False
    """Whether it is nothing that the user has done wrong: the same again may well succeed."""
    micro_batch: int | None = None
    """Where memory was short: how many images each process should compute at once when it is tried again."""

    def write(self, folder: Path, rank: int) -> None:
        """Write it down, whole or not at all."""
        place = folder / f"rank-{rank}.json"
        beside = place.with_suffix(".partial")
        beside.write_text(json.dumps(asdict(self)), encoding="utf-8")
        beside.replace(place)


def note_process(folder: Path, rank: int, number: int) -> None:
    """Write down the number of a process, so that signals find it."""
    (folder / f"rank-{rank}.pid").write_text(str(number), encoding="ascii")


def processes(folder: Path) -> dict[int, int]:
    """Return the numbers of the processes that have begun, by rank."""
    found = {}
    for path in folder.glob("rank-*.pid"):
        text = path.read_text(encoding="ascii")
        if text:  # else it is being written
            found[int(path.stem.partition("-")[2])] = int(text)
    return found


def read_outcomes(folder: Path) -> dict[int, Outcome]:
    """Return the outcomes of those that have ended, by rank."""
    paths = sorted(folder.glob("rank-*.json"))
    return {int(path.stem.partition("-")[2]): Outcome(**json.loads(path.read_text("utf-8"))) for path in paths}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an attempt came to on one machine, or on all."""

    code: int | None
    """What to leave with; None to try again."""
    lines: tuple[str, ...] = ()
    """What to say: an error, or why processes died."""
    hint: str | None = None
    place: str | None = None
    """The newest checkpoint at the end, which machine 0 sees."""
    moved: bool = False
    """Whether it is newer than at the beginning."""
    micro_batch: int | None = None
    """Where memory was short: how many images each process should compute at once, trying again."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Verdict:
        """Return what `to_dict` was called of."""
        return cls(**{**values, "lines": tuple(values["lines"])})


def judge(ranks: range, outcomes: Mapping[int, Outcome], exit_codes: Mapping[int, int]) -> Verdict:
    """Return what an attempt of the processes `ranks` came to.

    A user's error decides, whatever became of the others, who lost a partner by it. `exit_codes` are those of processes
    that failed, as the system gives them, below 0 for a signal.
    """
    errors = {rank: found for rank, found in outcomes.items() if not found.is_fault and 0 < found.code < 128}
    said = [(rank, found) for rank, found in errors.items() if found.message is not None]
    if said:
        rank, found = said[0]
        return Verdict(found.code, (f"rank {rank}: {found.message}" if rank else str(found.message),), found.hint)
    if errors:  # the first process, on another machine, has said why
        return Verdict(max(found.code for found in errors.values()))
    codes = [found.code for found in outcomes.values() if not found.is_fault]
    if len(codes) == len(ranks):
        return Verdict(max(codes))
    short = {rank: found.micro_batch for rank, found in outcomes.items() if found.micro_batch is not None}
    if short:
        lines = tuple(f"rank {rank}: {outcomes[rank].message}" for rank in short)
        return Verdict(None, lines, micro_batch=min(short.values()))
    return Verdict(None, tuple(_deaths(ranks, outcomes, exit_codes)))


def _deaths(ranks: range, outcomes: Mapping[int, Outcome], exit_codes: Mapping[int, int]) -> list[str]:
    """Return why an attempt failed: the processes that died without a word, or else what the others say went wrong."""
    silent = [rank for rank in ranks if rank not in outcomes]
    lines = [f"rank {rank} {_death(exit_codes[rank])}" for rank in silent if rank in exit_codes]
    killed = [line for line in lines if "SIGTERM" not in line]  # that is how torchrun ends the others
    faults = [f"rank {rank}: {found.message}" for rank, found in outcomes.items() if found.is_fault]
    return killed or faults or lines or ["torchrun ended without a word"]


def _death(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    memory = " (perhaps by the system, for want of memory)" if -code == getattr(signal, "SIGKILL", 9) else ""
    return f"was killed by {name}{memory}"
