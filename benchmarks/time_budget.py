"""How well `--time-budget` is kept when other programs take the cores half way through, with and without its backstop.

The number of epochs is measured once, before; both sides train it. The other programs spin, two for each core.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import measure

measure.use_checkout()

import linne  # noqa: E402
from linne.log import Narrator, Run  # noqa: E402
from linne.planning import Plan, plan_anew  # noqa: E402
from linne.training.loop import train  # noqa: E402

SPIN = "while True: pass"
PER_CORE = 2


@contextmanager
def busy_after(seconds: float) -> Iterator[None]:
    """Have other programs use the cores from so many seconds on, until the block ends."""
    others: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        others.extend(subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(PER_CORE * (os.cpu_count() or 1)))

    timer = threading.Timer(seconds, start)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        for other in others:
            other.kill()
            other.wait()


def run_once(plan: Plan, source: str, *, backstop: bool, busy: bool) -> dict[str, Any]:
    """Return how long a training took, and what came of it."""
    recipe, budget = plan.recipe, 60 * (plan.recipe.optim.minutes or 0)
    if not backstop:
        optim = dataclasses.replace(recipe.optim, shortened=(0.0, float(recipe.optim.epochs)))
        recipe = dataclasses.replace(recipe, optim=optim)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        with busy_after(budget / 2 if busy else 1e6):
            trained = train(recipe, plan.source, run, Narrator(quiet=True))
        run.close()
        assert trained.bundle is not None
        accuracy = linne.evaluate(trained.bundle.path, source, quiet=True).accuracy
    cuts = trained.recipe.optim.shortened
    assert cuts is not None
    return {"seconds": trained.seconds, "epochs": cuts[-1], "num_cuts": len(cuts) // 2, "accuracy": accuracy}


def main() -> None:
    parser = measure.parser(__doc__, data=True)
    parser.add_argument("--set", default="digits", help="named set")
    parser.add_argument("--seconds", type=float, default=30.0, help="the budget")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    seconds, runs = (2.0, 1) if options.quick else (options.seconds, options.runs)
    source = measure.source_name(options.set, options.data)
    plan = plan_anew(source, None, {"optim.minutes": seconds / 60, "device.name": "cpu"}, {}, say=print)
    sides = {
        "as planned, others from half way on": {"backstop": False, "busy": True},
        "by the clock, others from half way on": {"backstop": True, "busy": True},
        "by the clock, no others": {"backstop": True, "busy": False},
    }
    results = measure.interleave(
        runs, {name: lambda side=side: run_once(plan, source, **side) for name, side in sides.items()}
    )
    rows = [
        [
            name,
            measure.middle([100 * run["seconds"] / seconds for run in found], 1),
            measure.middle([run["epochs"] for run in found], 1),
            measure.middle([100 * run["accuracy"] for run in found]),
        ]
        for name, found in results.items()
    ]
    measure.report(
        f"{options.set} in {seconds:g} s",
        ["side", "time used, % of the budget", "epochs", "test accuracy, %"],
        rows,
        notes=[
            f"{runs} of each, taking turns; {plan.recipe.optim.epochs} epochs were planned: "
            f"{plan.reasons['optim.epochs']}",
            f"{PER_CORE} spinning programs a core",
        ],
        packages=["torch"],
        raw=results,
        options=options,
    )


if __name__ == "__main__":
    main()
