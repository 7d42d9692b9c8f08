"""One attempt on one machine: torchrun's agent, the processes under it, and the signals they are passed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from linne.launching import outcomes
from linne.launching.outcomes import Verdict

GRACE_SECONDS = 60.0
"""How long processes that were asked to leave may take to write a checkpoint."""
DEATH_SECONDS = 3.0
"""How long killed processes may take to be gone, with what they hold of the run folder."""
QUIET_TORCH = ("TORCH_CPP_LOG_LEVEL", "ERROR")
"""Its warnings are of names that lead nowhere and partners that are gone; the errors come as exceptions."""
AGENT_RESULT = "agent.json"


@dataclass(eq=False, slots=True)
class Attempt:
    """Processes that are at work."""

    folder: Path
    agent: subprocess.Popen[bytes]
    ranks: range
    _told: dict[int, int] = field(default_factory=dict)
    """The last signal that each rank was passed."""
    _told_time: float = 0.0

    @classmethod
    def start(
        cls,
        arguments: Sequence[str],
        *,
        run_id: str,
        num_processes: int,
        num_nodes: int = 1,
        node_rank: int = 0,
        endpoint: str = "localhost:0",
        address: str | None = None,
    ) -> Self:
        """Start `linne` with `arguments` in `num_processes` processes on this machine, the `node_rank`th of some.

        `address` is how the other machines reach this one, where its own name does not say.
        """
        folder = Path(tempfile.mkdtemp(prefix="linne-launch-"))
        wanted = {
            "id": run_id,
            "num_processes": num_processes,
            "num_nodes": num_nodes,
            "endpoint": endpoint,
            "is_host": node_rank == 0,
            "address": address,
            "arguments": list(arguments),
        }
        # A session of its own: Ctrl-C in the terminal reaches the supervisor, which passes it on once.
        agent = subprocess.Popen(
            [sys.executable, "-m", "linne.launching.agent", json.dumps(wanted), str(folder)],
            env=_environment(folder, num_processes),
            start_new_session=True,
        )
        first = node_rank * num_processes
        return cls(folder, agent, range(first, first + num_processes))

    @property
    def is_over(self) -> bool:
        """Whether all is done, one way or the other."""
        return self.agent.poll() is not None

    def pass_on(self, number: int) -> None:
        """Pass a signal on to each process once; to be called again while some of them have not begun."""
        if not self._told:
            self._told_time = time.monotonic()
        for rank, process in outcomes.processes(self.folder).items():
            if self._told.get(rank) != number and not (self.folder / f"rank-{rank}.json").exists():
                self._told[rank] = number
                _send(process, number)

    @property
    def is_overdue(self) -> bool:
        """Whether processes that were asked to leave have had their time."""
        return bool(self._told) and time.monotonic() - self._told_time > GRACE_SECONDS

    def end(self) -> Verdict:
        """Return what became of it, after ending whatever is still there."""
        if not self.is_over:
            self.agent.kill()
        self.agent.wait()
        if not (self.folder / AGENT_RESULT).exists():  # else it has ended them all, and their numbers may be others'
            self._end_orphans()
        problem, exit_codes = self._agent_result()
        verdict = outcomes.judge(self.ranks, outcomes.read_outcomes(self.folder), exit_codes)
        shutil.rmtree(self.folder, ignore_errors=True)
        if verdict.code is None and problem is not None and not exit_codes:
            return Verdict(None, (problem,))
        return verdict

    def _end_orphans(self) -> None:
        """End the processes whose agent is gone: they leave by themselves, but not at once."""
        said = outcomes.read_outcomes(self.folder)
        left = [process for rank, process in outcomes.processes(self.folder).items() if rank not in said]
        for process in left:
            _send(process, getattr(signal, "SIGKILL", signal.SIGTERM))  # Windows has one way only
        end = time.monotonic() + DEATH_SECONDS
        while os.name == "posix" and any(map(_is_there, left)) and time.monotonic() < end:
            time.sleep(0.05)

    def _agent_result(self) -> tuple[str | None, dict[int, int]]:
        """Return what went wrong with torchrun itself, and the exit codes of processes that failed, by rank."""
        try:
            result: dict[str, Any] = json.loads((self.folder / AGENT_RESULT).read_text("utf-8"))
        except (OSError, ValueError):
            return f"torchrun's agent was killed by {_signal_name(self.agent.returncode)}", {}
        return result["problem"], {int(rank): code for rank, code in result["exit_codes"].items()}


def _send(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(process, number)


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True


def _signal_name(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"something, with exit code {code}"


def _environment(folder: Path, num_processes: int) -> dict[str, str]:
    """Return the environment of the processes: a share of the cores each, unless the user has said how many."""
    threads = max((os.cpu_count() or 1) // num_processes, 1)
    defaults = {"OMP_NUM_THREADS": str(threads), QUIET_TORCH[0]: QUIET_TORCH[1]}
    return {**defaults, **os.environ, outcomes.FOLDER: str(folder)}
