"""Of which parts a step consists: told by whoever begins one, then timed, named in a trace, or neither."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from torch.profiler import record_function

from linne.device import Device

STEP = "step"
"""What a whole step is called in a trace."""
ON_THE_HOST = {"copy": "prepare", "back": "forward"}
"""Parts that the CPU has no use for, and what they belong to there."""


class Parts:
    """The parts of each step, one after the other, each from its beginning to that of the next.

    So a step is the sum of its parts, whatever they are. Timing one waits for the device first: what is queued belongs
    to the part that queued it.
    """

    def __init__(self, device: Device) -> None:
        self.rows: list[dict[str, float]] = []
        """Seconds by part, one row for each step that was timed."""
        self.num_steps = 0
        """Timed or not."""
        self.copied_bytes = 0
        """From the host to the device, in all steps."""
        self._device = device
        self._timing = self._naming = False
        self._row: dict[str, float] = {}
        self._part, self._since = "", 0.0
        self._spans: list[record_function] = []
        """Those that are open: the step's, and in it the part's."""

    def begin(self, part: str) -> None:
        """Note that `part` begins, and with it a step where none was under way."""
        if not self._device.is_accelerator:
            part = ON_THE_HOST.get(part, part)
        if self._naming:
            if self._spans:
                self._leave(1)
            else:
                self._enter(STEP)
            self._enter(part)
        if self._timing:
            self._book()
            self._part = part

    def end_step(self) -> None:
        """Note that the step is done."""
        self.num_steps += 1
        self._leave(0)
        if self._timing:
            self._book()
            self.rows.append(self._row)
            self._row, self._part = {}, ""

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Time the steps inside into `rows`."""
        self.rows, self._row, self._part, self._timing = [], {}, "", True
        try:
            yield
        finally:
            self._timing = False

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Name the steps inside, and their parts, in what torch's profiler records."""
        self._naming = True
        try:
            yield
        finally:
            self._leave(0)
            self._naming = False

    def _book(self) -> None:
        self._device.synchronise()
        now = time.perf_counter()
        if self._part:
            self._row[self._part] = self._row.get(self._part, 0.0) + now - self._since
        self._since = now

    def _enter(self, name: str) -> None:
        span = record_function(name)
        span.__enter__()  # type: ignore[no-untyped-call]
        self._spans.append(span)

    def _leave(self, depth: int) -> None:
        """Leave the open spans, the innermost first, until `depth` of them are left."""
        while len(self._spans) > depth:
            self._spans.pop().__exit__(None, None, None)


def announce(parts: Parts, owner: Any, name: str, part: str, then: str | None = None) -> None:
    """Have each call of `owner.name` begin `part`, and `then` another part when it is done.

    Changes `owner`, which is thrown away after the trace: so the step that everybody runs has no seams to pay for.
    """
    inner = getattr(owner, name)

    def announced(*arguments: Any, **named: Any) -> Any:
        parts.begin(part)
        result = inner(*arguments, **named)
        if then is not None:
            parts.begin(then)
        return result

    setattr(owner, name, announced)
