"""How much of the time the model waited for its next batch."""

from __future__ import annotations

from collections.abc import Iterator

from linne.data.loading.loader import Batch
from linne.device import Device, Mark


class Waiting:
    """Times what lies between two steps, on the device's own clock.

    A queue hides waiting: a program that runs ahead of its device may wait for a batch while the device still computes,
    and loses nothing. So the marks go into the queue, and tell when the device had ended one step and could begin the
    next. What comes between is reading, decoding, copying, augmenting and normalising.
    """

    def __init__(self, device: Device, seconds: float = 0.0) -> None:
        """`seconds` were waited before."""
        self._device = device
        self._unread: list[tuple[Mark, Mark]] = []
        self._seconds = seconds

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield `batches`, with marks before and after each."""
        device = self._device
        while True:
            before = device.mark()
            batch = next(batches, None)
            if batch is None:
                return
            self._unread.append((before, device.mark()))
            yield batch

    def read(self) -> float:
        """Return the seconds waited so far; call when the device has done all steps, or this waits for it."""
        self._seconds += sum(self._device.seconds_between(*marks) for marks in self._unread)
        self._unread.clear()
        return self._seconds
