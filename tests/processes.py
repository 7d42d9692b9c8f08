"""Several processes that train together, as torchrun would start them, without starting Python for each."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from typing import Any

WAIT_SECONDS = 60
PRELOADED = ["linne.training.loop", "linne.verbs", "linne.planning", "linne.data.loading.augment", "scipy.special"]


def free_port() -> int:
    """Return a port that nobody listens to."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def run_together(work: Callable[..., Any], size: int, *arguments: Any) -> list[Any]:
    """Return what `work(*arguments)` returns in each of `size` processes, by rank; `work` is a module's function.

    They come from a server that has imported torch once. An exception comes back as the text of its traceback, and is
    raised here.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    results, port = context.Queue(), free_port()
    children = [
        context.Process(target=_child, args=(work, rank, size, port, os.getcwd(), results, arguments), daemon=True)
        for rank in range(size)
    ]
    for child in children:
        child.start()
    try:
        found = dict(results.get(timeout=WAIT_SECONDS) for _ in children)
    finally:
        for child in children:
            child.join(10)
            if child.is_alive():
                child.kill()
    for rank, (_, problem) in sorted(found.items()):
        if problem is not None:
            raise AssertionError(f"process {rank} of {size}:\n{problem}")
    return [found[rank][0] for rank in range(size)]


def _child(
    work: Callable[..., Any], rank: int, size: int, port: int, folder: str, results: Any, arguments: tuple[Any, ...]
) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    os.environ.update({name: str(value) for name, value in place.items()})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"})
    os.chdir(folder)
    result, problem = None, None
    try:
        import torch

        torch.set_num_threads(1)
        result = work(*arguments)
    except BaseException as error:
        problem = "".join(traceback.format_exception(error))
    with contextlib.suppress(OSError):
        results.put((rank, (result, problem)))
