"""`linne launch` for real: processes, agents and machines that are killed or cut off, and what is left of a run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from linne.bundle import open_bundle

pytestmark = pytest.mark.long

PATIENCE_SECONDS = 120
SETTINGS = ["--device", "cpu", "--set", "device.precision=fp32", "--set", "checkpoint.every_steps=5"]
LONG = ["--epochs", "1000"]
SHORT = ["--epochs", "2"]


@dataclass
class Launched:
    """A `linne launch` at work."""

    process: subprocess.Popen[str]
    folder: Path
    """Where its run, its files and what it says are."""

    @property
    def run(self) -> Path:
        return self.folder.parent / "run"

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text()

    def wait_for(self, what: Callable[[], object]) -> None:
        """Wait until something holds, while the processes are at work."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not what():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < end, self.said
            time.sleep(0.1)

    def wait_for_checkpoint(self) -> None:
        latest = self.run / "checkpoints" / "latest"
        before = latest.read_text() if latest.is_file() else ""
        self.wait_for(lambda: latest.is_file() and latest.read_text() != before)

    def events(self) -> list[str]:
        path = self.run / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.is_file() else []
        return [json.loads(line)["event"] for line in lines if line.endswith("}")]

    def pid_of(self, rank: int) -> int:
        """Return the number of a process of the latest attempt."""
        paths = sorted(self.folder.glob(f"linne-launch-*/rank-{rank}.pid"), key=lambda path: path.stat().st_mtime)
        return int(paths[-1].read_text())

    def end(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)


@contextmanager
def launched(folder: Path, *words: str, before: tuple[str, ...] = (), environment: dict | None = None) -> Iterator:
    """Start `linne launch WORDS`; whatever is left of it at the end is killed."""
    folder.mkdir(parents=True)
    command = [
        *before,
        sys.executable,
        "-m",
        "linne",
        "launch",
        *words,
        "--output",
        str(folder.parent / "run"),
        *SETTINGS,
    ]
    with open(folder / "said", "w") as said:
        process = subprocess.Popen(
            command, stderr=said, text=True, env={**os.environ, "TMPDIR": str(folder), **(environment or {})}
        )
    try:
        yield Launched(process, folder)
    finally:
        process.kill()
        process.wait()


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks up parents in /proc")


def test_a_killed_process_holds_up_a_training_and_does_not_end_it(tmp_path):
    with launched(tmp_path / "a", "--nproc", "2", "train", "digits", "--epochs", "20") as launch:
        launch.wait_for_checkpoint()
        os.kill(launch.pid_of(1), signal.SIGKILL)
        assert launch.end() == 0, launch.said
    assert (
        "warning: rank 1 was killed by SIGKILL (perhaps by the system, for want of memory); restart 1 of 10 from epoch-"
        in (launch.said)
    )
    assert launch.events().count("resume") == 1
    assert open_bundle(launch.run / "bundle").metrics["test"]["accuracy"] > 0.9


def test_an_error_of_the_users_is_said_once_by_one_process_and_leaves_nothing_behind(tmp_path):
    with launched(tmp_path / "a", "--nproc", "2", "train", "digit", *SHORT) as launch:
        assert launch.end() == 1
    assert launch.said == "error: no source or folder `digit`\n\nhint: did you mean `digits`?\n"
    assert not launch.run.exists()


@pytest.mark.slow
@needs_proc
def test_a_killed_agent_takes_its_processes_along_and_is_started_again(tmp_path):
    with launched(tmp_path / "a", "--nproc", "2", "train", "digits", *LONG) as launch:
        launch.wait_for_checkpoint()
        ranks = [launch.pid_of(0), launch.pid_of(1)]
        os.kill(parent_of(ranks[0]), signal.SIGKILL)
        launch.wait_for(lambda: "resume" in launch.events())
        assert not any(map(is_running, ranks))
        assert "torchrun's agent was killed by SIGKILL; restart 1 of 10 from epoch-" in launch.said
        launch.wait_for_checkpoint()
        launch.process.send_signal(signal.SIGTERM)
        assert launch.end() == 143


@pytest.mark.slow
def test_a_process_that_stands_still_ends_the_attempt_and_training_goes_on_from_the_last_checkpoint(tmp_path):
    with launched(tmp_path / "a", "--nproc", "2", "train", "digits", *LONG, "--stuck-after", "0.1") as launch:
        launch.wait_for_checkpoint()
        os.kill(launch.pid_of(1), signal.SIGSTOP)
        launch.wait_for(lambda: "resume" in launch.events())
        assert "warning: rank 0 ended with exit code 1; " in launch.said
        assert "; restart 1 of 10 from epoch-" in launch.said
        assert f"stood still and was ended: `{launch.run / 'stuck.txt'}` has where every thread was" in launch.said
        launch.wait_for_checkpoint()
        launch.process.send_signal(signal.SIGTERM)
        assert launch.end() == 143
    assert "distributed" in (launch.run / "stuck.txt").read_text(), "it waited for the other one"


@pytest.mark.slow
@needs_proc
def test_a_killed_supervisor_leaves_no_processes_behind(tmp_path):
    with launched(tmp_path / "a", "--nproc", "2", "train", "digits", *LONG) as launch:
        launch.wait_for_checkpoint()
        left = [launch.pid_of(0), launch.pid_of(1), parent_of(launch.pid_of(0))]
        launch.process.kill()
        launch.process.wait()
        end = time.monotonic() + 10
        while any(map(is_running, left)) and time.monotonic() < end:
            time.sleep(0.1)
        assert not any(map(is_running, left))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_has_all_processes_save_and_leave(tmp_path, number):
    with launched(tmp_path / "a", "--nproc", "2", "train", "digits", *LONG) as launch:
        launch.wait_for_checkpoint()
        start = time.monotonic()
        launch.process.send_signal(number)
        assert launch.end() == 128 + number, launch.said
        assert time.monotonic() - start < 30
    last = (launch.run / "metrics.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["reason"] == "interrupted"
    assert "to go on: linne train --output" in launch.said


@pytest.mark.slow
def test_a_training_that_always_dies_is_given_up(tmp_path):
    # Too little memory for torch: every attempt dies before it has written anything.
    limit = ("bash", "-c", 'ulimit -v 600000; exec "$@"', "limited")
    with launched(tmp_path / "a", "--nproc", "2", "train", "digits", *SHORT, before=limit) as launch:
        assert launch.end() == 1
    assert "given up: 2 attempts in a row came no further than the beginning" in launch.said


@pytest.fixture
def two_hosts() -> Iterator[list[tuple[str, str, str]]]:
    """Yield name, network device and address of two hosts, which are network namespaces with a cable between them."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need the `ip` command and root")
    hosts = [
        (f"linne-{os.getpid()}-{side}", f"cable-{side}", f"10.77.0.{number}") for number, side in ((1, "a"), (2, "b"))
    ]
    try:
        for name, _, _ in hosts:
            subprocess.run(["ip", "netns", "add", name], check=True)
        (first, one, _), (second, other, _) = hosts
        link = ["ip", "link", "add", one, "netns", first, "type", "veth", "peer", "name", other, "netns", second]
        subprocess.run(link, check=True)
        for name, device, address in hosts:
            subprocess.run(["ip", "-n", name, "addr", "add", f"{address}/24", "dev", device], check=True)
            for up in (device, "lo"):
                subprocess.run(["ip", "-n", name, "link", "set", up, "up"], check=True)
    except subprocess.CalledProcessError:
        pytest.skip("this system makes no network namespaces")
    try:
        yield hosts
    finally:
        for name, _, _ in hosts:
            subprocess.run(["ip", "netns", "del", name], check=False)


@pytest.mark.slow
def test_a_machine_that_is_cut_off_is_missed_and_joins_again(tmp_path, two_hosts):
    def start(number: int):
        name, device, address = two_hosts[number]
        words = ["--nodes", "2", "--node-rank", str(number), "--rendezvous", f"{two_hosts[0][2]}:29400"]
        return launched(
            tmp_path / "ab"[number],
            *words,
            *("--address", address, "--nproc", "1", "train", "digits", *LONG),
            before=("ip", "netns", "exec", name),
            environment={"GLOO_SOCKET_IFNAME": device},
        )

    def cable(state: str) -> None:
        name, device, _ = two_hosts[1]
        subprocess.run(["ip", "-n", name, "link", "set", device, state], check=True)

    with start(0) as first, start(1) as second:
        first.wait_for_checkpoint()
        cable("down")
        first.wait_for(lambda: "machine 1 was not heard of for 15 s; restart 1 of 10 from epoch-" in first.said)
        second.wait_for(lambda: not list(second.folder.glob("linne-launch-*")))  # its attempt is over as well
        cable("up")
        first.wait_for(lambda: "resume" in first.events())
        first.wait_for_checkpoint()
        second.process.send_signal(signal.SIGTERM)  # either machine may be told
        assert [first.end(), second.end()] == [143, 143]
