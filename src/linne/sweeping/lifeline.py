"""A process that ends politely when the one that started it ends, however that was.

Its standard input is a pipe whose other end the starter holds. When that closes, the process sends itself SIGTERM: a
training saves what it has. One way serves for "stop, please" and for a starter that was killed, on every system.
"""

from __future__ import annotations

import _thread
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

PATIENCE_SECONDS = 60.0
"""How long a process may take to save before it is killed."""


def start(
    words: Sequence[str], *, output: IO[bytes] | int, errors: IO[bytes] | int, folder: Path
) -> subprocess.Popen[bytes]:
    """Start a process that watches its line, in `folder`; Ctrl-C in the terminal reaches only the one that asked."""
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP
    return subprocess.Popen(
        list(words),
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=errors,
        cwd=folder,
        start_new_session=sys.platform != "win32",
        creationflags=flags,
    )


def let_go(process: subprocess.Popen[bytes]) -> None:
    """Ask `process` to end, by closing the line; return at once."""
    if process.stdin is not None and not process.stdin.closed:
        process.stdin.close()


def end(process: subprocess.Popen[bytes], patience: float = PATIENCE_SECONDS) -> int:
    """Ask `process` to end, wait for it, kill it when it does not, and return its exit code."""
    let_go(process)
    try:
        return process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def watch() -> None:
    """From now on, send this process SIGTERM when its standard input ends."""
    threading.Thread(target=_wait_for_the_end, name="lifeline", daemon=True).start()


def _wait_for_the_end() -> None:
    # The file descriptor and not sys.stdin: that one's lock, held by a thread that waits, would stop Python's exit.
    while os.read(0, 4096):
        pass
    if sys.platform == "win32":
        _thread.interrupt_main(signal.SIGTERM)
    else:
        os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Run `linne` with the arguments of this process, on a line."""
    watch()
    sys.argv[0] = "linne"
    runpy.run_module("linne", run_name="__main__")


if __name__ == "__main__":
    main()
