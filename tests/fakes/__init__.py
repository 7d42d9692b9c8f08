"""Accelerators that are not there, simulated closely enough that training runs on them.

Each takes torch's one place for foreign devices for good, so it belongs in a child process, which finds the vendor's
package in a folder of `PYTHONPATH`.
"""

from __future__ import annotations

import os
from pathlib import Path

HERE = Path(__file__).parent


def environment(package: str, **settings: str) -> dict[str, str]:
    """Return the environment of a child that has `directml` or `npu` installed."""
    source = HERE.parent.parent / "src"
    folders = [str(source), str(HERE.parent), str(HERE / f"site_{package}")]
    # One thread: sums over several come out in another order.
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1", **settings}
