"""One of the processes that `linne launch` starts: `linne`, except that it says how it ended in a file.

    python -m linne.cli.rank train digits ...

The first one talks and writes; of the others only what goes wrong is heard, through the supervisor.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from linne.cli import cli, failures, terminate_as_interrupt
from linne.errors import LinneError, OutOfMemory
from linne.launching.orphans import leave_with_parent
from linne.launching.outcomes import ENDED_BY_SIGNAL, FOLDER, Outcome, note_process


def main() -> None:
    """Run `linne` with the arguments of this process, and leave with 0 unless the others must not go on without it."""
    folder, rank = Path(os.environ[FOLDER]), int(os.environ["RANK"])
    with terminate_as_interrupt() as signals:
        note_process(folder, rank, os.getpid())
        leave_with_parent()
        if rank > 0:
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  until the process ends
        outcome = _run()
    if signals:
        outcome = Outcome(128 + signals[0])
    outcome.write(folder, rank)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # Not through Python's end, where threads of torch that wait for a process which is gone abort this one.
    os._exit(0 if outcome.code in (0, *ENDED_BY_SIGNAL) and not outcome.is_fault else 1)


def _run() -> Outcome:
    import click

    try:
        code = cli.main(args=sys.argv[1:], prog_name="linne", standalone_mode=False)
        return Outcome(int(code or 0))
    except SystemExit as leaving:
        return Outcome(leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None))
    except (KeyboardInterrupt, click.Abort):
        return Outcome(failures.INTERRUPTED)
    except Exception as error:
        if os.environ.get("LINNE_DEBUG"):
            sys.stderr.write(f"rank {os.environ['RANK']}:\n{''.join(traceback.format_exception(error))}")
        message, hint, code = failures.explain(error)
        if isinstance(error, OutOfMemory):
            return Outcome(code, message, hint, is_fault=True, micro_batch=error.micro_batch)
        known = isinstance(error, (LinneError, click.ClickException, ModuleNotFoundError))
        return Outcome(code, message, hint, is_fault=not known)


if __name__ == "__main__":
    main()
