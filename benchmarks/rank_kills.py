"""How long training stands still when one of its processes is killed, and whether it ends with the same weights.

One `linne launch` of two processes trains the digits. Again and again, when a checkpoint has been written, a process is
killed with SIGKILL: one of the two, in turn, at a moment chosen at random, or torchrun's agent above them. The time is
that from the kill to the first new measurement of a step. At the end the bundle's weights are compared with those of a
run that nobody disturbed.

    python benchmarks/rank_kills.py --kills 20
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure

measure.use_checkout()

import numpy as np  # noqa: E402

from linne.bundle import open_bundle  # noqa: E402

SETTINGS = [
    "--device",
    "cpu",
    "--set",
    "device.precision=fp32",
    "--set",
    "log_every=1",
    "--set",
    "checkpoint.every_steps=10",
]
PATIENCE_SECONDS = 120


def start(output: Path, epochs: int, max_restarts: int, scratch: Path) -> subprocess.Popen[bytes]:
    """Return a training of two processes, whose supervisor keeps its files in `scratch`."""
    words = ["launch", "--nproc", "2", "--max-restarts", str(max_restarts), "train", "digits", "--output", str(output)]
    environment = {**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "linne", *words, "--epochs", str(epochs), *SETTINGS]
    return subprocess.Popen(command, stderr=open(output.with_suffix(".log"), "wb"), env=environment)


def wait_for(what: Callable[[], Any], training: subprocess.Popen[bytes], name: str, log: Path) -> Any:
    """Return what `what` returns when that is true."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := what()):
        if training.poll() is not None:
            said = log.read_text()[-2000:]
            raise SystemExit(f"training ended with {training.returncode} while waiting for {name}:\n{said}")
        if time.monotonic() > end:
            raise SystemExit(f"{name} did not come in {PATIENCE_SECONDS} s")
        time.sleep(0.05)
    return found


def newest_step(output: Path) -> int:
    """Return the step of the newest checkpoint, 0 without one."""
    latest = output / "checkpoints" / "latest"
    return int(latest.read_text().strip().rpartition("-")[2]) if latest.is_file() else 0


def has_gone_on(output: Path, log: Path, times: int) -> bool:
    """Return whether the run has gone on so often and then measured a step. Rows in no checkpoint are cut off."""
    if log.read_text().count("resume  at step") < times:
        return False
    events = [
        json.loads(line)["event"] for line in (output / "metrics.jsonl").read_text().splitlines() if line[-1:] == "}"
    ]
    return "step" in events[len(events) - events[::-1].index("resume") :] if "resume" in events else False


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def kill_one(scratch: Path, victim: str) -> None:
    """Kill rank 0, rank 1 or the agent that has started them."""
    rank = 1 if victim == "rank 1" else 0
    newest = max(scratch.glob(f"linne-launch-*/rank-{rank}.pid"), key=lambda path: path.stat().st_mtime)
    process = int(newest.read_text())
    os.kill(parent_of(process) if victim == "agent" else process, signal.SIGKILL)


def same_weights(first: Path, second: Path) -> bool:
    one, other = open_bundle(first).weights(), open_bundle(second).weights()
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=0, help="default: enough for all kills")
    options = parser.parse_args()
    epochs, pick = options.epochs or 4 + 2 * options.kills, random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        scratch, undisturbed, disturbed = (Path(folder) / name for name in ("scratch", "undisturbed", "disturbed"))
        scratch.mkdir()
        if start(undisturbed, epochs, 0, scratch).wait() != 0:
            raise SystemExit(undisturbed.with_suffix(".log").read_text())
        log = disturbed.with_suffix(".log")
        training, seconds, before = start(disturbed, epochs, options.kills, scratch), [], 0
        for number in range(options.kills):
            victim = ("rank 0", "rank 1", "rank 0", "rank 1", "agent")[number % 5]
            wait_for(lambda before=before: newest_step(disturbed) > before, training, "a new checkpoint", log)
            time.sleep(pick.uniform(0, 0.5))
            step, killed = newest_step(disturbed), time.monotonic()
            kill_one(scratch, victim)
            wait_for(lambda number=number: has_gone_on(disturbed, log, number + 1), training, "the next step", log)
            seconds.append(time.monotonic() - killed)
            before = newest_step(disturbed)  # the next one dies when it has come further than this
            print(f"{number + 1:3} {victim} killed after step {step}: {seconds[-1]:.1f} s", flush=True)
        code = training.wait()
        same = code == 0 and same_weights(undisturbed / "bundle", disturbed / "bundle")
    print(
        f"{len(seconds)} of {options.kills} recovered; seconds to the next step: median "
        f"{statistics.median(seconds):.1f}, longest {max(seconds):.1f}; exit code {code}; "
        f"weights {'equal to the bit' if same else 'DIFFER'} to those of an undisturbed run"
    )
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
