"""torchrun's agent in a process of its own: starts the processes of one machine and watches them. No retries.

    python -m linne.launching.agent '{"num_nodes": 1, ...}' FOLDER

It is torchrun by its functions rather than by its command, because these say how each process ended.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from linne.launching.orphans import leave_with_parent

RESULT = "agent.json"
JOIN_SECONDS = 600
"""How long machines wait for one another."""


def main() -> None:
    """Run the processes that the command line describes; how they ended stands in `agent.json` then."""
    leave_with_parent()
    wanted, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
    logging.disable(logging.CRITICAL)  # of what it does to processes: the supervisor says that
    config = LaunchConfig(
        min_nodes=wanted["num_nodes"],
        max_nodes=wanted["num_nodes"],
        nproc_per_node=wanted["num_processes"],
        run_id=wanted["id"],
        rdzv_backend="c10d",
        rdzv_endpoint=wanted["endpoint"],
        rdzv_configs={"timeout": JOIN_SECONDS, "is_host": wanted["is_host"]},
        local_addr=wanted["address"],
        max_restarts=0,
    )
    result: dict[str, object] = {"exit_codes": {}, "problem": None}
    try:
        elastic_launch(config, sys.executable)("-m", "linne.cli.rank", *wanted["arguments"])
    except ChildFailedError as error:
        result["exit_codes"] = {rank: failure.exitcode for rank, failure in error.failures.items()}
    except SignalException:
        result["problem"] = "it was told to end"
    except Exception as error:
        lines = str(error).splitlines() or [type(error).__name__]
        result["problem"] = f"torchrun: {type(error).__name__}: {lines[0]}"
    (folder / RESULT).write_text(json.dumps(result), encoding="utf-8")
    sys.exit(0 if result == {"exit_codes": {}, "problem": None} else 1)


if __name__ == "__main__":
    main()
