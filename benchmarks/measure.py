"""What the benchmarks share: clocks, the machine they ran on, paced child processes, and the table at the end.

Standard library only, so that a child process under another Python can import it too.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent


@dataclass(slots=True)
class Timing:
    """Seconds that one piece of work took."""

    wall: float = 0.0
    cpu: float = 0.0
    """Of this process, all its threads, and the children that ended meanwhile."""

    def __add__(self, other: Timing) -> Timing:
        return Timing(self.wall + other.wall, self.cpu + other.cpu)

    def to_dict(self) -> dict[str, float]:
        """Return JSON-ready values."""
        return {"wall_seconds": self.wall, "cpu_seconds": self.cpu}


@contextlib.contextmanager
def timed() -> Iterator[Timing]:
    """Yield a `Timing` that is filled when the block ends."""
    timing = Timing()
    wall, cpu = time.perf_counter(), cpu_seconds()
    yield timing
    timing.wall, timing.cpu = time.perf_counter() - wall, cpu_seconds() - cpu


def cpu_seconds() -> float:
    """Return user and system time so far of this process and of its ended children."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def interleave(rounds: int, sides: Mapping[str, Callable[[], Any]]) -> dict[str, list[Any]]:
    """Return the results of each side, run in turn: A B A B ..., so that a drift of the machine meets all alike."""
    results: dict[str, list[Any]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            results[name].append(run())
    return results


def middle(values: Sequence[float], digits: int = 2) -> str:
    """Return "median (lowest-highest)"."""
    low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return f"{statistics.median(values):.{digits}f}" + ("" if low == high else f" ({low}-{high})")


def percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def machine() -> dict[str, Any]:
    """Return what the numbers depend on: processor, cores, threads, memory, system, and how busy it already was."""
    facts: dict[str, Any] = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "load": [round(x, 2) for x in os.getloadavg()],
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    with contextlib.suppress(OSError):
        described = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
        values = {key.strip(): value.strip() for key, _, value in described}
        facts["cpu"] = f"{values.get('model name', facts['cpu'])} (family {values.get('cpu family', '?')}, model "
        facts["cpu"] += f"{values.get('model', '?')}{', AVX-512' if 'avx512f' in values.get('flags', '') else ''})"
        memory = Path("/proc/meminfo").read_text().split()
        facts["memory_gib"] = round(int(memory[1]) / 2**20, 1)
    return facts


def versions(*packages: str) -> dict[str, str]:
    """Return the installed version of each package."""
    found = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def commit() -> str:
    """Return the checkout's commit, with `+` when files of it are changed."""
    git = ["git", "-C", str(CHECKOUT)]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        status = [*git, "status", "--porcelain", "--untracked-files=no", "src", "benchmarks"]
        changed = subprocess.run(status, capture_output=True, text=True, check=True).stdout.strip()
        return head.stdout.strip() + ("+" if changed else "")
    return "unknown"


def parser(description: str, *, data: bool = False) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark takes."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs; the numbers mean nothing")
    made.add_argument("--output", type=Path, metavar="FILE", help="also write the raw results as JSON")
    if data:
        made.add_argument("--data", metavar="DIR", help="where the set's official files are; default as for linne")
    return made


def source_name(name: str, folder: str | None) -> str:
    """Return what to type for the named set in `folder`."""
    return name if folder is None else f"{name}:{folder}"


def report(
    title: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    notes: Sequence[str] = (),
    packages: Sequence[str] = (),
    raw: Mapping[str, Any],
    options: argparse.Namespace,
) -> None:
    """Print the table with all that is needed to judge it, and write the raw results where they were asked for."""
    facts, found = machine(), {**versions(*packages), "linne": commit()}
    command = "python " + shlex.join([os.path.relpath(sys.argv[0]), *sys.argv[1:]])
    print(f"\n### {title}\n")
    if options.quick:
        print("**--quick: the numbers mean nothing.**\n")
    print(table(heads, rows))
    for note in notes:
        print(f"- {note}")
    memory = f"{facts.get('memory_gib', '?')} GiB"
    print(f"- {facts['cpu']}, {facts['usable']} cores, {memory}, {facts['os']}, {facts['date']}")
    print("- " + ", ".join(f"{name} {version}" for name, version in {"python": facts["python"], **found}.items()))
    print(f"- load average at the end: {facts['load'][0]} ({facts['cores']} cores)")
    print(f"- `{command}`")
    if options.output is not None:
        document = {"title": title, "command": command, "quick": options.quick, "machine": facts, "versions": found}
        options.output.write_text(json.dumps({**document, "results": raw}, indent=1) + "\n", encoding="utf-8")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is text, the others are numbers."""
    lines = [heads, ["---"] + ["--:"] * (len(heads) - 1), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


class Paced:
    """A child process that does one piece of work each time it is told to, and answers with a line of JSON."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str | None] | None = None) -> None:
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(env)
        )

    def answer(self) -> dict[str, Any]:
        """Return the child's next answer."""
        assert self._child.stdout is not None
        for line in self._child.stdout:
            if line.startswith("{"):
                values: dict[str, Any] = json.loads(line)
                return values
        raise SystemExit(f"error: a child process ended with code {self._child.wait()} before it answered")

    def go(self) -> dict[str, Any]:
        """Let the child do its next piece of work and return its answer."""
        assert self._child.stdin is not None
        self._child.stdin.write("go\n")
        self._child.stdin.flush()
        return self.answer()

    def close(self) -> None:
        """Wait for the child to end by itself."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait()


def say(**values: Any) -> None:
    """Answer the parent, from a paced child."""
    print(json.dumps(values), flush=True)


def wait_for_go() -> None:
    """Wait, in a paced child, until the parent says so."""
    if not sys.stdin.readline():
        raise SystemExit(0)


def run_child(command: Sequence[str], env: Mapping[str, str | None] | None = None) -> tuple[Timing, str]:
    """Return what a whole child process took and printed on stdout.

    Raises:
        SystemExit: it failed; its stderr is shown.
    """
    start = time.perf_counter()
    before = cpu_seconds()
    done = subprocess.run(command, capture_output=True, text=True, env=environment(env))
    timing = Timing(time.perf_counter() - start, cpu_seconds() - before)
    if done.returncode != 0:
        sys.stderr.write(done.stderr[-4000:])
        raise SystemExit(f"error: `{shlex.join(command)}` ended with code {done.returncode}")
    return timing, done.stdout


def environment(changes: Mapping[str, str | None] | None) -> dict[str, str]:
    """Return this process's environment with `changes`; None removes a variable."""
    merged = {**os.environ, **(changes or {})}
    return {name: value for name, value in merged.items() if value is not None}


def threads_env(threads: int | None) -> dict[str, str | None]:
    """Return the environment for `threads` threads; None leaves the choice to the program, whatever is set here."""
    return {"OMP_NUM_THREADS": None if threads is None else str(threads)}


def checkout_env(**more: str | None) -> dict[str, str | None]:
    """Return the environment in which a child imports linne from this checkout."""
    paths = [str(CHECKOUT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), **more}


def use_checkout() -> None:
    """Make `import linne` find this checkout."""
    sys.path.insert(0, str(CHECKOUT / "src"))
