"""The run folder and what is said."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from linne.errors import LinneError
from linne.log import Narrator, Run, clock


def test_runs_take_the_first_free_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [Run.create(None, "digits-small").path.name for _ in range(3)] == [f"digits-small-{k}" for k in (1, 2, 3)]


@pytest.mark.parametrize("name", ["../../etc/passwd", "a b/c", "", "...", "café"])
def test_a_run_never_leaves_its_folder_whatever_the_source_is_called(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    run = Run.create(None, name)
    assert run.path.resolve().parent == (tmp_path / "runs").resolve()


def test_an_empty_folder_may_be_the_output_and_a_file_may_not(tmp_path):
    (tmp_path / "empty").mkdir()
    assert Run.create(tmp_path / "empty", "x").path == tmp_path / "empty"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(LinneError, match="exists already"):
        Run.create(tmp_path / "file", "x")
    with pytest.raises(LinneError, match="cannot be made"):
        Run.create(tmp_path / "file" / "below", "x")


def test_rows_are_on_disk_at_once_and_a_diverged_loss_is_null(tmp_path):
    run = Run(tmp_path)
    run.log({"event": "step", "loss": float("nan")})
    run.log({"event": "step", "loss": 0.5})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["loss"] for row in rows] == [None, 0.5]
    run.close()


def test_everything_said_goes_to_stderr_and_quiet_says_nothing(capsys):
    Narrator().table([("a", "bb"), ("ccc", "d")])
    Narrator(quiet=True).line("nothing")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "  a    bb\n  ccc  d\n"


def test_off_a_terminal_long_runs_print_few_lines_and_always_the_last(capsys):
    narrator = Narrator()
    for epoch in range(1, 201):
        narrator.epoch({"epoch": epoch, "train_loss": 1.0, "best": False, "seconds": 1.0}, 200, 10.0)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) < 10
    assert "200/200" in lines[-1]


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 s"), (8.26, "8.3 s"), (125, "2:05"), (3725, "1:02:05")])
def test_durations_read_like_a_clock(seconds, text):
    assert clock(seconds) == text


def test_runs_that_start_at_once_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: Run.create(None, "x").path, range(40)))
    assert len(set(paths)) == 40
