"""A child process that may crash, hang or say anything: what it reported, and how it ended.

A broken driver ends the process that meets it. So what touches a device or loads a vendor's library runs in a child,
which reports one JSON object a line, each as soon as it is known: what came before a crash is kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Literal

End = Literal["done", "failed", "crashed", "hung", "flooded", "not started"]
MARK = "linne"
"""The key of every object that is ours: libraries print to stdout as well, JSON among it."""

_MOST_BYTES = 4 << 20
_POLL_S = 0.02
_KILL_S = 5.0
"""A child that waits inside a driver may not end at all when killed: it is left behind after this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """What a child reported and how it ended."""

    end: End
    how: str
    """The end in a clause: `exit code 1`, `ended by SIGSEGV`, `no end within 60 s`."""
    events: tuple[Mapping[str, Any], ...]
    said: str
    """The last line of stderr, at most 300 characters."""
    seconds: float


def report_line(event: str, **facts: Any) -> str:
    """Return the line with which a child reports `event`."""
    return json.dumps({MARK: event, **facts}) + "\n"


def say(event: str, **facts: Any) -> None:
    """Report `event` from within a child, at once: a crash must not take it along."""
    sys.stdout.write(report_line(event, **facts))
    sys.stdout.flush()


def said_of(error: BaseException) -> str:
    """Return an exception as one line of at most 300 characters, for a report."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def listen(command: Sequence[str], *, environ: Mapping[str, str], limit_s: float) -> Heard:
    """Run `command` for at most `limit_s` and return what it reported; raises nothing, whatever the child does."""
    start = time.monotonic()
    # Files, not pipes: a grandchild that keeps a pipe open would keep us waiting after the child is gone.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            child = subprocess.Popen(
                list(command), stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=dict(environ), **_own_group()
            )
        except (OSError, ValueError) as error:
            how = f"`{command[0]}` cannot be started: {error}"
            return Heard(end="not started", how=how, events=(), said="", seconds=0.0)
        end, how = _wait(child, (out, err), start + limit_s, limit_s)
        seconds = time.monotonic() - start
        return Heard(end=end, how=how, events=events_in(_text(out)), said=_last_line(_text(err)), seconds=seconds)


def first_event(heard: Heard, name: str) -> Mapping[str, Any] | None:
    """Return the first report of one name; None where there is none."""
    return next((event for event in heard.events if event[MARK] == name), None)


def _own_group() -> dict[str, Any]:
    """Return what makes the child the head of a group, so that its own children can be ended with it."""
    return {"start_new_session": True} if os.name == "posix" else {}


def _wait(
    child: subprocess.Popen[bytes], files: tuple[IO[bytes], ...], until: float, limit_s: float
) -> tuple[End, str]:
    end: tuple[End, str] | None = None
    try:
        while child.poll() is None:
            if time.monotonic() > until:
                end = ("hung", f"no end within {limit_s:g} s")
            elif any(os.fstat(file.fileno()).st_size > _MOST_BYTES for file in files):
                end = ("flooded", f"more than {_MOST_BYTES >> 20} MiB of output")
            if end is not None:
                return end
            time.sleep(_POLL_S)
    finally:
        _kill(child)
    if child.returncode == 0:
        return "done", "exit code 0"
    return ("crashed", _signal_text(child.returncode)) if child.returncode < 0 else _exit_end(child.returncode)


def _exit_end(code: int) -> tuple[End, str]:
    # Windows has no signals: an access violation is an exit code such as 0xC0000005.
    return ("crashed", f"exit code {code:#x}") if code >= 0xC0000000 else ("failed", f"exit code {code}")


def _signal_text(code: int) -> str:
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End the child and its own children, those it left behind too."""
    with contextlib.suppress(OSError):
        if os.name == "posix":
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_KILL_S)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(_MOST_BYTES).decode("utf-8", "replace")


def events_in(text: str) -> tuple[Mapping[str, Any], ...]:
    """Return what a child reported among whatever else was printed."""
    events = []
    for line in text.splitlines():
        # Noise without a line end may stand before what we wrote.
        _, brace, rest = line.partition(f'{{"{MARK}"')
        with contextlib.suppress(ValueError, RecursionError):
            event = json.loads(f'{{"{MARK}"{rest}') if brace else None
            if isinstance(event, dict) and isinstance(event[MARK], str):
                events.append(event)
    return tuple(events)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
