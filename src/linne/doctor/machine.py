"""The machine as the doctor sees it: its files, tools and environment, all of which a test can replace."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

_MOST_OUTPUT_BYTES = 4 << 20
"""A tool that prints more is stopped: what is asked for takes a few kilobytes a GPU."""

_MOST_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Ran:
    """What a tool left: its exit code (None where it did not start or was stopped) and what it printed."""

    code: int | None
    stdout: str
    stderr: str


def may_read_and_write(path: Path) -> bool:
    """Return whether this process may read and write `path` by its permissions.

    The device rules of a container are not seen: they refuse only when the device is opened.
    """
    try:
        return os.access(path, os.R_OK | os.W_OK)
    except (OSError, ValueError):
        return False


def group_number(path: Path) -> int | None:
    """Return the number of the group that owns `path`; None where the system does not say."""
    try:
        return path.stat().st_gid
    except (OSError, ValueError):
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What only the running system can say, apart from files: free bytes, and how many files may be open.

    None where the system does not say. `disk_free` is of `folder`.
    """

    folder: str
    disk_free: int | None
    shared_size: int | None
    open_files: int | None
    open_files_most: int | None


def limits_here() -> Limits:
    """Return the limits of this process, in the folder it runs in."""
    soft, hard = _open_files()
    return Limits(
        folder=_folder(),
        disk_free=_disk(".", "free"),
        shared_size=_disk("/dev/shm", "total") if sys.platform == "linux" else None,
        open_files=soft,
        open_files_most=hard,
    )


def _path_folders() -> tuple[Path, ...]:
    return tuple(Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """This machine, or one built in a folder by a test.

    `root` stands for `/`; `path` are the folders searched for tools; `system` is `Linux`, `Windows` or `Darwin`, and
    `system_name` what it calls itself in full; `may_use` answers whether a device node may be opened, and `group_of`
    whose it is; `python` starts the children that touch devices, and its packages are in `site_packages` (None: this
    Python's own).
    """

    root: Path = Path("/")
    path: tuple[Path, ...] = field(default_factory=_path_folders)
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    system: str = field(default_factory=platform.system)
    system_name: str = field(default_factory=platform.platform)
    python_version: str = field(default_factory=platform.python_version)
    python: tuple[str, ...] = (sys.executable,)
    site_packages: tuple[str, ...] | None = None
    limits: Limits = field(default_factory=limits_here)
    may_use: Callable[[Path], bool] = may_read_and_write
    group_of: Callable[[Path], int | None] = group_number

    def child(self, module: str) -> tuple[str, ...]:
        """Return the command that starts a module of the doctor's in a process of its own."""
        return (*self.python, "-m", module)

    def read_text(self, path: str, most_bytes: int = _MOST_FILE_BYTES) -> str | None:
        """Return the text of a file under the root, stripped; None where it cannot be read."""
        try:
            with (self.root / path.lstrip("/")).open("rb") as file:
                return file.read(most_bytes).decode("utf-8", "replace").strip()
        except (OSError, ValueError):
            return None

    def exists(self, path: str) -> bool:
        """Return whether there is anything at `path` under the root."""
        try:
            return (self.root / path.lstrip("/")).exists()
        except (OSError, ValueError):
            return False

    def paths(self, pattern: str) -> tuple[Path, ...]:
        """Return what matches a pattern under the root, sorted with numbers in order; nothing where it fails."""
        try:
            found = list(self.root.glob(pattern.lstrip("/")))
        except (OSError, ValueError):
            return ()
        return tuple(sorted(found, key=lambda path: (len(path.as_posix()), path.as_posix())))

    def find_tool(self, tool: str) -> str | None:
        """Return the path of a tool, searched for in `path` alone."""
        if not self.path:
            return None
        return shutil.which(tool, path=os.pathsep.join(str(folder) for folder in self.path))

    def run(self, tool: str, *args: str, timeout_s: float = 10) -> Ran | None:
        """Return what a tool printed, at most 4 MiB of each stream; None where it is not in `path`.

        Never raises: a tool that does not start, hangs or prints without end has `code` None and a reason in `stderr`.
        """
        found = self.find_tool(tool)
        return None if found is None else _run(found, args, self.environ, timeout_s)


def _run(command: str, args: tuple[str, ...], environ: Mapping[str, str], timeout_s: float) -> Ran:
    try:
        process = subprocess.Popen(
            [command, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environ),
            start_new_session=True,
        )
    except (OSError, ValueError) as err:
        return Ran(None, "", f"did not start: {err}")
    too_much = threading.Event()
    outputs: list[list[bytes]] = [[], []]
    readers = [
        threading.Thread(target=_read, args=(stream, chunks, process, too_much), daemon=True)
        for stream, chunks in zip((process.stdout, process.stderr), outputs, strict=True)
    ]
    for reader in readers:
        reader.start()
    reason = ""
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        reason = f"stopped after {timeout_s:g} s"
        _kill(process)
    for reader in readers:
        reader.join(1)  # a child of the tool may hold its pipe open for ever
    if too_much.is_set():
        reason = "stopped: printed more than 4 MiB"
    stdout, stderr = (b"".join(list(chunks)).decode("utf-8", "replace") for chunks in outputs)
    return Ran(None if reason else process.returncode, stdout, f"{stderr}\n{reason}".strip() if reason else stderr)


def _read(stream: IO[bytes], chunks: list[bytes], process: subprocess.Popen[bytes], too_much: threading.Event) -> None:
    left = _MOST_OUTPUT_BYTES
    with stream, contextlib.suppress(OSError, ValueError):
        while chunk := os.read(stream.fileno(), min(left, 1 << 16)):
            chunks.append(chunk)
            left -= len(chunk)
            if left <= 0:
                too_much.set()
                _kill(process)
                return


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a tool and what it started, and wait for it."""
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)


def _open_files() -> tuple[int | None, int | None]:
    """Return the soft and the hard limit; None where there is none to be read, and for a hard one without end."""
    try:
        import resource  # not on Windows

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    except (ImportError, OSError, ValueError):
        return None, None
    endless = resource.RLIM_INFINITY
    return (2**31 if soft == endless else soft), (None if hard == endless else hard)


def _folder() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # removed under our feet
        return "."


def _disk(path: str, of: str) -> int | None:
    try:
        return int(getattr(shutil.disk_usage(path), of))
    except OSError:
        return None
