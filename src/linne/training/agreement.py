"""What all processes decide at the same step, though one of them knows of it: that a signal came, or time is short."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from linne.device import Device
from linne.training.clock import Clock
from linne.training.distributed import World
from linne.training.interrupt import Interrupt
from linne.training.state import TrainState
from linne.training.watchdog import Watchdog

Item = TypeVar("Item")
SECONDS_BETWEEN = 0.5
"""How often processes ask each other, about: an exchange takes a tenth of a millisecond, some steps hardly more."""


class Agreement:
    """The signal that any process was sent, known to all of them at the same step.

    Who asks for it after every step and batch has moved since, which the watchdog is told.
    """

    def __init__(
        self,
        world: World,
        interrupt: Interrupt,
        watchdog: Watchdog,
        *,
        parted: bool = False,
        clock: Clock | None = None,
    ) -> None:
        """`parted` says whether each process has only a part of every weight; `clock`, how late it is in a budget."""
        self.clock = clock
        self.world, self._interrupt, self._watchdog, self._parted = world, interrupt, watchdog, parted
        self._agreed: int | None = None
        self._asked_step, self._asked_time, self._next_step = 0, time.monotonic(), 0

    def until(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield `items`, alone for as long as no signal has come; several processes go through theirs together."""
        for item in self._interrupt.until(items) if self.world.size == 1 else items:
            self._watchdog.alive()
            yield item

    def is_time_to_save(self, is_due: bool, is_good: Callable[[], bool] = lambda: True) -> bool:
        """Return whether the first process's `is_due` holds, and where it does, `is_good()` of all that save.

        It saves alone, unless each has only a part of the weights: then all have to know at the same step.
        """
        if self.world.size == 1 or not self._parted:
            return is_due and is_good()
        return bool(self.world.largest([int(is_due)])[0]) and not self.world.largest([int(not is_good())])[0]

    def signal(self, step: int, *, now: bool = False) -> int | None:
        """Return the signal that came, if one did; called by all processes after `step` steps, which may ask `now`.

        When they ask next is the first process's to say: clocks differ, and all must ask at the same step.
        """
        self._watchdog.alive()
        if self.world.size == 1:
            return self._interrupt.number
        if self._agreed is None and (now or step >= self._next_step):
            pace = (step - self._asked_step) / max(time.monotonic() - self._asked_time, 1e-3)
            stride = max(1, round(pace * SECONDS_BETWEEN)) if self.world.is_first else 0
            number, stride = self.world.largest([self._interrupt.number or 0, stride])
            self._agreed = number or None
            self._asked_step, self._asked_time, self._next_step = step, time.monotonic(), step + stride
        return self._agreed

    def num_steps(self, state: TrainState, total: int, run_start: float, device: Device) -> int:
        """Return how many steps training should have in all, which are `total` now, by the first process's clock.

        `run_start`: when training began, of `time.perf_counter`.
        """
        clock = self.clock
        if clock is None or state.step < clock.next_step:
            return total
        if self.world.is_first:
            device.synchronise()
            total = clock.look(state.step, state.epoch, total, time.perf_counter() - run_start)
        total, clock.next_step = self.world.from_first([total, clock.next_step])
        return total
