"""A sweep on a Ray cluster: the same worker function on every node, in a folder that all of them share.

Ray only starts the workers and notices when a node is gone; which training is whose stays in the sweep's journal, so
that a node which dies takes nothing with it but its own trainings, which the others then do.
"""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from linne.errors import LinneError
from linne.sweeping.folder import read_plan
from linne.sweeping.journal import Journal
from linne.sweeping.live import Display
from linne.sweeping.trial import TRAINER

POLL_SECONDS = 0.5
ANSWER_SECONDS = 20.0
"""In which a cluster that is there says so."""


def run_on_ray(
    folder: Path,
    address: str,
    workers_per_node: int,
    until: float | None,
    display: Display,
    *,
    trust_code: bool = False,
    trainer: Sequence[str] = TRAINER,
) -> None:
    """Run workers for `folder` on each node of the Ray cluster at `address`, until there is nothing left to do.

    Raises:
        LinneError: Ray is not installed or not there, or every worker failed, in the words of one.
        KeyboardInterrupt: asked to stop; the workers have been told to.
    """
    try:
        import ray
    except ImportError as error:
        raise LinneError("`ray` is not installed", hint="pip install 'linne[ray]'") from error
    journal, plan = Journal(folder), read_plan(folder)
    was_there = ray.is_initialized()
    if not was_there:
        _connect(ray, address)
    try:
        running = _start(ray, folder, workers_per_node, until, trust_code, trainer)
        failures = _follow(ray, running, journal, plan, display)
    finally:
        if not was_there:
            ray.shutdown()
    if len(failures) == len(running):
        raise LinneError(f"no worker could go on; one said: {failures[0]}")


def _connect(ray: Any, address: str) -> None:
    nobody = LinneError(
        f"no Ray cluster answers at `{address}`", hint="`ray start --head` starts one and says its address"
    )
    # Ray's own call would try for many minutes.
    if re.fullmatch(r"[^/]+:\d+", address):
        asking = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
        try:
            healthy = subprocess.run(asking, capture_output=True, check=False, timeout=ANSWER_SECONDS).returncode == 0
        except subprocess.TimeoutExpired:
            healthy = False
        if not healthy:
            raise nobody
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError) as error:
        raise nobody from error


def _start(
    ray: Any, folder: Path, workers_per_node: int, until: float | None, trust_code: bool, trainer: Sequence[str]
) -> list[Any]:
    """Start the workers, so many on each node that is alive, and return Ray's handles of them."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # A worker is nearly idle; its training takes the cores and devices that its recipe says.
    remote = ray.remote(num_cpus=0, max_retries=0)(_work)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    return [
        remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            str(folder.resolve()), until, trust_code, tuple(trainer)
        )
        for node in nodes
        for _ in range(workers_per_node)
    ]


def _work(folder: str, until: float | None, trust_code: bool, trainer: tuple[str, ...]) -> str:
    """Be a worker, in a process of Ray's."""
    from linne.sweeping.worker import work

    return work(Path(folder), until, trust_code=trust_code, trainer=trainer)


def _follow(ray: Any, running: list[Any], journal: Journal, plan: Any, display: Display) -> list[str]:
    """Show how far it is until all workers have ended, and return what those said that failed."""
    left, failures = list(running), []
    try:
        with display:
            while left:
                done, left = ray.wait(left, timeout=POLL_SECONDS)
                for handle in done:
                    try:
                        ray.get(handle)
                    except ray.exceptions.RayError as error:
                        failures.append(_words(error))
                display.show(journal.report(plan))
    except KeyboardInterrupt:
        for handle in left:
            ray.cancel(handle)
        ray.wait(left, num_returns=len(left), timeout=60)
        raise
    return failures


def _words(error: Exception) -> str:
    cause = getattr(error, "cause", None) or error
    lines = str(cause).strip().splitlines()
    return lines[-1] if lines else type(cause).__name__
