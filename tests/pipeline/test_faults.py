"""Real kills and a disk that refuses for real, a few of each; `make test-faults` does hundreds."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from processes import PRELOADED

import linne
from linne.bundle import open_bundle
from linne.training.checkpoint_format import UNFINISHED, find_checkpoints, newest_good

INTERVAL = 10
OVERRIDES = {
    "optim.epochs": 6,
    "optim.ema_decay": 0.9,
    "model.dropout": 0.1,
    "data.batch_size": 64,
    "device.precision": "fp32",
    "device.num_threads": 1,
    "checkpoint.every_steps": INTERVAL,
    "checkpoint.keep_after": True,
    "log_samples": True,
}
pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run on real images that nothing came between."""
    run = tmp_path_factory.mktemp("whole") / "run"
    linne.train("digits", output=run, overrides=OVERRIDES, device="cpu", quiet=True)
    return run


def train_in_a_child(folder: str) -> None:
    os.chdir(folder)
    result = linne.train("digits", output="run", overrides=OVERRIDES, device="cpu", resume="auto", quiet=True)
    sys.exit(128 + result.signal_number if result.signal_number else 0)


def is_writing(run: Path) -> bool:
    return any((run / "checkpoints").glob(f"{UNFINISHED}*.partial-*"))


def started() -> multiprocessing.process.BaseProcess:
    """Return a training in a process of its own that has taken a step, whose first checkpoint is not written yet."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    training = context.Process(target=train_in_a_child, args=(os.getcwd(),), daemon=True)
    training.start()
    while not Path("run/samples.jsonl").exists():
        assert training.is_alive(), training.exitcode
        time.sleep(0.005)
    return training


def steps_done() -> int:
    return sum(line.endswith("}") for line in Path("run/samples.jsonl").read_text().splitlines())


def assert_same(run: Path, whole: Path) -> None:
    assert (run / "samples.jsonl").read_bytes() == (whole / "samples.jsonl").read_bytes()
    ours, theirs = (open_bundle(path / "bundle").files["model.safetensors"] for path in (run, whole))
    assert ours == theirs
    last = [find_checkpoints(path / "checkpoints")[0] for path in (run, whole)]
    assert last[0].name == last[1].name
    assert (last[0] / "state.safetensors").read_bytes() == (last[1] / "state.safetensors").read_bytes()


@pytest.mark.parametrize("saving", [False, True])
def test_a_killed_training_loses_an_interval_at_most_and_ends_with_the_same_bits(whole, saving):
    pick = random.Random(saving)
    for _ in range(10):  # as often as it takes to hit one that is saving
        training = started()
        while not find_checkpoints(Path("run/checkpoints")):
            time.sleep(0.002)
        time.sleep(pick.uniform(0, 0.1))
        while saving and not is_writing(Path("run")) and training.is_alive():
            time.sleep(0.0005)
        training.kill()
        training.join()
        if training.exitcode == -signal.SIGKILL and is_writing(Path("run")) == saving:
            break
        shutil.rmtree("run")
    checkpoint, problems = newest_good(Path("run/checkpoints"))
    assert problems == []
    # Also where a checkpoint was cut off while it was written, and is lost as well.
    assert 0 <= steps_done() - checkpoint.step <= INTERVAL
    linne.train(output="run", resume=True, quiet=True)
    assert_same(Path("run"), whole)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_training_that_is_told_to_end_at_any_time_does_and_goes_on_to_the_same_bits(whole, seed):
    num_steps = len((whole / "samples.jsonl").read_text().splitlines())
    last_step = random.Random(seed).randrange(num_steps // 2)  # by steps: how fast they are depends on who else runs
    training = started()
    while steps_done() < last_step and training.is_alive():
        time.sleep(0.001)
    training.terminate()
    training.join(30)
    assert training.exitcode == 143
    linne.train(output="run", resume="auto", quiet=True)
    assert_same(Path("run"), whole)


REFUSING = textwrap.dedent(
    """
    import ctypes, errno, sys
    from pathlib import Path
    from safetensors import SafetensorError
    import torch
    from linne.training.checkpoint_format import Contents, find_checkpoints, newest_good, read_checkpoint, to_plain
    from linne.training.checkpoint_format import write_checkpoint

    disk, folder = ctypes.CDLL(sys.argv[1]), Path("run/checkpoints")

    def contents(step):
        tensors = {}
        state = to_plain({"model": {"weight": torch.full((50, 40), float(step))}}, "state", tensors)
        kept = {"weight": torch.ones(9)}
        return Contents(epoch=1, step=step, batch=2, facts={}, state=state, tensors=tensors, kept=kept)

    shared = write_checkpoint(folder, contents(0))
    refused = step = written = 0
    while True:
        step += 1
        disk.disk_fails(b"/checkpoints", step, step % 2, (errno.ENOSPC, errno.EIO)[step // 2 % 2])
        try:
            write_checkpoint(folder, contents(step), shared)
            written = step
        except (OSError, SafetensorError):
            refused += 1
        calls = disk.disk_calls()
        disk.disk_fails(b"", 0, 0, 0)
        newest, problems = newest_good(folder)
        for path in find_checkpoints(folder):
            assert read_checkpoint(path).state["model"]["weight"].unique().tolist() == [read_checkpoint(path).step]
        assert newest is not None and written <= newest.step <= step, (written, newest)
        if calls < step:
            break
    print(step - 1, refused)
    """
)


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler")
def test_no_call_that_the_disk_refuses_costs_a_checkpoint_that_is_written(python, repository, tmp_path):
    library = tmp_path / "failing_disk.so"
    source = repository / "benchmarks" / "failing_disk.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    ended = python("-c", REFUSING, library, env={**os.environ, "LD_PRELOAD": str(library)})
    assert ended.returncode == 0, ended.stderr
    calls, refused = map(int, ended.stdout.split())
    assert calls > 15, "the disk was asked to refuse too little"
    assert calls - 2 <= refused <= calls, "only a link and what comes after the rename need not fail"
