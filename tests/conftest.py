"""What every test shares: one thread a process, and a small folder of images."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Before anything imports numpy or torch: tests run several at a time, and more threads than cores only wait.
os.environ["OMP_NUM_THREADS"] = "1"
# A developer's settings must not decide what a test sees.
for name in ("LINNE_DEBUG", "LINNE_DATA", "LINNE_OFFLINE", "NO_COLOR", "FORCE_COLOR"):
    os.environ.pop(name, None)

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder that holds pyproject.toml."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def python() -> Run:
    """Run this Python in a child process with some arguments and return what it said."""

    def run(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]

    return run


@pytest.fixture(scope="session", autouse=True)
def _a_cache_of_its_own(tmp_path_factory):
    """Keep what tests cache out of the user's cache folder."""
    os.environ["LINNE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _one_thread_for_the_next_test():
    """Undo what a training in this process may have set: a recipe's `device.num_threads` is torch-wide."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
