"""Going back to the newest good checkpoint when numbers stop being numbers, with half the learning rate from there on.

Whether a step was finite is a number on the device, read with the losses: every `log_every` steps and before a
checkpoint is taken. So nothing waits for it, some steps are trained in vain, and no checkpoint holds what they made.
"""

from __future__ import annotations

from typing import Any

from linne.errors import CheckFailed
from linne.training.agreement import Agreement
from linne.training.checkpoint import Keeper
from linne.training.checkpoint_format import Checkpoint, newest_good
from linne.training.progress import Progress
from linne.training.sending import from_first
from linne.training.state import LR_FACTOR

MOST_REWINDS = 3
"""In a run: with an eighth of the learning rate it is not the rate that is wrong."""


def keep_the_start(progress: Progress, keeper: Keeper, agreement: Agreement) -> None:
    """Have a checkpoint written before the first step, so that there is one to go back to."""
    begins = keeper.recorder.state.step == 0 and keeper.config.keep is not None and keeper.newest is None
    if agreement.is_time_to_save(begins):
        keeper.save(progress)


def go_back(problem: str, progress: Progress, keeper: Keeper, agreement: Agreement) -> Progress:
    """Bring all processes to the newest checkpoint that is whole, and return the measurements of its epoch.

    What came after it is cut off the logs, but for what they say of going back. `progress` is where `problem` was met.

    Raises:
        CheckFailed: `problem`, since the run has gone back too often, or there is no checkpoint.
    """
    run, state = keeper.run, keeper.recorder.state
    before, failed = state.rewinds, progress.failed_step or state.step
    if len(before) >= MOST_REWINDS:
        raise CheckFailed(f"{problem}; training had gone back {len(before)} times before")
    keeper.wait()
    checkpoint = from_first(_newest(keeper) if agreement.world.is_first else None, agreement.world)
    if checkpoint is None:
        raise CheckFailed(f"{problem}; there is no checkpoint to go back to")
    again = keeper.recorder.restore(checkpoint)
    keeper.go_on_from(checkpoint)
    again.run_start = progress.run_start  # the time was spent
    factor = LR_FACTOR ** (len(before) + 1)
    row: dict[str, Any] = {"event": "rewind", "step": failed, "to_step": checkpoint.step, "lr_factor": factor}
    if run.writes:
        run.cut(checkpoint.state["log_bytes"])
    for lost in [*before[len(state.rewinds) :], row]:
        run.log(lost)
    state.rewinds = [*before, row]
    keeper.narrator.warn(
        f"{problem}: going back to step {checkpoint.step:,}, with the learning rate x {factor:g} from there on "
        f"({len(state.rewinds)} of {MOST_REWINDS} times)"
    )
    if agreement.clock is not None:
        agreement.clock.restart()
    agreement.signal(state.step, now=True)  # which counts steps, and would not ask before those are done again
    return again


def _newest(keeper: Keeper) -> Checkpoint | None:
    checkpoint, problems = newest_good(keeper.run.checkpoints)
    for problem in problems:
        keeper.narrator.warn(problem)
    return checkpoint
