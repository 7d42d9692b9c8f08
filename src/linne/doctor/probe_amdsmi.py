"""The child that asks AMD's Python package for its GPUs: `python -m linne.doctor.probe_amdsmi [--folder DIR]`.

Its import loads libamd_smi: where that is missing, one release raises KeyError, another OSError, a third nothing before
the first call. A call may raise AmdSmiException, or end the process.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from linne.child import said_of, say


def main(words: Sequence[str] | None = None) -> int:
    """Report each GPU as `amdsmi` describes it, and what it raised."""
    parser = argparse.ArgumentParser(description="ask AMD's Python package for its GPUs")
    parser.add_argument("--folder", action="append", default=[], help="where the package may lie besides; repeatable")
    # Last: what was installed on purpose goes before what came with the system.
    sys.path += parser.parse_args(words).folder
    try:
        library: Any = importlib.import_module("amdsmi")
        library.amdsmi_init()
    except BaseException as error:  # of any kind, SystemExit too
        say("failed", raised=said_of(error))
        return 0
    try:
        for handle in library.amdsmi_get_processor_handles():
            _describe(library, handle)
        say("end")
    except Exception as error:
        say("failed", raised=said_of(error))
    finally:
        with contextlib.suppress(Exception):
            library.amdsmi_shut_down()
    return 0


def _describe(library: Any, handle: Any) -> None:
    """Report one GPU; a question that a release does not know, or that fails, leaves its facts out."""
    questions: dict[str, Callable[[], Any]] = {
        "bdf": lambda: library.amdsmi_get_gpu_device_bdf(handle),
        "asic": lambda: library.amdsmi_get_gpu_asic_info(handle),
        "vram": lambda: library.amdsmi_get_gpu_vram_info(handle),
        "driver": lambda: library.amdsmi_get_gpu_driver_info(handle),
    }
    facts: dict[str, Any] = {"raised": {}}
    for name, ask in questions.items():
        try:
            answer = ask()
        except Exception as error:
            facts["raised"][name] = said_of(error)
        else:
            facts[name] = _plain(answer)
    say("gpu", **facts)


def _plain(answer: Any) -> Any:
    """Return an answer as JSON holds it: handles and enumerations among its values become text."""
    if isinstance(answer, dict):
        return {str(key): _plain(value) for key, value in answer.items()}
    return answer if answer is None or isinstance(answer, (str, int, float)) else str(answer)


if __name__ == "__main__":
    sys.exit(main())
