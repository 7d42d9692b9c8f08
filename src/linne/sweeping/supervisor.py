"""The process that was typed: starts workers on this machine, shows how far they are, and ends with them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from linne.errors import LinneError
from linne.sweeping import lifeline
from linne.sweeping.folder import read_plan
from linne.sweeping.journal import Journal
from linne.sweeping.live import Display
from linne.sweeping.trial import LOGS, TRUST

POLL_SECONDS = 0.5
PATIENCE_SECONDS = lifeline.PATIENCE_SECONDS + 30
"""For a worker to end: it waits for its training."""


def run_workers(
    folder: Path,
    num_workers: int,
    until: float | None,
    display: Display,
    *,
    trust_code: bool = False,
    trainer: Sequence[str] = (),
) -> None:
    """Run workers in `folder` until there is nothing left to do, or no time.

    Raises:
        LinneError: a worker could not go on, in its words.
        KeyboardInterrupt: asked to stop; the workers have ended.
    """
    journal, plan = Journal(folder), read_plan(folder)
    (folder / LOGS).mkdir(exist_ok=True)
    words = [sys.executable, "-m", "linne.sweeping.worker", str(folder.resolve())]
    words += ["-" if until is None else str(until), *([TRUST] if trust_code else []), *trainer]
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    workers = [lifeline.start(words, output=null, errors=pipe, folder=Path.cwd()) for _ in range(num_workers)]
    try:
        with display:
            while any(worker.poll() is None for worker in workers):
                display.show(journal.report(plan))
                time.sleep(POLL_SECONDS)
            display.show(journal.report(plan))
    except BaseException:
        for worker in workers:
            lifeline.let_go(worker)
        for worker in workers:
            lifeline.end(worker, PATIENCE_SECONDS)
        raise
    _tell_failures(workers)


def _tell_failures(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Raise what a worker said that could not go on."""
    for worker in workers:
        lifeline.let_go(worker)
        said = b""
        if worker.stderr is not None:
            with worker.stderr as stream:
                said = stream.read()
        if worker.returncode == 0:
            continue
        lines = [line for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
        if worker.returncode < 0 or worker.returncode == 143:
            raise LinneError("a worker was killed from outside", hint="the same command continues")
        if worker.returncode in (1, 3) and 1 <= len(lines) <= 2:
            raise LinneError(lines[0], hint=lines[1] if len(lines) == 2 else None)
        raise LinneError(f"a worker failed: {lines[-1] if lines else f'exit code {worker.returncode}'}")
