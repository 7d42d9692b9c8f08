"""The ways to run a bundle that are tried: backends, precisions, threads, batch sizes and each backend's options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from linne.bundle import Bundle
from linne.host import accelerator_names
from linne.inference.backends import BACKENDS, NEVER_AUTO, load_backend
from linne.inference.backends.base import Option, RunOptions

BATCHES = (1, 4, 16, 64)
"""Tried for throughput; larger ones gain little on any device, and the first answer waits for all of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One way to run a bundle, on one device."""

    backend: str
    how: RunOptions
    batch: int = 1
    """Images at once."""

    @property
    def words(self) -> str:
        """Return it for people, and as a key: `onnxruntime int8, 2 threads, batch 1`."""
        count = self.how.num_threads
        threads = "" if count is None else f", {count} thread{'s' if count > 1 else ''}"
        options = "".join(f", {name}={value}" for name, value in sorted(self.how.options.items()))
        return f"{self.backend} {self.how.precision}{threads}, batch {self.batch}{options}"

    def __hash__(self) -> int:
        return hash(self.words)

    def to_dict(self) -> dict[str, Any]:
        """Return what a child process needs to open it."""
        return {
            "backend": self.backend,
            "batch": self.batch,
            **self.how.to_dict(),
            "require_accelerator": self.how.require_accelerator,
            "trust_code": self.how.trust_code,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Candidate:
        """Return what `to_dict` wrote."""
        rest = dict(values)
        backend, batch = rest.pop("backend"), rest.pop("batch")
        return cls(backend=backend, batch=batch, how=RunOptions(**rest))


def first_round(
    plain: Sequence[Candidate], batches: Sequence[int], thread_counts: Sequence[int | None]
) -> list[Candidate]:
    """Return each of `plain` with one thing changed at a time: threads, an option's value, the batch size."""
    return [changed for one in plain for changed in _changed(one, batches, thread_counts)]


def plain_ways(bundle: Bundle, how: RunOptions, batch: int) -> list[Candidate]:
    """Return each backend in each precision in which it can run the bundle on this machine, with nothing else said."""
    found = []
    for name in BACKENDS:
        kind = load_backend(name)
        if name in NEVER_AUTO or kind.why_unavailable() is not None:
            continue
        for precision in kind.PRECISIONS:
            if kind.why_not(bundle, precision) is None:
                found.append(Candidate(backend=name, how=replace(how, precision=precision), batch=batch))
    return found


def _changed(plain: Candidate, batches: Sequence[int], thread_counts: Sequence[int | None]) -> Iterator[Candidate]:
    for threads in thread_counts:
        if threads != plain.how.num_threads:
            yield replace(plain, how=replace(plain.how, num_threads=threads))
    for name, option in load_backend(plain.backend).OPTIONS.items():
        for value in option.tried if _is_here(option) else ():
            yield replace(plain, how=replace(plain.how, options={**plain.how.options, name: value}))
    for batch in batches[1:]:
        yield replace(plain, batch=batch)


def _is_here(option: Option) -> bool:
    """Return whether the machine has what `option` is tried on, by the names of its accelerators."""
    gpus = [name for name in accelerator_names() if option.tried_on == "gpu" or name.startswith("AMD")]
    return option.tried_on == "any" or bool(gpus)


def second_round(plain: Candidate, better: Sequence[Candidate]) -> Candidate | None:
    """Return all that helped `plain` when changed alone, changed together; None where that is no new candidate.

    Args:
        better: those of `first_round` that differ from `plain` in one thing and were faster, the fastest first.
    """
    threads, batch, options = plain.how.num_threads, plain.batch, dict(plain.how.options)
    for one in better:
        if threads == plain.how.num_threads:
            threads = one.how.num_threads
        if batch == plain.batch:
            batch = one.batch
        options = {**{name: value for name, value in one.how.options.items() if name not in options}, **options}
    made = Candidate(backend=plain.backend, batch=batch, how=replace(plain.how, num_threads=threads, options=options))
    return None if made == plain or made in better else made
