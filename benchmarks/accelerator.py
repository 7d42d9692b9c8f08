"""What the benchmarks of accelerators share: a line that says which one, and results that outlive a cut."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from linne.device import Device


def describe(device: Device) -> str:
    """Return which device it is, and with which torch."""
    import torch

    memory = device.hardware.memory_bytes
    size = "" if memory is None else f", {memory / 2**30:.0f} GiB"
    return f"device {device.address}: {device.name}{size}; torch {torch.__version__}"


class Kept:
    """Results in a file, one a line, written as they come: a benchmark that is cut off goes on behind them.

    Without a file they are in memory only. Results of other settings are thrown away.
    """

    def __init__(self, file: Path | None, settings: Mapping[str, Any]) -> None:
        self._file, self.rows = file, []  # type: tuple[Path | None, list[dict[str, Any]]]
        first = {"settings": dict(settings)}
        lines = [] if file is None or not file.is_file() else file.read_text(encoding="utf-8").splitlines()
        # A line that was cut off is the last one.
        found = [json.loads(line) for line in lines if line.endswith("}")]
        if found and found[0] == first:
            self.rows = found[1:]
        elif file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(first) + "\n", encoding="utf-8")

    def add(self, **row: Any) -> None:
        """Keep one more result."""
        self.rows.append(row)
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def of(self, **facts: Any) -> list[dict[str, Any]]:
        """Return the results that have these `facts`."""
        return [row for row in self.rows if all(row.get(name) == value for name, value in facts.items())]
