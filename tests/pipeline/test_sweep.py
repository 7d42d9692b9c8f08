"""`linne sweep` with real trainings, and what it says and refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from click.testing import CliRunner
from fixtures.sweeps import TRAINER, begin, wait_for

pytest.importorskip("optuna", reason="a sweep needs optuna: pip install 'linne[sweep]'")

import linne
from linne.cli import cli
from linne.errors import LinneError
from linne.sweeping.gather import gather
from linne.sweeping.live import Display
from linne.sweeping.supervisor import run_workers

pytestmark = pytest.mark.long

SOURCE = "synthetic:classes=3,size=12,count=90"
ASKED = ("sweep", SOURCE, "--model", "mlp", "--epochs", 1, "--device", "cpu", "--set", "device.precision=fp32")


def invoke(*words):
    return CliRunner().invoke(cli, [str(word) for word in words], prog_name="linne")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of two real trainings; its folder, and what was said."""
    folder = tmp_path_factory.mktemp("sweeps") / "small"
    ended = invoke(
        *ASKED, "--search", "optim.lr=1e-5..1e-1:log", "--workers", 2, "--trials", 2, "--output", folder, "--json"
    )
    assert ended.exit_code == 0, ended.output
    return folder, ended


def test_a_sweep_prints_what_it_found_and_says_the_rest_on_stderr(swept):
    folder, ended = swept
    found = json.loads(ended.stdout)
    assert [trial["state"] for trial in found["trials"]] == ["finished", "finished"]
    assert found["bundle"] == str(folder / f"trial-{found['best']:04d}" / "bundle")
    assert found["automatic"] == 1
    assert 0 <= found["test"]["accuracy"] <= 1
    assert "search  optim.lr  1e-05..0.1:log" in ended.stderr


def test_the_trials_are_ordinary_runs_on_the_same_images(swept):
    folder, _ = swept
    first, second = (json.loads((folder / f"trial-000{n}" / "recipe.json").read_text()) for n in (1, 2))
    assert first["source"]["fingerprint"] == second["source"]["fingerprint"]
    assert first["recipe"]["seed"] == second["recipe"]["seed"]
    changed = {k for k in first["recipe"]["optim"] if first["recipe"]["optim"][k] != second["recipe"]["optim"][k]}
    assert changed == {"lr"}
    assert (folder / "trial-0001" / "report.html").is_file()


def test_the_page_has_all_trials_and_asks_the_network_for_nothing(swept):
    folder, _ = swept
    page = (folder / "sweep.html").read_text()
    assert page.count("<tr>") >= 5
    assert "default-src 'none'" in page
    assert (folder / "plots" / "history.png").is_file()
    assert json.loads((folder / "result.json").read_text())["num_trials"] == 2


def test_the_status_is_what_the_sweep_found(swept):
    folder, ended = swept
    assert (
        json.loads(invoke("sweep", folder, "--status", "--json").stdout)["trials"] == json.loads(ended.stdout)["trials"]
    )
    assert "2 of 2 trials (2 finished)" in invoke("sweep", folder, "--status").stdout
    assert linne.sweep_status(folder).num_done == 2


def test_the_same_command_again_trains_nothing_when_all_is_done(swept):
    folder, ended = swept
    again = invoke(
        *ASKED, "--search", "optim.lr=1e-5..1e-1:log", "--workers", 2, "--trials", 2, "--output", folder, "--json"
    )
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["trials"] == json.loads(ended.stdout)["trials"]
    assert f"sweep   {folder}, continued" in again.stderr


def test_another_question_to_the_same_folder_is_refused_by_the_name_of_the_field(swept):
    folder, _ = swept
    ended = invoke(*ASKED, "--search", "optim.lr=1e-5..1:log", "--output", folder)
    assert ended.exit_code == 1
    assert (
        f"the sweep in `{folder}` was asked something else: the search of optim.lr was `1e-5..1e-1:log` "
        "and is now `1e-5..1:log`" in ended.stderr
    )
    ended = invoke(*ASKED, "--search", "optim.lr=1e-5..1e-1:log", "--set", "optim.momentum=0.8", "--output", folder)
    assert "optim.momentum was not given and is now `0.8`" in ended.stderr
    ended = invoke("sweep", folder, "--lr", 1)
    assert "which goes on as it was asked: optim.lr cannot be given" in ended.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--search", "optim.lr=1..0"], "optim.lr is searched from `1` to `0`, expected a number and a larger one"),
        (["--search", "optim.lr=0.1..1", "--lr", "0.5"], "optim.lr is both set and searched"),
        (["--search", "optim.lr=0.1..1", "--set", "optim.minutes=2"], "optim.minutes chooses the epochs of one run by"),
        (["--objective", "test_accuracy"], "trials are not compared by `test_accuracy`"),
        (["--objective", "val_acuracy"], "no objective `val_acuracy`"),
        (["--trials", "0"], "--trials is 0, expected 1 or more"),
        (["--workers", "0"], "--workers is 0, expected 1 or more"),
        (["--budget", "0"], "the budget is 0 minutes, expected more than 0"),
        (["--set", "data.val_fraction=none"], "no images are held out to compare trials by"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_written(tmp_path, words, message):
    ended = invoke("sweep", SOURCE, *words, "--output", tmp_path / "new")
    assert (ended.exit_code, (tmp_path / "new").exists()) == (1, False)
    assert message in ended.stderr


def test_the_status_of_a_folder_without_a_sweep_is_an_error(tmp_path):
    ended = invoke("sweep", tmp_path, "--status")
    assert ended.exit_code == 1
    assert f"`{tmp_path}` holds no sweep" in ended.stderr


def test_several_workers_are_started_and_share_the_trials(tmp_path, capfd):
    begin(tmp_path, trials=8, epoch_seconds=0.1)
    run_workers(tmp_path, 2, None, Display(quiet=False, until=None), trainer=TRAINER)
    report = gather(tmp_path)
    assert report.num_done == 8
    assert len({trial.worker for trial in report.trials}) == 2
    lines = capfd.readouterr().err.splitlines()
    assert sum("%" in line for line in lines) == 8, "one line a trial"
    assert any("the recipe as it was" in line for line in lines)


def test_a_worker_that_is_killed_is_an_error_that_says_how_to_go_on(tmp_path):
    begin(tmp_path, trials=3, epoch_seconds=0.5)
    said = []

    def run():
        try:
            run_workers(tmp_path, 1, None, Display(quiet=True, until=None), trainer=TRAINER)
        except LinneError as error:
            said.append((error.message, error.hint))

    running = threading.Thread(target=run)
    running.start()
    wait_for((tmp_path / "trial-0001" / "started.json").is_file, "the first trial")
    (present,) = (tmp_path / "workers").iterdir()
    os.kill(json.loads(present.read_text())["pid"], signal.SIGKILL)
    running.join(30)
    assert said == [("a worker was killed from outside", "the same command continues")]


INTERRUPTED = """
import sys
from pathlib import Path
from linne.sweeping.live import Display
from linne.sweeping.supervisor import run_workers
try:
    run_workers(Path(sys.argv[1]), 2, None, Display(quiet=True, until=None), trainer=sys.argv[2:])
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_ctrl_c_ends_the_trainings_politely_and_the_same_command_continues(tmp_path):
    begin(tmp_path, trials=4, epoch_seconds=0.5)
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED, str(tmp_path), *TRAINER]) as process:
        wait_for(lambda: len(list(tmp_path.glob("trial-*/metrics.jsonl"))) == 2, "two trials")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert len(list(tmp_path.glob("trial-*/saved"))) == 2
    assert sorted(trial.state for trial in gather(tmp_path).trials) == ["interrupted"] * 2 + ["waiting"] * 2
    begin(tmp_path, trials=4)
    run_workers(tmp_path, 2, None, Display(quiet=True, until=None), trainer=TRAINER)
    assert gather(tmp_path).num_done == 4
