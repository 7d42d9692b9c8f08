"""Workers in one folder: what they try, what they leave, and what happens when they die."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fixtures.sweeps import TRAINER, begin, wait_for

pytest.importorskip("optuna", reason="a sweep needs optuna: pip install 'linne[sweep]'")

from linne.errors import LinneError
from linne.sweeping.folder import read_plan
from linne.sweeping.gather import gather
from linne.sweeping.journal import Journal
from linne.sweeping.journal_file import JournalFile
from linne.sweeping.presence import LOST_AFTER_SECONDS, Presence
from linne.sweeping.worker import work

pytestmark = pytest.mark.long


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a worker in a process of its own; none outlives its test."""
    started: list[subprocess.Popen[bytes]] = []

    def begun(folder: Path) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "linne.sweeping.worker", str(folder), "-", *TRAINER]
        started.append(subprocess.Popen(words, stdin=subprocess.PIPE))
        return started[-1]

    yield begun
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()


def states(folder: Path) -> list[str]:
    return [trial.state for trial in gather(folder).trials]


def test_each_trial_is_trained_once_and_the_first_is_the_recipe_as_it_was(tmp_path):
    begin(tmp_path, trials=5)
    assert work(tmp_path, trainer=TRAINER) == "done"
    report = gather(tmp_path)
    assert [trial.state for trial in report.trials] == ["finished"] * 5
    assert report.automatic == 1
    assert report.trials[0].settings == {"optim.lr": 0.1}
    assert len({trial.settings["optim.lr"] for trial in report.trials}) == 5
    best = max(report.trials, key=lambda trial: trial.val_accuracy)
    assert report.best.number == best.number
    assert not any((tmp_path / "workers").iterdir())


def test_the_settings_written_down_are_those_that_were_trained_with(tmp_path):
    work(begin(tmp_path, trials=2), trainer=TRAINER)
    for trial in gather(tmp_path).trials:
        told = json.loads((tmp_path / trial.name / "started.json").read_text())
        assert float(told["optim.lr"]) == trial.settings["optim.lr"]


def test_a_trial_is_judged_by_the_epoch_it_keeps_and_not_by_its_last(tmp_path):
    work(begin(tmp_path, trials=1), trainer=TRAINER)
    (trial,) = gather(tmp_path).trials
    assert trial.kept_epoch == 3
    assert trial.val_accuracy == pytest.approx(0.95 - 0.1 * 0.4771, abs=1e-3)
    assert trial.latest == 0.01


def test_a_training_that_fails_is_a_failed_trial_with_its_message_and_not_the_end(tmp_path):
    work(begin(tmp_path, trials=6, fails=0.3), trainer=TRAINER)
    report = gather(tmp_path)
    failed = [trial for trial in report.trials if trial.state == "failed"]
    assert failed
    assert all(t.message == f"no memory for lr {t.settings['optim.lr']:g}" for t in failed)
    assert report.num_done == 6
    assert report.best is not None


def test_a_training_that_diverges_is_told_apart_from_one_that_fails(tmp_path):
    work(begin(tmp_path, trials=6, diverges=0.3), trainer=TRAINER)
    diverged = [trial for trial in gather(tmp_path).trials if trial.state == "diverged"]
    assert diverged
    assert diverged[0].message == "the loss became nan"


def test_a_hopeless_training_is_ended_politely(tmp_path):
    work(begin(tmp_path, trials=10, epochs=4, epoch_seconds=0.12), trainer=TRAINER)
    report = gather(tmp_path)
    pruned = [trial for trial in report.trials if trial.state == "pruned"]
    assert pruned
    assert all((tmp_path / trial.name / "saved").is_file() for trial in pruned), "it was asked, not killed"
    assert all(trial.epochs < 4 for trial in pruned)
    assert report.num_done == 10


def test_a_sweep_that_is_continued_draws_what_it_would_have_drawn(tmp_path):
    whole, parts = begin(tmp_path / "whole", trials=12), begin(tmp_path / "parts", trials=5)
    work(whole, trainer=TRAINER)
    work(parts, trainer=TRAINER)
    begin(parts, trials=12)
    work(parts, trainer=TRAINER)
    assert [t.settings for t in gather(parts).trials] == [t.settings for t in gather(whole).trials]


def test_when_a_worker_is_killed_its_training_ends_and_is_done_again_under_a_new_number(tmp_path, start):
    begin(tmp_path, trials=3, epoch_seconds=0.4)
    worker = start(tmp_path)
    wait_for((tmp_path / "trial-0002" / "metrics.jsonl").is_file, "the second trial")
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    wait_for((tmp_path / "trial-0002" / "saved").is_file, "the orphan's end")
    assert states(tmp_path) == ["finished", "running"]
    assert work(tmp_path, trainer=TRAINER) == "done"
    report = gather(tmp_path)
    assert [trial.state for trial in report.trials] == ["finished", "lost", "finished", "finished"]
    assert report.trials[2].again == 2
    assert report.trials[2].settings == report.trials[1].settings
    assert report.num_done == 3
    work(begin(tmp_path / "whole", trials=3), trainer=TRAINER)
    whole = [trial.settings for trial in gather(tmp_path / "whole").trials]
    assert [trial.settings for trial in report.trials if trial.state == "finished"] == whole, "as if nothing had been"


def test_a_trial_that_takes_every_worker_with_it_is_given_up(tmp_path, start):
    begin(tmp_path, trials=1, epoch_seconds=30)
    for attempt in range(1, 4):
        worker = start(tmp_path)
        wait_for((tmp_path / f"trial-{attempt:04d}" / "started.json").is_file, "the trial")
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    assert work(tmp_path, trainer=TRAINER) == "done"
    assert states(tmp_path) == ["lost"] * 3


def test_a_worker_of_another_machine_is_lost_when_it_has_long_been_silent(tmp_path):
    here, there = Presence(tmp_path), Presence(tmp_path)
    there.path.write_text(json.dumps({"machine": "another", "pid": 2**30}))
    here.touch(now=True)
    assert not here.is_lost(there.name), "its process number means nothing here"
    then = time.time() - LOST_AFTER_SECONDS - 5
    os.utime(there.path, (then, then))
    assert here.is_lost(there.name)
    assert here.is_lost("never-was")


def test_two_workers_in_one_folder_do_not_repeat_a_trial(tmp_path, start):
    begin(tmp_path, trials=12, epoch_seconds=0.02)
    workers = [start(tmp_path), start(tmp_path)]
    assert [worker.wait(60) for worker in workers] == [0, 0]
    report = gather(tmp_path)
    assert len(report.trials) == 12
    assert all(trial.state in ("finished", "pruned") for trial in report.trials)
    assert len({trial.settings["optim.lr"] for trial in report.trials}) == 12
    assert len({trial.worker for trial in report.trials}) == 2, "both had work"
    assert len(list(tmp_path.glob("trial-*"))) == 12


def test_a_worker_that_is_asked_to_stop_puts_its_trial_back_in_line(tmp_path, start):
    begin(tmp_path, trials=2, epoch_seconds=0.4)
    worker = start(tmp_path)
    wait_for((tmp_path / "trial-0001" / "metrics.jsonl").is_file, "the first trial")
    worker.stdin.close()
    assert worker.wait(30) == 143
    assert (tmp_path / "trial-0001" / "saved").is_file()
    assert states(tmp_path) == ["interrupted", "waiting"]
    begin(tmp_path, trials=2)
    work(tmp_path, trainer=TRAINER)
    report = gather(tmp_path)
    assert [trial.state for trial in report.trials] == ["interrupted", "finished", "finished"]
    assert (report.trials[1].again, report.automatic) == (1, 2)


def test_at_the_end_of_the_budget_the_running_training_is_ended_and_none_is_begun(tmp_path):
    begin(tmp_path, trials=9, epoch_seconds=0.5)
    assert work(tmp_path, time.time() + 1.0, trainer=TRAINER) == "no time"
    assert states(tmp_path) == ["interrupted", "waiting"]


def test_no_training_is_begun_that_is_not_likely_to_be_done_within_the_budget(tmp_path):
    begin(tmp_path, trials=9, epoch_seconds=0.3)
    assert work(tmp_path, time.time() + 1.8, trainer=TRAINER) == "no time"
    assert states(tmp_path) == ["finished"], "the second would have ended after the budget"


def test_the_best_few_and_the_recipe_as_it_was_are_trained_with_other_seeds(tmp_path):
    begin(tmp_path, trials=6, seeds=2)
    work(tmp_path, trainer=TRAINER)
    report = gather(tmp_path)
    ranked = [trial.number for trial in report.ranked]
    wanted = {*ranked[:3], 1}
    assert {(t.repeats, t.seed) for t in report.repeats} == {(n, seed) for n in wanted for seed in (1, 2)}
    assert {each.number for each in report.repeated} == wanted
    told = json.loads((tmp_path / report.repeats[0].name / "started.json").read_text())
    assert told["seed"] == str(report.repeats[0].seed)


def test_the_journal_is_json_and_offers_no_snapshot_which_optuna_would_pickle(tmp_path):
    work(begin(tmp_path, trials=2), trainer=TRAINER)
    assert not hasattr(JournalFile, "save_snapshot"), "what Optuna asks of a backend that it may pickle to"
    rows = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text("ascii").splitlines()]
    assert all(isinstance(row["op_code"], int) for row in rows)
    files = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert files <= {".json", ".jsonl", ".txt"}


def test_half_a_line_of_a_process_that_was_killed_is_taken_back(tmp_path):
    work(begin(tmp_path, trials=2), trainer=TRAINER)
    journal = tmp_path / "journal.jsonl"
    with journal.open("a") as file:
        file.write('{"op_code":5,"worker_id":"gone","tri')
    begin(tmp_path, trials=3)
    assert work(tmp_path, trainer=TRAINER) == "done"
    assert states(tmp_path) == ["finished"] * 3
    assert all(json.loads(line) for line in journal.read_text().splitlines())


def test_a_damaged_line_is_named_and_how_to_go_on(tmp_path):
    work(begin(tmp_path, trials=3), trainer=TRAINER)
    journal = tmp_path / "journal.jsonl"
    lines = journal.read_text().splitlines()
    number = next(n for n, line in enumerate(lines, start=1) if '"trial_id":2' in line)
    journal.write_text("\n".join([*lines[: number - 1], lines[number - 1][:20] + "\0" * 9, *lines[number:]]) + "\n")
    with pytest.raises(LinneError) as refused:
        gather(tmp_path)
    assert refused.value.message == f"line {number} of `{journal}` is damaged, so what follows cannot be trusted"
    assert f"head -n {number - 1} {journal}" in refused.value.hint
    journal.write_text("\n".join(lines[: number - 1]) + "\n")
    begin(tmp_path, trials=4)
    shutil.rmtree(tmp_path / "trial-0003")
    assert work(tmp_path, trainer=TRAINER) == "done"
    assert gather(tmp_path).num_done == 4


FULL_DISK = """
mount -t tmpfs -o size=128k tmpfs "$1" && cp -r "$2"/. "$1" && cd / || exit 99
dd if=/dev/zero of="$1/filler" bs=1k 2>/dev/null
shift 2; exec "$@"
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a small disk is made as Linux makes one")
def test_a_full_disk_is_an_error_that_says_so_and_hurts_no_line(tmp_path):
    asked, disk = begin(tmp_path / "asked", trials=3), tmp_path / "disk"
    work(begin(asked, trials=1), trainer=TRAINER)
    begin(asked, trials=3)
    disk.mkdir()
    words = [sys.executable, "-m", "linne.sweeping.worker", str(disk), "-", *TRAINER]
    keep = f'"$@"; code=$?; cp "{disk}/journal.jsonl" "{tmp_path}/kept"; exit $code'
    shell = FULL_DISK.replace('exec "$@"', keep)
    line = ["unshare", "-rm", "sh", "-c", shell, "sh", str(disk), str(asked), *words]
    if shutil.which("unshare") is None:
        pytest.skip("a small disk is made with unshare, which is not there")
    reading, writing = os.pipe()  # the line that a worker watches, open until it has ended
    try:
        ended = subprocess.run(line, capture_output=True, text=True, check=False, stdin=reading)
    finally:
        os.close(reading)
        os.close(writing)
    if ended.returncode in (1, 99) and "is full" not in ended.stderr:
        pytest.skip(f"this system does not let a test mount a disk: {ended.stderr.strip()}")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[0].endswith("is full (no space left on device)")
    assert ended.stderr.splitlines()[1] == "make room; the same command continues"
    before, after = (asked / "journal.jsonl").read_text(), (tmp_path / "kept").read_text()
    assert after.startswith(before)
    assert all(json.loads(row) for row in after.splitlines())


def test_more_trials_can_be_asked_of_a_sweep_that_is_done(tmp_path):
    work(begin(tmp_path, trials=2), trainer=TRAINER)
    begin(tmp_path, trials=4)
    work(tmp_path, trainer=TRAINER)
    assert read_plan(tmp_path).num_trials == len(gather(tmp_path).trials) == 4


def test_a_recipe_outside_of_what_is_searched_is_not_tried(tmp_path):
    begin(tmp_path, trials=2, lr="0.5..1")
    assert work(tmp_path, trainer=TRAINER) == "done"
    assert gather(tmp_path).automatic is None


def test_what_decided_is_told_when_there_are_enough_trials_to_say(tmp_path):
    begin(tmp_path, trials=19)
    work(tmp_path, trainer=TRAINER)
    assert Journal(tmp_path).importance() is None
    begin(tmp_path, trials=20)
    work(tmp_path, trainer=TRAINER)
    assert Journal(tmp_path).importance() == pytest.approx({"optim.lr": 1.0})


def test_a_training_that_will_not_go_on_leaves_no_checkpoints(tmp_path):
    work(begin(tmp_path, trials=6, diverges=0.3), trainer=TRAINER)
    trials = gather(tmp_path).trials
    kept = {trial.number for trial in trials if (tmp_path / trial.name / "checkpoints").is_dir()}
    assert kept == {trial.number for trial in trials if trial.state == "finished"} != {1, 2, 3, 4, 5, 6}
