"""The process that runs one candidate: `python -m linne.tuning.child BUNDLE CANDIDATE`, told by lines what to do.

A process of its own, so that its memory, threads and start are its own, and a runtime that crashes takes nothing along.
It reports one JSON object a line. After `ready` each line on stdin is a number of seconds, for which it runs batches;
an empty line ends it.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from linne.bundle import canary_batch, open_bundle
from linne.errors import LinneError
from linne.host import prepare_for_torch
from linne.tuning.candidate import Candidate

MOST_BATCHES = 5_000
"""Of one turn: their times are sent in one line."""
WARM_BATCHES = 3


def main(words: Sequence[str] | None = None, stdin: TextIO = sys.stdin, stdout: TextIO = sys.stdout) -> int:
    """Run the candidate until there is no more to do."""
    started = time.perf_counter()
    folder, text = sys.argv[1:] if words is None else words

    def say(event: str, **facts: Any) -> None:
        stdout.write(json.dumps({"linne": event, **facts}) + "\n")
        stdout.flush()

    candidate = Candidate.from_dict(json.loads(text))
    prepare_for_torch()
    try:
        from linne.inference.backends import load_backend

        bundle = open_bundle(Path(folder))
        backend = load_backend(candidate.backend).open(bundle, candidate.how)
        opened = time.perf_counter()
        pictures_NCHW = canary_batch(bundle.input)
        images_NCHW = pictures_NCHW[np.arange(candidate.batch) % len(pictures_NCHW)]
        backend.run(images_NCHW)
        first = time.perf_counter()
        for _ in range(WARM_BATCHES):
            backend.run(images_NCHW)
    except LinneError as error:
        say("refused", reason=error.message)
        return 0
    except Exception as error:  # a runtime's errors are of any kind, and this candidate is then none
        say("refused", reason=" ".join(f"{type(error).__name__}: {error}".split())[:300])
        return 0
    say(
        "ready",
        open_ms=1000 * (opened - started),
        first_ms=1000 * (first - opened),
        description=backend.description,
    )
    for line in stdin:
        if not line.strip():
            break
        end = time.perf_counter() + float(line)
        times_ms: list[float] = []
        while len(times_ms) < MOST_BATCHES:
            before = time.perf_counter()
            backend.run(images_NCHW)
            after = time.perf_counter()
            times_ms.append(1000 * (after - before))
            if after >= end:
                break
        say("ran", times_ms=times_ms, peak_mib=peak_mib())
    backend.close()
    return 0


def peak_mib(status: Path = Path("/proc/self/status")) -> float | None:
    """Return the most memory that this process has had, in MiB; None where the system does not say.

    `getrusage` says on Linux what the starter had, where that was more.
    """
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text("ascii"), re.MULTILINE)
        return int(found[1]) / 2**10 if found else None
    except (OSError, ValueError):
        return None


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # runtimes that hang in their own shutdown hold nothing up
