"""What `linne launch` makes of how processes end: what is over, what is tried again, and when that is given up."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner

from linne.cli import cli
from linne.errors import LinneError
from linne.launching import supervisor as supervising
from linne.launching.machines import join_verdicts
from linne.launching.outcomes import Outcome, Verdict, judge, note_process, processes, read_outcomes
from linne.launching.supervisor import Supervisor, with_setting
from linne.log import Narrator

TWO = range(2)
DONE = Verdict(0)
DIED = Verdict(None, ("rank 1 was killed by SIGKILL",))


def test_all_that_end_well_end_the_training_well():
    assert judge(TWO, {0: Outcome(0), 1: Outcome(0)}, {}) == DONE


def test_a_signal_that_all_have_heeded_gives_its_exit_code():
    assert judge(TWO, {0: Outcome(143), 1: Outcome(143)}, {}) == Verdict(143)


def test_a_users_error_decides_over_the_deaths_that_it_brings_and_names_its_rank():
    lost = Outcome(1, "unexpected RuntimeError: Connection closed by peer", None, is_fault=True)
    first = judge(TWO, {0: Outcome(1, "no source `x`", "did you mean `y`?"), 1: lost}, {})
    assert first == Verdict(1, ("no source `x`",), "did you mean `y`?")
    other = judge(TWO, {0: lost, 1: Outcome(1, "3 images cannot be read", None)}, {0: 1, 1: 1})
    assert other == Verdict(1, ("rank 1: 3 images cannot be read",))
    assert judge(TWO, {0: lost, 1: Outcome(3, "the loss became nan", None)}, {}).code == 3


def test_a_process_that_died_without_a_word_is_named_with_its_signal():
    lost = Outcome(1, "unexpected RuntimeError: Connection closed by peer", None, is_fault=True)
    killed = judge(TWO, {0: lost}, {0: 1, 1: -9})
    assert killed == Verdict(None, ("rank 1 was killed by SIGKILL (perhaps by the system, for want of memory)",))
    # The second is how torchrun ends the others.
    assert judge(TWO, {}, {0: -11, 1: -15}).lines == ("rank 0 was killed by SIGSEGV",)
    assert judge(TWO, {}, {1: 7}).lines == ("rank 1 ended with exit code 7",)


def test_a_fault_of_one_process_is_tried_again():
    fault = Outcome(1, "unexpected RuntimeError: CUDA error", None, is_fault=True)
    assert judge(TWO, {0: fault}, {0: 1}) == Verdict(None, ("rank 0: unexpected RuntimeError: CUDA error",))


def short_of_memory(micro_batch: int) -> Outcome:
    return Outcome(1, f"out of memory with {2 * micro_batch} images", "type", is_fault=True, micro_batch=micro_batch)


def test_memory_that_is_short_is_tried_again_with_the_fewest_images_that_any_process_asks_for():
    lost = Outcome(1, "unexpected RuntimeError: Connection closed by peer", None, is_fault=True)
    assert judge(TWO, {0: lost, 1: short_of_memory(4)}, {0: 1, 1: 1}) == Verdict(
        None, ("rank 1: out of memory with 8 images",), micro_batch=4
    )
    assert judge(TWO, {0: short_of_memory(4), 1: short_of_memory(3)}, {}).micro_batch == 3
    assert judge(TWO, {0: Outcome(1, "no source `x`"), 1: short_of_memory(4)}, {}).code == 1


def test_outcomes_and_process_numbers_are_read_as_they_were_written(tmp_path):
    outcome = Outcome(1, "größer", "hint", is_fault=True)
    outcome.write(tmp_path, 11)
    note_process(tmp_path, 11, 1234)
    (tmp_path / "rank-2.pid").write_text("")  # about to be written
    assert read_outcomes(tmp_path) == {11: outcome}
    assert processes(tmp_path) == {11: 1234}


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([DONE, DONE], DONE),
        ([Verdict(143), Verdict(143)], Verdict(143)),
        ([DIED, DONE], DIED),
        ([DIED, Verdict(1, ("no source",), "hint")], Verdict(1, ("no source",), "hint")),
        ([Verdict(1), Verdict(1, ("no source",), None)], Verdict(1, ("no source",), None)),
        ([DONE, Verdict(None)], Verdict(None, ("a machine was lost",))),
        (
            [Verdict(None, ("lost",), place="step-2", moved=True), Verdict(None, ("killed",))],
            Verdict(None, ("lost", "killed"), place="step-2", moved=True),
        ),
        (
            [Verdict(None, ("machine 1: short",)), Verdict(None, ("short",), micro_batch=4), Verdict(None, ("lost",))],
            Verdict(None, ("short",), micro_batch=4),
        ),
    ],
)
def test_machines_agree_on_an_error_first_and_on_success_only_when_all_had_it(ends, expected):
    assert join_verdicts(ends) == expected


@dataclass
class Played:
    """An attempt that does something and is over."""

    act: Callable[[], Verdict]
    told: list[int] = field(default_factory=list)
    is_overdue = False
    is_over = True

    def pass_on(self, number: int) -> None:
        self.told.append(number)
        self.is_over = True

    def end(self) -> Verdict:
        return self.act()


@dataclass
class Stage:
    """Starts attempts that are written down beforehand."""

    acts: list[Callable[[], Verdict]]
    problems: list[str] = field(default_factory=list)
    played: list[Played] = field(default_factory=list)
    typed: list[list[str]] = field(default_factory=list)
    """With which arguments each was started."""

    def start(self, arguments):
        self.typed.append(list(arguments))
        self.played.append(Played(self.acts[len(self.played)]))
        self.played[-1].is_over = not self.problems
        return self.played[-1]

    def must_end(self):
        return self.problems.pop() if self.problems else None

    def agree(self, verdict):
        return verdict


def supervise(stage: Stage, run: Path, **options) -> int:
    options = {"max_restarts": 3, "first_wait": 0.01, **options}
    return Supervisor(starter=stage, narrator=Narrator(), run=run, **options).train(["train"])


def dies_at(run: Path, place: str | None) -> Callable[[], Verdict]:
    """Return an attempt that leaves a checkpoint and dies."""

    def act() -> Verdict:
        if place is not None:
            (run / "checkpoints").mkdir(exist_ok=True)
            (run / "checkpoints" / "latest").write_text(place)
        return DIED

    return act


def ends(verdict: Verdict) -> Callable[[], Verdict]:
    return lambda: verdict


def test_processes_that_die_are_started_again_from_the_newest_checkpoint(tmp_path, capsys):
    stage = Stage([dies_at(tmp_path, "step-1"), dies_at(tmp_path, "step-2"), ends(DONE)])
    assert supervise(stage, tmp_path) == 0
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "warning: rank 1 was killed by SIGKILL; restart 1 of 3 from step-1 in 0.01 s",
        "warning: rank 1 was killed by SIGKILL; restart 2 of 3 from step-2 in 0.01 s",
    ]


def test_two_attempts_that_come_no_further_are_the_last(tmp_path, capsys):
    stage = Stage([dies_at(tmp_path, "step-1"), dies_at(tmp_path, None), dies_at(tmp_path, None), ends(DONE)])
    assert supervise(stage, tmp_path) == 1
    assert len(stage.played) == 3
    last = "error: rank 1 was killed by SIGKILL; given up: 2 attempts in a row came no further than step-1"
    assert last in capsys.readouterr().err


def test_restarts_are_used_up_even_with_progress(tmp_path, capsys):
    stage = Stage([dies_at(tmp_path, f"step-{number}") for number in range(9)])
    assert supervise(stage, tmp_path, max_restarts=2) == 1
    assert len(stage.played) == 3
    assert "given up: 2 restarts are used up" in capsys.readouterr().err


def short(micro_batch: int) -> Callable[[], Verdict]:
    return ends(Verdict(None, ("rank 1: out of memory",), micro_batch=micro_batch))


def test_memory_that_is_short_is_no_restart_and_the_next_attempt_computes_fewer_at_once(tmp_path, capsys):
    stage = Stage([short(8), short(4), short(2), ends(DONE)])
    assert supervise(stage, tmp_path, max_restarts=0) == 0
    assert stage.typed == [["train"], *(["train", "--set", f"device.micro_batch={n}"] for n in (8, 4, 2))]
    said = capsys.readouterr().err.splitlines()
    assert said[0] == (
        "warning: rank 1: out of memory; going on from the beginning with 8 images at once in each process"
    )


def test_memory_that_is_short_with_no_more_images_than_before_is_a_death_like_any_other(tmp_path, capsys):
    stage = Stage([short(4), short(4), short(4), ends(DONE)])
    assert supervise(stage, tmp_path) == 1
    assert "given up: 2 attempts in a row came no further than the beginning" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "x"], ["train", "x"]),
        (["--set", "a.b=9", "--set", "c=1"], ["--set", "c=1"]),
        (["--set=a.b = 9", "--set=c=1"], ["--set=c=1"]),
        (["--set", "a.bb=9", "a.b=9"], ["--set", "a.bb=9", "a.b=9"]),
    ],
)
def test_a_setting_takes_the_place_of_what_was_typed_for_that_field(words, expected):
    assert with_setting(words, "a.b", "4") == [*expected, "--set", "a.b=4"]


@pytest.mark.parametrize("code", [1, 2, 3])
def test_an_error_of_the_users_is_said_once_and_not_tried_again(tmp_path, capsys, code):
    stage = Stage([ends(Verdict(code, ("no source `x`",), "did you mean `y`?")), ends(DONE)])
    assert supervise(stage, tmp_path) == code
    assert capsys.readouterr().err == "error: no source `x`\n\nhint: did you mean `y`?\n"
    assert len(stage.played) == 1


def test_waits_double_while_nothing_moves_and_begin_anew_after_progress(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(supervising, "MOST_IDLE", 9)
    acts = [dies_at(tmp_path, None), dies_at(tmp_path, None), dies_at(tmp_path, "step-1"), ends(DONE)]
    assert supervise(Stage(acts), tmp_path) == 0
    waits = [line.rpartition(" in ")[2] for line in capsys.readouterr().err.splitlines()]
    assert waits == ["0.01 s", "0.02 s", "0.01 s"]


def test_what_another_machine_reports_ends_the_attempt_here_too(tmp_path, capsys):
    stage = Stage([ends(Verdict(None, ("killed",))), ends(DONE)], problems=["machine 1 was not heard of for 15 s"])
    assert supervise(stage, tmp_path) == 0
    assert "machine 1 was not heard of for 15 s; restart 1 of 3 from the beginning" in capsys.readouterr().err


def test_a_signal_is_passed_on_and_its_exit_code_is_left_with(tmp_path):
    stage = Stage([ends(Verdict(143))], problems=[])
    start = stage.start

    def never_over(arguments):
        attempt = start(arguments)
        attempt.is_over = False
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return attempt

    stage.start = never_over
    assert supervise(stage, tmp_path) == 143
    assert stage.played[0].told == [signal.SIGTERM]


def test_a_second_signal_does_not_wait_for_the_processes(tmp_path):
    stage = Stage([ends(Verdict(None, ("rank 0 was killed by SIGKILL",)))])
    start = stage.start

    def never_over(arguments):
        attempt = start(arguments)
        attempt.pass_on = attempt.told.append
        attempt.is_over = False
        for seconds in (0.2, 0.6):
            threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()
        return attempt

    stage.start = never_over
    assert supervise(stage, tmp_path) == 130
    assert set(stage.played[0].told) == {signal.SIGINT}


def test_a_signal_while_waiting_ends_without_another_attempt(tmp_path):
    stage = Stage([dies_at(tmp_path, "step-1"), ends(DONE)])
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    assert supervise(stage, tmp_path, first_wait=30) == 130
    assert len(stage.played) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["predict", "x"], "`linne launch` starts `train ...`, and nothing else"),
        (["--nodes", "2", "train", "digits"], "--rendezvous is missing, expected HOST:PORT of machine 0"),
        (
            ["--nodes", "2", "--rendezvous", "here", "train", "digits"],
            "--rendezvous is `here`, expected HOST:PORT of machine 0",
        ),
        (["--node-rank", "1", "train", "digits"], "--node-rank is 1, expected 0 to 0, as --nodes is 1"),
        (["train", "digits", "--batch-sze", "3"], "No such option"),
    ],
)
def test_a_command_line_that_cannot_be_meant_is_refused_before_anything_starts(words, said):
    result = CliRunner().invoke(cli, ["launch", *words], standalone_mode=False)
    assert said in str(result.exception.format_message())


def test_several_machines_need_a_name_for_the_run():
    words = ["launch", "--nodes", "2", "--rendezvous", "host:29400", "train", "digits"]
    refused = CliRunner().invoke(cli, words, standalone_mode=False).exception
    assert isinstance(refused, LinneError)
    assert str(refused) == "several machines need one name for the run"
    assert refused.hint == "--output DIR, the same on all"
