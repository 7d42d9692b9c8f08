"""Which workers of a sweep are alive, on this machine and on others that share the folder.

A worker keeps a file that says where it runs and touches it as it goes. It is lost when its process is gone (seen at
once on the same machine) or when the file has not been touched for two minutes, by the clock of the file system, so
that the machines' own clocks need not agree.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import time
import uuid
from pathlib import Path

LOST_AFTER_SECONDS = 120.0
TOUCH_EVERY_SECONDS = 2.0


class Presence:
    """This worker's file, there while the worker is."""

    def __init__(self, folder: Path) -> None:
        """Write the file under `folder`."""
        folder.mkdir(exist_ok=True)
        self.name = f"{platform.node() or 'host'}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.path = folder / f"{self.name}.json"
        self.path.write_text(json.dumps({"machine": machine(), "pid": os.getpid()}) + "\n", encoding="utf-8")
        self._touched = time.monotonic()

    def touch(self, *, now: bool = False) -> None:
        """Say that this worker is alive, unless it has just said so."""
        if now or time.monotonic() - self._touched >= TOUCH_EVERY_SECONDS:
            self._touched = time.monotonic()
            with contextlib.suppress(FileNotFoundError):
                os.utime(self.path)

    def is_lost(self, name: str) -> bool:
        """Return whether the worker `name` is gone; `touch(now=True)` comes first."""
        other = self.path.with_name(f"{name}.json")
        try:
            silent = self.path.stat().st_mtime - other.stat().st_mtime
            said = json.loads(other.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return True
        except ValueError:
            said = {}
        if silent > LOST_AFTER_SECONDS:
            return True
        return said.get("machine") == machine() and not _runs(int(said.get("pid", 0)))

    def leave(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)


def machine() -> str:
    """Return where process numbers mean the same as here: the machine, and in Linux the container."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{platform.node()} {space}".strip()


def _runs(pid: int) -> bool:
    if sys.platform == "win32":
        return True  # asking with a signal would end it there; the file says when it is gone
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
