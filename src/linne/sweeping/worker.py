"""A worker: takes the next training of a sweep, follows it, ends it when it is hopeless, until there is none left.

Any number of workers, on any number of machines, may work in one folder; the journal tells them apart.
"""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError

from linne.errors import LinneError
from linne.log import Run
from linne.sweeping import lifeline
from linne.sweeping.folder import FULL, SweepPlan, full, read_plan
from linne.sweeping.journal import Journal, Task
from linne.sweeping.presence import Presence
from linne.sweeping.results import Ended
from linne.sweeping.trial import TRAINER, TRUST, Outcome, TrialProcess

WAIT_SECONDS = 1.0


def work(
    folder: Path, until: float | None = None, *, trust_code: bool = False, trainer: Sequence[str] = TRAINER
) -> str:
    """Do the trainings of the sweep in `folder` until none is left, and return why there is no more: `done`, `no time`.

    Args:
        until: A Unix time at which the running training is ended, and after which none is begun.
        trust_code: Whether trainings may run the user's own Python; said by who starts the worker, not by the folder.
        trainer: What is put before the words `train ...` to start one.

    Raises:
        LinneError: the folder or its journal cannot be used, or the disk is full.
        KeyboardInterrupt: asked to stop; the training has been ended and put back in line.
    """
    plan = read_plan(folder)
    try:
        journal, presence = Journal(folder), Presence(folder / "workers")
    except OSError as error:
        raise _told(folder, error) from error
    try:
        while True:
            task = journal.claim(presence, until)
            if isinstance(task, Task):
                _do(task, journal, presence, plan, until, trust_code, trainer)
            elif task != "wait":
                return task
            else:
                time.sleep(WAIT_SECONDS)
    except OSError as error:
        raise _told(folder, error) from error
    finally:
        presence.leave()


def _told(folder: Path, error: OSError) -> Exception:
    return full(folder, error) if error.errno in FULL else error


def _do(
    task: Task,
    journal: Journal,
    presence: Presence,
    plan: SweepPlan,
    until: float | None,
    trust_code: bool,
    trainer: Sequence[str],
) -> None:
    """Run one training to its end, and write down what came of it."""
    process = TrialProcess(journal.folder, task.name, task.settings, plan.cwd, trainer, trust_code=trust_code)
    asked: Ended | None = None
    try:
        for epochs in process.follow():
            presence.touch()
            for row in epochs:
                if row.get(plan.objective) is not None:
                    task.report(row["epoch"], row[plan.objective])
            if asked is None and until is not None and time.time() >= until:
                asked = "interrupted"
            elif asked is None and epochs and task.is_hopeless(epochs[-1]["epoch"]):
                asked = "pruned"
            if asked is not None:
                process.end()
    except UpdateFinishedTrialError:
        process.end_now()  # we were taken for dead, and somebody else has it
        return
    except BaseException:
        process.end_now()
        _write(task, journal, plan, process.outcome(), "interrupted")
        raise
    _write(task, journal, plan, process.outcome(), asked)


def _write(task: Task, journal: Journal, plan: SweepPlan, outcome: Outcome, asked: Ended | None) -> None:
    kept = outcome.kept or {}
    value = kept.get(plan.objective)
    facts: dict[str, Any] = {"seconds": outcome.seconds, "kept_epoch": kept.get("epoch")}
    facts |= {name: kept.get(name) for name in ("val_accuracy", "val_loss")}
    ended = _how(outcome, asked, value)
    if ended in ("failed", "diverged"):
        facts["message"] = outcome.message
    if ended in ("failed", "diverged", "pruned"):
        shutil.rmtree(Run(journal.folder / task.name).checkpoints, ignore_errors=True)  # nobody goes on from there
    try:
        journal.finish(task, ended, value, facts)
    except UpdateFinishedTrialError:
        return


def _how(outcome: Outcome, asked: Ended | None, value: float | None) -> Ended:
    """Return how a training ended; one that was asked to stop and was done all the same is done."""
    if outcome.exit_code == 0 and value is not None:
        return "finished"
    if outcome.ending == "diverged":
        return "diverged"
    if asked is not None:
        return asked
    # 130 and 143: somebody else asked it to stop.
    return "interrupted" if outcome.exit_code in (130, 143) else "failed"


def main(words: Sequence[str]) -> int:
    """Work in the folder `words[0]` until the Unix time `words[1]`, `-` for no limit, and return an exit code.

    A third word `--trust-code` lets trainings run the user's own Python; the others are the trainer's.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # once is enough: the training is being ended
        raise KeyboardInterrupt

    try:
        signal.signal(signal.SIGTERM, interrupt)
        lifeline.watch()
        trainer = [word for word in words[2:] if word != TRUST] or TRAINER
        until = None if words[1] == "-" else float(words[1])
        work(Path(words[0]), until, trust_code=TRUST in words[2:3], trainer=trainer)
    except LinneError as error:
        sys.stderr.write(f"{error.message}\n{error.hint or ''}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 143
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
