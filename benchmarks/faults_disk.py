"""Child of `faults.py`: trains again and again on a disk that refuses its Nth call, and says what was left each time.

Runs with `failing_disk.c` in LD_PRELOAD. An odd N fails alone, an even one with all calls after it; every other pair
is ENOSPC (a full disk), the rest EIO (a broken one). Afterwards the disk is whole again, and the run goes on from what
it has.

    LD_PRELOAD=failing_disk.so python faults_disk.py failing_disk.so COUNT
"""

from __future__ import annotations

import ctypes
import errno
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import measure

measure.use_checkout()

from linne.host import prepare_for_torch  # noqa: E402

prepare_for_torch()

import torch  # noqa: E402

from linne.errors import BundleError, LinneError  # noqa: E402
from linne.log import Narrator, Run  # noqa: E402
from linne.planning import Plan, collect, make_plan  # noqa: E402
from linne.training.checkpoint_format import Checkpoint, find_checkpoints, newest_good, read_checkpoint  # noqa: E402
from linne.training.loop import train  # noqa: E402

FIXED = {
    "optim.epochs": 4,
    "optim.optimizer": "adamw",
    "optim.ema_decay": 0.9,
    "data.batch_size": 128,
    "device.precision": "fp32",
    "device.num_threads": 1,
    "checkpoint.every_steps": 3,
    "checkpoint.keep_after": True,
}


class Quiet(Narrator):
    """Keeps what is said instead of saying it."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def train_in(folder: str, plan: Plan, checkpoint: Checkpoint | None = None) -> tuple[Any, str | None, list[str]]:
    """Return what a training came to, the error that ended it, and its warnings."""
    run, narrator = Run(Path(folder)), Quiet()
    try:
        return train(plan.recipe, plan.source, run, narrator, checkpoint), None, narrator.warnings
    except LinneError as error:
        return None, error.message, narrator.warnings
    finally:
        run.close()


def same_weights(first: Any, second: Any) -> bool:
    ours, theirs = first.kept.weights, second.kept.weights
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def written_steps(folder: str) -> list[int]:
    """Return at which steps a checkpoint was written, as the measurements say."""
    rows = map(json.loads, (Path(folder) / "metrics.jsonl").read_text().splitlines())
    return [row["step"] for row in rows if row["event"] == "checkpoint"]


def one(disk: ctypes.CDLL, plan: Plan, whole: Any, nth: int) -> dict[str, Any]:
    """Return what was left of a training whose `nth` call was refused."""
    code, stays = (errno.ENOSPC, errno.EIO)[nth // 2 % 2], nth % 2 == 0
    with tempfile.TemporaryDirectory() as folder:
        disk.disk_fails(b"/checkpoints", nth, int(stays), code)
        trained, ended, warnings = train_in(folder, plan)
        calls = disk.disk_calls()
        disk.disk_fails(b"", 0, 0, 0)
        checkpoints, damaged, written = Path(folder, "checkpoints"), 0, written_steps(folder)
        for path in find_checkpoints(checkpoints):
            try:
                read_checkpoint(path)
            except BundleError:
                damaged += 1
        newest, _ = newest_good(checkpoints)
        step = 0 if newest is None else newest.step
        again, _, _ = train_in(folder, plan, newest)
        return {
            "nth": nth,
            "code": errno.errorcode[code],
            "stays": stays,
            "hit": calls >= nth,
            "said": len(warnings) + (ended is not None),
            "warning": warnings[0] if warnings else ended,
            "ended": ended,
            "damaged": damaged,
            "lost": step < max(written, default=0),
            "newest": step,
            "trained_on": trained is not None and same_weights(trained, whole),
            "resumed": again is not None and same_weights(again, whole),
        }


def main() -> None:
    disk = ctypes.CDLL(sys.argv[1])
    plan = make_plan(*collect("digits", None, {"device.name": "cpu"}, FIXED))
    with tempfile.TemporaryDirectory() as folder:
        whole, _, _ = train_in(folder, plan)
    for nth in range(1, int(sys.argv[2]) + 1):
        measure.say(**one(disk, plan, whole, nth))


if __name__ == "__main__":
    main()
