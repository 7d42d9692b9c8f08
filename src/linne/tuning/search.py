"""The search: all candidates briefly, the best ones proved, the best that passes against what is used now, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from linne.bundle import Bundle
from linne.errors import CheckFailed, LinneError
from linne.report_tuning import TuningReport, Way
from linne.tuned import Goal, machine_name
from linne.tuning.candidate import Candidate, first_round, second_round
from linne.tuning.log import TuningLog
from linne.tuning.runner import Refused, Runner
from linne.tuning.statistics import LEAST_PAIRS, Comparison, compare, times_of

BRIEF_S = 1.0
"""Of each candidate in the first rounds."""
HOPELESS = 10.0
"""Times as slow as the fastest, beyond which nothing is changed about a way as it comes: no option gains so much."""
TURN_S = 0.5
TURNS = 12
"""Of the last round: two of twelve pairs may be odd, and the interval still stands."""

Verify = Callable[[Candidate], tuple[bool, str]]
"""Whether a candidate passes, and what to say of it."""


@dataclass(kw_only=True)
class Search:
    """What a search knows so far."""

    bundle: Bundle
    goal: Goal
    examples: str
    """What answers are verified on, for people."""
    judged_by: str
    """What a verdict depends on besides the candidate: the images and what may be lost."""
    log: TuningLog
    verify: Verify
    say: Callable[[str], None]
    start: Callable[[Candidate], Runner]
    """Returns a candidate, ready to run; raises `Refused`."""
    deadline: float
    """By `time.monotonic`; at least the last round is held whatever it says."""
    brief: dict[Candidate, float] = field(default_factory=dict)
    """Milliseconds an image, of a short run."""
    refused: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def briefly(self, candidate: Candidate) -> float | None:
        """Return the milliseconds an image of a short run, from the log where they are there; None if it cannot run."""
        known = self.log.get("brief", candidate)
        if known is None:
            known = self._run_briefly(candidate)
            self.log.add("brief", candidate, known)
        if "refused" in known:
            self.refused[candidate.words] = str(known["refused"])
            return None
        self.brief[candidate] = float(known["ms"])
        return self.brief[candidate]

    def _run_briefly(self, candidate: Candidate) -> Mapping[str, Any]:
        try:
            with self.start(candidate) as runner:
                turn = runner.run(BRIEF_S)
        except Refused as refusal:
            self.say(f"  {candidate.words}: cannot be run, {refusal}")
            return {"refused": str(refusal)}
        times = times_of(turn.times_ms, candidate.batch)
        self.say(f"  {candidate.words}: {times.p50_ms:.2f} ms, {times.images_per_second:,.1f} images/s")
        return {"ms": times.p50_ms / candidate.batch}

    def passes(self, candidate: Candidate) -> bool:
        """Return whether the candidate's answers are right, from the log where it was verified before."""
        known = self.log.get(self._judging, candidate)
        if known is None:
            try:
                passed, words = self.verify(candidate)
            except LinneError as error:
                passed, words = False, error.message
            known = {"passed": passed, "words": words}
            self.log.add(self._judging, candidate, known)
        if not known["passed"]:
            self.failed[candidate.words] = str(known["words"])
            self.say(f"  {candidate.words} is not used: {known['words']}")
        return bool(known["passed"])

    def said_of(self, candidate: Candidate) -> str:
        """Return what verification said of a candidate."""
        known = self.log.get(self._judging, candidate)
        return "-" if known is None else str(known["words"])

    @property
    def _judging(self) -> str:
        return f"verified by {self.judged_by}"

    @property
    def out_of_time(self) -> bool:
        """Whether no further candidate should be begun."""
        return time.monotonic() > self.deadline


def search(
    task: Search,
    baseline: Candidate,
    plain: Sequence[Candidate],
    beside: Sequence[Candidate],
    batches: Sequence[int],
    threads: Sequence[int | None],
) -> tuple[Candidate, TuningReport]:
    """Return the fastest way that passes, and everything that was measured.

    Args:
        baseline: what is used without tuning.
        plain: each backend in each precision, with nothing else said.
        beside: other ways that people know, measured in the last round as well.
        batches: sizes to try.
        threads: numbers of threads to try; None is each backend's own.

    Raises:
        LinneError: what is used without tuning cannot be run.
        CheckFailed: nothing that can be run passes.
    """
    began = time.monotonic()
    num_tried = _try_all(task, baseline, plain, batches, threads)
    if baseline not in task.brief:
        why = task.refused.get(baseline.words, "out of time")
        raise LinneError(f"bundle `{task.bundle.path}` cannot be run as it is: {why}")
    best = next((one for one in _fastest_first(task) if task.passes(one)), None)
    if best is None:
        raise CheckFailed(
            f"nothing that runs bundle `{task.bundle.path}` here passes: {task.failed[baseline.words]}",
            hint="`linne verify` says more; --max-drop allows more to be lost",
        )
    others = [one for one in dict.fromkeys([*beside, best]) if one != baseline and one in task.brief]
    for one in others:
        task.passes(one)
    ways = last_round(task, baseline, others)
    by_words = {way.words: way for way in ways}
    chosen = best if by_words[best.words].verdict == "faster" or not task.passes(baseline) else baseline
    report = TuningReport(
        bundle=str(task.bundle.path),
        goal=task.goal,
        machine=machine_name(),
        examples=task.examples,
        num_tried=num_tried,
        refused=task.refused,
        failed=task.failed,
        ways=tuple(ways),
        chosen=chosen.words,
        minutes=(time.monotonic() - began) / 60,
    )
    return chosen, report


def _try_all(
    task: Search,
    baseline: Candidate,
    plain: Sequence[Candidate],
    batches: Sequence[int],
    threads: Sequence[int | None],
) -> int:
    """Run candidates briefly while there is time: as they come, with one thing changed, with all that helped."""
    tried = 0

    def in_time(candidates: Iterable[Candidate]) -> bool:
        nonlocal tried
        for candidate in candidates:
            if task.out_of_time and tried:
                task.say("the time is up: what is not tried yet is left out")
                return False
            tried += 1
            task.briefly(candidate)
        return True

    if not in_time(dict.fromkeys([baseline, *plain])):
        return tried
    near = [one for one in plain if one in task.brief and task.brief[one] <= HOPELESS * min(task.brief.values())]
    if not in_time(first_round(near, batches, threads)):
        return tried
    for one in near:
        if task.out_of_time:
            break
        family = (one.backend, one.how.precision)
        better = [
            other
            for other in _fastest_first(task)
            if (other.backend, other.how.precision) == family and task.brief[other] < task.brief[one]
        ]
        together = second_round(one, better)
        if together is not None:
            tried += 1
            task.briefly(together)
    return tried


def _fastest_first(task: Search) -> list[Candidate]:
    return sorted(task.brief, key=task.brief.__getitem__)


def last_round(task: Search, baseline: Candidate, others: Sequence[Candidate]) -> list[Way]:
    """Return the baseline, the same once more, and each of `others`, measured in turns: all share what load there is.

    Raises:
        LinneError: one of them cannot be run any more.
    """
    entrants = [baseline, baseline, *others]
    task.say(f"the last round: {', '.join(one.words for one in others) or baseline.words}, in {TURNS} turns each")
    samples: list[list[float]] = [[] for _ in entrants]
    medians: list[list[float]] = [[] for _ in entrants]
    peaks: list[float | None] = [None for _ in entrants]
    try:
        with ExitStack() as stack:
            runners = [stack.enter_context(task.start(one)) for one in entrants]
            for _ in range(TURNS):
                for place, (one, runner) in enumerate(zip(entrants, runners, strict=True)):
                    turn = runner.run(TURN_S)
                    times = times_of(turn.times_ms, one.batch)
                    samples[place] += turn.times_ms
                    medians[place].append(times.p50_ms / one.batch)
                    peaks[place] = turn.peak_mib
    except Refused as refusal:
        raise LinneError(f"a way that could be run before cannot be run any more: {refusal}") from refusal
    assert TURNS >= LEAST_PAIRS
    pairs = [compare(medians[0], own) for own in medians]
    return [
        _way(task, one, runners[place], samples[place], peaks[place], pairs[place])
        for place, one in enumerate(entrants)
    ]


def _way(
    task: Search, one: Candidate, runner: Runner, samples_ms: Sequence[float], peak_mib: float | None, pair: Comparison
) -> Way:
    times = times_of(samples_ms, one.batch)
    return Way(
        words=one.words,
        description=runner.description,
        open_ms=runner.open_ms,
        first_ms=runner.first_ms,
        p50_ms=times.p50_ms,
        p95_ms=times.p95_ms,
        p99_ms=times.p99_ms,
        images_per_second=times.images_per_second,
        peak_mib=peak_mib,
        num_batches=times.num_batches,
        ratio=pair.ratio,
        low=pair.low,
        high=pair.high,
        verdict=pair.verdict,
        verified=task.said_of(one),
    )
