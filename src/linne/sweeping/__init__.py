"""Search for a better recipe: many trainings of one source, in many processes, in one folder that can be continued.

Training knows nothing of it: each trial is an ordinary `linne train` in a process of its own, followed by what it
writes. Optuna draws the recipes and says which trials are hopeless; its journal is JSON lines in the folder.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linne.errors import LinneError
from linne.log import Narrator

if TYPE_CHECKING:
    from linne.sweeping.results import SweepReport


def sweep(
    source: str | None = None,
    *,
    trials: int | None = None,
    budget_minutes: float | None = None,
    workers: int = 1,
    search: Mapping[str, Any] | None = None,
    space: str | Path | None = None,
    objective: str | None = None,
    seeds: int | None = None,
    model: str | None = None,
    recipe: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    device: str | None = None,
    output: str | Path | None = None,
    seed: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    ray_address: str | None = None,
    trust_code: bool = False,
    quiet: bool = False,
) -> SweepReport:
    """Search for a better recipe for `source` and return what was found.

    The same call continues a sweep that was stopped; another process, on this machine or on one that shares the
    folder, joins by naming the folder as `source`.

    Args:
        source: What to learn from, or the folder of a sweep to continue.
        trials: How many trainings in all; 20 for a new sweep.
        budget_minutes: How long this call may take. No training is begun that is not likely to be done by then, and
            those that run are ended, and tried again when the sweep is continued.
        workers: How many trainings at a time on this machine; with `ray_address` on each node.
        search: Fields to search, as {"optim.lr": "1e-4..1e-1:log", "optim.optimizer": ["sgd", "adamw"]}.
        space: A JSON or TOML file that says the same. Without either, rates and augmentation around the recipe's own.
        objective: `val_accuracy` or `val_loss`, of the epoch that each training keeps.
        seeds: Train the best three, and the recipe as it was, again with so many other seeds.
        output: The sweep's folder; `sweeps/SOURCE-MODEL` without it.
        ray_address: Run the workers on the nodes of this Ray cluster; they have to share the folder.
        trust_code: Whether trainings may run the user's own Python. The folder does not keep it: each call says it.

    The other arguments are those of `linne.train`.

    Raises:
        LinneError: something given cannot be used, or the sweep cannot go on.
    """
    _prepare()
    from linne.sweeping.asking import Question, take_up

    until = _end_of(budget_minutes)
    flags = {
        "model.name": model,
        "optim.epochs": epochs,
        "data.batch_size": batch_size,
        "optim.lr": lr,
        "device.name": device,
        "seed": seed,
    }
    question = Question(
        source=source,
        recipe=recipe,
        flags=flags,
        overrides=overrides or {},
        search=search or {},
        space_file=None if space is None else Path(space),
        objective=objective,
        num_trials=trials,
        num_seeds=seeds,
        num_workers=workers,
        output=None if output is None else Path(output),
    )
    folder = take_up(question, Narrator(quiet=quiet), trust_code=trust_code)
    return _conclude(folder, _run(folder, workers, until, ray_address, trust_code, quiet=quiet), budget_minutes)


def _prepare() -> None:
    """Find out now what is missing, not when the first trial fails."""
    from linne.host import prepare_for_torch

    prepare_for_torch()
    _require("optuna", "sweep")
    _require("torch", "train")


def _end_of(budget_minutes: float | None) -> float | None:
    """Return the Unix time at which the budget is over."""
    if budget_minutes is None:
        return None
    if not 0 < budget_minutes < float("inf"):
        raise LinneError(f"the budget is {budget_minutes:g} minutes, expected more than 0")
    return time.time() + 60 * budget_minutes


def _run(
    folder: Path, workers: int, until: float | None, ray_address: str | None, trust_code: bool, *, quiet: bool
) -> int | None:
    """Run the workers, and return the number of the signal that stopped them, if one did."""
    from linne.sweeping.live import Display

    display = Display(quiet=quiet, until=until)
    try:
        if ray_address is None:
            from linne.sweeping.supervisor import run_workers

            run_workers(folder, workers, until, display, trust_code=trust_code)
        else:
            from linne.sweeping.on_ray import run_on_ray

            run_on_ray(folder, ray_address, workers, until, display, trust_code=trust_code)
    except KeyboardInterrupt:
        return signal.SIGINT
    return None


def _require(package: str, extra: str) -> None:
    if find_spec(package) is None:
        raise LinneError(f"a sweep needs `{package}`, which is not installed", hint=f"pip install 'linne[{extra}]'")


def _conclude(folder: Path, number: int | None, budget_minutes: float | None) -> SweepReport:
    """Write the page, and return what there is."""
    from dataclasses import replace

    from linne.sweeping.gather import gather
    from linne.sweeping.page import write_page

    report = gather(folder)
    if number is not None:
        report = replace(report, stopped="interrupted; the same command continues", signal_number=number)
    elif report.num_done < report.num_trials and budget_minutes is not None:
        report = replace(report, stopped=f"the {budget_minutes:g} minutes are over; the same command continues")
    write_page(report)
    return report


def sweep_status(folder: str | Path) -> SweepReport:
    """Return what the sweep in `folder` has found so far; nothing is run.

    Raises:
        LinneError: there is no sweep in it.
    """
    _require("optuna", "sweep")
    from linne.sweeping.gather import gather

    return gather(Path(folder))
