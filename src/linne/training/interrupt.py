"""Ctrl-C, SIGTERM and SIGUSR1 while training: noticed between two steps, so that nothing is cut in half."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any, Self, TypeVar

Item = TypeVar("Item")
NUMBERS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]
"""SIGUSR1 is what a cluster can be asked to send before the time is up; Windows has none."""


class Interrupt:
    """Notes the first signal while inside; a second one interrupts at once.

    An exception in the middle of a step, of a worker's start or of writing a file would lose what is at hand. Outside
    the main thread, where Python delivers no signals, nothing is noted.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        """The signal that came."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        try:
            for number in NUMBERS:
                self._before[number] = signal.signal(number, self._note)
        except ValueError:  # not the main thread
            self._before = {}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def until(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield `items` for as long as no signal has come."""
        for item in items:
            if self.number is not None:
                return
            yield item

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            raise KeyboardInterrupt(number)
        self.number = number
