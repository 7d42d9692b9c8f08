"""The fastest way to run a bundle on a machine that still answers as it should: searched, measured, proved, kept."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from dataclasses import asdict, replace

from linne.host import others_use_of_cores, usable_cores
from linne.inference.backends import choose_backend
from linne.inference.backends.base import RunOptions
from linne.report_tuning import TuningReport
from linne.tuned import Choice, Goal, keep_choice, machine_name, versions_of
from linne.tuning.candidate import BATCHES, Candidate, plain_ways
from linne.tuning.log import TuningLog
from linne.tuning.runner import Runner
from linne.tuning.search import Search, search
from linne.verifying import Reference
from linne.verifying.run import verify_one

BUSY = 0.2
"""Of the processor, above which what is measured is about other programs as well."""


def tune_bundle(
    reference: Reference,
    how: RunOptions,
    *,
    goal: Goal,
    batch: int | None,
    minutes: float,
    max_drop: float | None,
    only_fp32: bool,
    say: Callable[[str], None],
) -> TuningReport:
    """Return what was measured of the ways to run the reference's bundle, the best of which is kept beside it.

    Args:
        how: where to run, and what is trusted; the rest is what is searched.
        only_fp32: whether the reference's examples are too few to judge rounded numbers by.
        say: takes a line for people.

    Raises:
        LinneError: the bundle cannot be run here as it is.
    """
    bundle = reference.predictor.bundle
    batches = BATCHES if goal == "throughput" else (1,)
    if batch is not None:
        batches = (batch,)
    backend = choose_backend("auto", bundle, "fp32", how.device)[0]
    baseline = Candidate(backend=backend, how=how, batch=batches[0])
    plain = _plain(reference, how, batches[0], only_fp32, say)

    def verify(one: Candidate) -> tuple[bool, str]:
        """Return whether a candidate passes; how many threads and images at once is no question of answers."""
        report = verify_one(reference, one.backend, replace(one.how, num_threads=None), max_drop=max_drop, say=say)
        lost = "" if report.drop is None else f", {100 * report.drop:+.2f} points lost"
        same = f"{report.num_agree:,} of {report.num_images:,} alike{lost}"
        return report.passed, same if report.passed else "; ".join(report.problems)

    task = Search(
        bundle=bundle,
        goal=goal,
        examples=reference.examples.name,
        judged_by=f"{reference.examples.identity}, {max_drop}",
        log=TuningLog(bundle),
        verify=verify,
        say=say,
        start=lambda one: Runner(bundle.path, one),
        deadline=time.monotonic() + 60 * minutes,
    )
    _say_where(goal, say)
    beside = [Candidate(backend="torch", how=how, batch=batches[0])]
    cores = usable_cores()
    threads = (None, *(count for count in dict.fromkeys((cores // 2, 1)) if 0 < count < cores))
    chosen, report = search(task, baseline, plain, beside, batches, threads)
    path = keep_choice(bundle, _choice(chosen, goal, report))
    say(f"kept in {path}")
    return report


def _plain(
    reference: Reference, how: RunOptions, batch: int, only_fp32: bool, say: Callable[[str], None]
) -> list[Candidate]:
    """Return each backend in each precision that can be run here and judged by the examples."""
    plain = plain_ways(reference.predictor.bundle, how, batch)
    left_out = sorted({one.how.precision for one in plain} - {"fp32"}) if only_fp32 else []
    if left_out:
        say(f"without images of your own nothing is tried in {', '.join(left_out)}: give a source or --unlabelled")
    return [one for one in plain if one.how.precision not in left_out]


def _say_where(goal: Goal, say: Callable[[str], None]) -> None:
    say(f"tuning for {goal} on {machine_name()}")
    others = others_use_of_cores()
    if others is not None and others > BUSY:
        say(f"warning: other programs use {others:.0%} of the processor: what is fastest beside them may not be alone")


def _choice(chosen: Candidate, goal: Goal, report: TuningReport) -> Choice:
    way = next(way for way in report.ways if way.words == chosen.words)
    measured = {
        **{key: value for key, value in asdict(way).items() if value is not None},
        "on": report.examples,
        "against": report.ways[0].words,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    return Choice(
        machine=report.machine,
        device=chosen.how.device,
        goal=goal,
        backend=chosen.backend,
        precision=chosen.how.precision,
        threads=chosen.how.num_threads,
        batch=chosen.batch,
        options=chosen.how.options,
        versions=versions_of(chosen.backend),
        measured=measured,
    )
