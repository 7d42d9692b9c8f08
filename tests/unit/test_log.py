"""The run folder and what is said."""

from __future__ import annotations

import contextlib
import json
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from linne.errors import LinneError
from linne.log import JsonLines, Narrator, Run, clock


@contextlib.contextmanager
def files_no_longer_than(size_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes while inside: the system refuses, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


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


def test_rows_that_the_disk_refuses_wait_and_come_in_order_and_whole_when_there_is_room_again(tmp_path):
    lines = JsonLines(tmp_path / "rows.jsonl")
    lines.append({"row": 0})
    with files_no_longer_than(15):  # room for half a row
        for row in (1, 2):
            lines.append({"row": row})
            assert "rows.jsonl` cannot be written: file too large" in lines.problem
        assert (tmp_path / "rows.jsonl").read_bytes() == b'{"row": 0}\n'
    lines.append({"row": 3})
    assert lines.problem is None
    lines.close()
    rows = [json.loads(line)["row"] for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert rows == [0, 1, 2, 3]


def test_a_log_is_cut_to_what_it_was_half_a_line_included(tmp_path):
    run = Run(tmp_path)
    run.log({"step": 1})
    run.log_samples(1, 0, [4, 2])
    sizes = run.sizes()
    run.log({"step": 2})
    run.close()
    with open(tmp_path / "samples.jsonl", "a") as file:
        file.write('{"step": 2, "ep')  # killed here
    again = Run(tmp_path)
    assert again.cut(sizes) == []
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'
    assert (tmp_path / "samples.jsonl").read_text() == '{"step": 1, "epoch": 0, "positions": [4, 2]}\n'
    assert again.cut({"metrics.jsonl": 1000}) == ["metrics.jsonl"], "it has fewer rows than it should have"


def test_two_processes_are_never_at_work_in_one_run(tmp_path):
    refused = pytest.raises(LinneError, match="another process is at work on")
    with Run(tmp_path).held(), refused as caught, Run(tmp_path).held():
        pass
    assert caught.value.hint == "wait for it, then type the command again"
    assert list(tmp_path.iterdir()) == [], "the lock leaves nothing behind"
