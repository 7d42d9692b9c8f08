"""`linne tune` finds the fastest way that passes, calls noise noise, and goes on where it was stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from fixtures.graphs import write_graph_bundle

import linne
from linne.bundle import Bundle
from linne.cli import cli
from linne.errors import BundleError, CheckFailed, LinneError
from linne.host import accelerator_names
from linne.inference.backends.base import RunOptions
from linne.inference.predictor import Predictor
from linne.preprocess import InputSpec
from linne.tuned import FILE, Choice, choice_for, choices_of, keep_choice, machine_name, versions_of
from linne.tuning.candidate import Candidate, first_round, plain_ways, second_round
from linne.tuning.log import TuningLog
from linne.tuning.runner import Refused, Runner, Turn
from linne.tuning.search import Search, search
from linne.tuning.statistics import compare, times_of

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

LABELS = ("ant", "bee", "cow")
SPEC = InputSpec(channels=1, height=8, width=8, mean=(0.5,), std=(0.25,), interpolation="bilinear", crop_pct=1.0)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_graph_bundle(tmp_path / "bundle", LABELS, SPEC)


# Statistics


def test_the_same_way_twice_is_called_no_difference_nearly_always() -> None:
    draw, calls = np.random.default_rng(0), 0
    for _ in range(300):
        first, second = (np.exp(draw.normal(0, 0.05, 12)) for _ in range(2))
        calls += compare(list(first), list(second)).verdict != "no difference"
    # 12 pairs leave the interval with 96 %, and a difference under 2 % is called none in any case.
    assert calls <= 0.06 * 300


@pytest.mark.parametrize(("faster", "verdict"), [(1.3, "faster"), (0.7, "slower"), (1.01, "no difference")])
def test_a_difference_beyond_noise_is_found_and_a_small_one_is_called_none(faster: float, verdict: str) -> None:
    draw = np.random.default_rng(1)
    load = np.exp(draw.normal(0, 0.3, 12))  # of other programs, on both of a pair
    first, second = (load * np.exp(draw.normal(0, 0.002, 12)) for _ in range(2))
    found = compare(list(first), list(second / faster))
    assert found.verdict == verdict
    assert found.ratio == pytest.approx(faster, rel=0.01)
    assert found.low <= found.ratio <= found.high


def test_too_few_pairs_say_nothing() -> None:
    with pytest.raises(ValueError, match="5 pairs, expected 6 or more"):
        compare([1.0] * 5, [1.0] * 5)


def test_times_are_percentiles_of_batches_and_images_a_second_by_their_median() -> None:
    times = times_of([float(ms) for ms in range(1, 102)], batch=4)
    assert (times.p50_ms, times.p95_ms, times.p99_ms) == (51.0, 96.0, 100.0)
    assert times.images_per_second == pytest.approx(4 * 1000 / 51)


# The search, on ways whose speeds are known


class Pretended:
    """A runner whose batches take the time that is made up for its candidate, with noise that repeats."""

    def __init__(self, candidate: Candidate, ms: float, draw: np.random.Generator) -> None:
        self.description = f"made up for {candidate.words}"
        self.open_ms, self.first_ms = 10.0, 5.0
        self._ms, self._draw = ms, draw

    def run(self, seconds: float) -> Turn:
        return Turn(times_ms=tuple(self._ms * np.exp(self._draw.normal(0, 0.003, 20))), peak_mib=100.0)

    def __enter__(self) -> Pretended:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def way(backend: str = "onnxruntime", threads: int | None = None, batch: int = 1, **how: Any) -> Candidate:
    return Candidate(backend=backend, how=RunOptions(num_threads=threads, **how), batch=batch)


def found(
    bundle: Bundle,
    speed: Callable[[Candidate], float],
    *,
    plain: Sequence[Candidate] = (way(), way("torch")),
    verify: Callable[[Candidate], tuple[bool, str]] = lambda _: (True, "all alike"),
    seconds: float = 60.0,
    said: list[str] | None = None,
    judged_by: str = "some images",
) -> tuple[Candidate, Any, list[Candidate]]:
    """Return what the search chose, its report, and what it ran."""
    started: list[Candidate] = []
    draw = np.random.default_rng(0)

    def start(candidate: Candidate) -> Any:
        started.append(candidate)
        ms = speed(candidate)
        if ms < 0:
            raise Refused("it is not for this machine")
        return Pretended(candidate, ms, draw)

    task = Search(
        bundle=bundle,
        goal="latency",
        examples="nothing",
        judged_by=judged_by,
        log=TuningLog(bundle),
        verify=verify,
        say=(said if said is not None else []).append,
        start=start,
        deadline=time.monotonic() + seconds,
    )
    chosen, report = search(task, plain[0], plain, [way("torch")], (1,), (None, 1))
    return chosen, report, started


def test_the_known_optimum_is_found_where_two_changes_help_together(bundle: Bundle) -> None:
    def speed(one: Candidate) -> float:
        ms = {"onnxruntime": 10.0, "torch": 12.0}[one.backend]
        ms *= 0.8 if one.how.options.get("channels_last") == "true" else 1.0
        return ms * (0.7 if one.backend == "torch" and one.how.num_threads == 1 else 1.0)

    chosen, report, _ = found(bundle, speed)
    assert chosen == way("torch", threads=1, options={"channels_last": "true"})
    best = next(row for row in report.ways if row.words == chosen.words)
    assert best.verdict == "faster"
    assert best.ratio == pytest.approx(10 / (12 * 0.8 * 0.7), rel=0.02)


def test_where_all_are_alike_nothing_changes(bundle: Bundle) -> None:
    chosen, report, _ = found(bundle, lambda _: 10.0)
    assert chosen == way()
    assert report.noise.verdict == "no difference"
    assert report.lines()[0] == "nothing that passes is faster than `onnxruntime fp32, batch 1`: it stays"


def test_the_fastest_is_not_taken_where_its_answers_are_wrong(bundle: Bundle) -> None:
    int8 = way(precision="int8")
    chosen, report, _ = found(
        bundle,
        lambda one: {"int8": 2.0, "fp32": 10.0}[one.how.precision] * (0.8 if one.backend == "torch" else 1),
        plain=(way(), way("torch"), int8),
        verify=lambda one: (one.how.precision != "int8", "it loses 3.00 points of accuracy, 0.5 allowed"),
    )
    assert chosen.backend == "torch"
    assert report.failed[int8.words] == "it loses 3.00 points of accuracy, 0.5 allowed"
    assert any("not used, it loses 3.00 points" in line for line in report.lines())


def test_a_verdict_counts_only_for_the_images_and_the_budget_that_it_was_made_with(bundle: Bundle) -> None:
    def speed(one: Candidate) -> float:
        return 5.0 if one.backend == "torch" else 10.0

    def strict(one: Candidate) -> tuple[bool, str]:
        return one.backend != "torch", "it loses 1.00 points of accuracy, 0 allowed"

    assert found(bundle, speed, judged_by="images, 0.05")[0].backend == "torch"
    assert found(bundle, speed, verify=strict, judged_by="images, 0")[0].backend == "onnxruntime"
    assert found(bundle, speed, verify=strict, judged_by="images, 0.05")[0].backend == "torch", "known from before"


def test_where_nothing_passes_nothing_is_chosen_and_a_slower_way_that_passes_is(bundle: Bundle) -> None:
    with pytest.raises(CheckFailed, match=r"nothing that runs bundle .* passes: wrong"):
        found(bundle, lambda _: 10.0, verify=lambda _: (False, "wrong"))

    def slower(one: Candidate) -> float:
        return 30.0 if one.backend == "torch" else 10.0

    chosen, _, _ = found(bundle, slower, verify=lambda one: (one.backend == "torch", "wrong"), judged_by="others")
    assert chosen.backend == "torch"


def test_nothing_is_changed_about_a_way_that_is_hopelessly_slow(bundle: Bundle) -> None:
    _, _, started = found(bundle, lambda one: 10.0 if one.backend == "onnxruntime" else 150.0)
    assert way("torch") in started
    assert not [one for one in started if one.backend == "torch" and one != way("torch")]


def test_what_cannot_be_run_is_passed_over_and_named(bundle: Bundle) -> None:
    said: list[str] = []
    chosen, report, _ = found(bundle, lambda one: -1.0 if one.backend == "torch" else 10.0, said=said)
    assert chosen == way()
    assert report.refused["torch fp32, batch 1"] == "it is not for this machine"
    assert "  torch fp32, batch 1: cannot be run, it is not for this machine" in said


def test_where_what_is_used_now_cannot_be_run_that_is_an_error(bundle: Bundle) -> None:
    with pytest.raises(LinneError, match="cannot be run as it is: it is not for this machine"):
        found(bundle, lambda _: -1.0)


def test_a_search_that_was_interrupted_goes_on_with_what_it_knows(bundle: Bundle) -> None:
    def stop_at_torch(one: Candidate) -> float:
        if one.backend == "torch":
            raise KeyboardInterrupt
        return 10.0

    with pytest.raises(KeyboardInterrupt):
        found(bundle, stop_at_torch)
    with (bundle.path / "exports" / "tuning.jsonl").open("a") as file:
        file.write('{"of": "half a li')  # as a kill leaves it
    _, _, started = found(bundle, lambda _: 10.0)
    brief = started[: -started[::-1].index(way()) - 1]
    assert way() not in brief[:-1], "it was measured before the interruption"
    assert way("torch") in brief


def test_what_was_measured_counts_only_for_the_same_network(bundle: Bundle, tmp_path: Path) -> None:
    TuningLog(bundle).add("brief", way(), {"ms": 1.0})
    assert TuningLog(bundle).get("brief", way()) == {"ms": 1.0}
    other = write_graph_bundle(tmp_path / "other", LABELS[::-1], SPEC)
    (other.path / "exports").mkdir()
    (other.path / "exports" / "tuning.jsonl").write_bytes((bundle.path / "exports" / "tuning.jsonl").read_bytes())
    assert TuningLog(other).get("brief", way()) is None


def test_when_the_time_is_up_no_candidate_is_begun_but_the_last_round_is_held(bundle: Bundle) -> None:
    said: list[str] = []
    chosen, report, _ = found(bundle, lambda _: 10.0, seconds=-1, said=said)
    assert (chosen, report.num_tried) == (way(), 1)
    assert "the time is up: what is not tried yet is left out" in said


def test_candidates_change_one_thing_at_a_time_and_then_all_that_helped() -> None:
    plain = way("torch", batch=1)
    changed = first_round([plain], (1, 8), (None, 1))
    assert way("torch", threads=1) in changed
    assert way("torch", batch=8) in changed
    assert way("torch", options={"channels_last": "true"}) in changed
    assert plain not in changed
    better = [way("torch", batch=8), way("torch", threads=1), way("torch", options={"channels_last": "true"})]
    assert second_round(plain, better) == way("torch", threads=1, batch=8, options={"channels_last": "true"})
    assert second_round(plain, better[:1]) is None
    assert second_round(plain, []) is None


def test_kernels_of_gpus_are_searched_only_where_there_is_one() -> None:
    tried = {name for one in first_round([way("torch")], (1,), (None,)) for name in one.how.options}
    gpus = accelerator_names()
    assert ("cudnn_benchmark" in tried) == bool(gpus)
    assert ("miopen_search" in tried) == any(name.startswith("AMD") for name in gpus)


def test_a_graph_is_run_by_what_runs_graphs(bundle: Bundle) -> None:
    names = {one.backend for one in plain_ways(bundle, RunOptions(), 1)}
    assert "onnxruntime" in names
    assert not {"torch", "null"} & names


# The process of a candidate


@pytest.mark.long
def test_a_candidate_runs_in_a_process_of_its_own(bundle: Bundle) -> None:
    large = np.ones(2**29, np.uint8)  # what its starter has is not its own
    with Runner(bundle.path, way(batch=3)) as runner:
        turn = runner.run(0.01)
        assert runner.description.startswith("onnxruntime")
        assert turn.times_ms
        assert turn.peak_mib is None or 1 < turn.peak_mib < large.nbytes / 2**20
        assert len(runner.run(0.0).times_ms) == 1
    with pytest.raises(Refused, match="its process is gone"):
        runner.run(1)


def test_a_candidate_that_cannot_be_opened_says_why(bundle: Bundle) -> None:
    with pytest.raises(Refused, match="has no export `onnx-int8`"):
        Runner(bundle.path, way(precision="int8"))


# What is kept


def kept(**other: Any) -> Choice:
    values = {
        "machine": machine_name(),
        "device": "auto",
        "goal": "latency",
        "backend": "onnxruntime",
        "precision": "fp32",
        "threads": 1,
        "batch": 1,
        "options": {"optimise": "basic"},
        "versions": versions_of("onnxruntime"),
        "measured": {"ratio": 2.0, "created": "2026-11-28T10:00:00+00:00"},
    }
    return Choice(**{**values, **other})


def test_a_choice_is_used_by_auto_and_said(bundle: Bundle) -> None:
    keep_choice(bundle, kept())
    predictor = Predictor.open(bundle, goal="latency")
    assert predictor.how == RunOptions(num_threads=1, options={"optimise": "basic"})
    assert predictor.notes == (f"runs on {predictor.backend.description}, tuned for latency on 2026-11-28",)
    assert Predictor.open(bundle, goal="throughput").how.num_threads == 1, "the other goal's is better than none"
    assert Predictor.open(bundle).how == RunOptions(), "only where a goal is named"
    assert Predictor.open(bundle, backend="onnxruntime", goal="latency").how == RunOptions(), "not where one is typed"


def test_the_batch_size_of_a_choice_for_throughput_is_used(bundle: Bundle) -> None:
    keep_choice(bundle, kept(goal="throughput", batch=16))
    assert Predictor.open(bundle, goal="throughput").batch_size == 16


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"machine": "a Cray"}, "what was tuned on a Cray is not used here"),
        ({"versions": {"onnxruntime": "0.1"}}, "what was tuned for onnxruntime 0.1 is not used with onnxruntime"),
        ({"precision": "int8"}, "onnxruntime in int8, cannot be used: it has no ONNX export in int8"),
    ],
)
def test_a_choice_for_elsewhere_is_passed_over_and_said(bundle: Bundle, other: dict[str, Any], why: str) -> None:
    keep_choice(bundle, kept(**other))
    predictor = Predictor.open(bundle, goal="latency")
    assert predictor.how == RunOptions()
    assert why in predictor.notes[0]


def test_a_choice_takes_the_place_of_an_older_one_and_others_stay(bundle: Bundle) -> None:
    keep_choice(bundle, kept(threads=2))
    keep_choice(bundle, kept(goal="throughput", batch=4))
    keep_choice(bundle, kept(threads=1))
    assert {(choice.goal, choice.threads) for choice in choices_of(bundle)} == {("throughput", 1), ("latency", 1)}


def test_a_choice_for_another_network_is_not_seen(bundle: Bundle, tmp_path: Path) -> None:
    path = keep_choice(bundle, kept())
    other = write_graph_bundle(tmp_path / "other", LABELS[::-1], SPEC)
    (other.path / "exports").mkdir()
    (other.path / "exports" / FILE).write_bytes(path.read_bytes())
    assert choice_for(other, "auto", "latency") == (None, None)


def test_an_edited_file_of_choices_is_refused(bundle: Bundle) -> None:
    path = keep_choice(bundle, kept())
    path.write_text(path.read_text().replace('"threads": 1', '"threads": 8'))
    with pytest.raises(BundleError, match="was edited or damaged") as caught:
        Predictor.open(bundle, goal="latency")
    assert caught.value.hint == f"delete `{path}` and tune again"


# The verb


@pytest.mark.long
def test_tuning_a_bundle_ends_in_a_table_and_a_choice(bundle: Bundle) -> None:
    asked = ["tune", str(bundle.path), "--budget", "0.2"]
    table = CliRunner().invoke(cli, asked)
    assert table.exit_code == 0, table.stderr
    assert table.stdout.splitlines()[0].split()[:2] == ["way", "ready"]
    assert "onnxruntime fp32, batch 1 (again)" in table.stdout
    assert f"kept in {bundle.path}" in table.stderr
    (choice,) = choices_of(bundle)
    assert choice.goal == "latency"
    again = CliRunner().invoke(cli, [*asked, "--json", "--quiet"])
    values = json.loads(again.stdout)
    assert values["chosen"] in {row["words"] for row in values["ways"]}
    assert again.stderr == ""


def test_a_budget_of_nothing_is_refused(bundle: Bundle) -> None:
    with pytest.raises(LinneError, match="minutes is 0, expected more than 0"):
        linne.tune(bundle.path, minutes=0)
    with pytest.raises(LinneError, match="batch is 0, expected 1 or more"):
        linne.tune(bundle.path, batch=0)


def test_words_name_what_differs() -> None:
    one = way("torch", threads=2, batch=4, options={"compile": "default"}, precision="bf16")
    assert one.words == "torch bf16, 2 threads, batch 4, compile=default"
    assert Candidate.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    assert replace(one, how=replace(one.how, num_threads=1)).words == "torch bf16, 1 thread, batch 4, compile=default"
