"""A time budget's backstop: where what is left will not fit, training gets fewer steps."""

from __future__ import annotations

import bisect
import math
import time
from collections.abc import Mapping

from linne.data.loading.loader import Batches
from linne.recipe import OptimConfig

LOOK_SHARE = 0.01
"""Of the budget: about how often the clock is looked at."""
WINDOW_SHARE, WINDOW_OF_REST = 0.04, 0.2
"""Of the budget, and of what is left of it: the longer of the two is timed before anything is decided by it."""
LATE, AIM, EARLY = 1.01, 0.98, 0.9
"""Shares of the budget: an end that is expected later than the first or earlier than the last is put to the middle."""
SURE = 0.8
"""Of the budget: until then some steps stay in any case, so that those taken away in a bad moment can come back."""
FIRST_STEPS = 2
"""That are not timed: kernels are chosen, the network is compiled."""


class Clock:
    """Holds the pace of the latest steps against a budget; times are seconds, steps are counted from the run's first.

    Training never gets more steps than were planned. Of several processes the first one's clock decides.
    """

    def __init__(self, budget_seconds: float, planned_steps: int, steps_per_epoch: int, end_steps: float) -> None:
        """`end_steps`: how many steps the end of an epoch is guessed to take, until one was seen."""
        self.next_step = 0
        """When all processes look next."""
        self._budget, self._planned, self._steps_per_epoch = budget_seconds, planned_steps, steps_per_epoch
        self._end_steps, self._step_seconds = end_steps, 0.0
        self.fastest = math.inf
        """Seconds of a step, at its best so far."""
        self._since, self._since_step = 0.0, -1
        self._steps_ended: float | None = None

    def restart(self) -> None:
        """Forget the latest steps, because training has gone back: all processes look anew."""
        self._since_step, self._steps_ended = -1, None

    def start_steps(self, step: int) -> None:
        """Note that the steps of an epoch begin, the next being number `step`; what came between was its end."""
        now = time.perf_counter()
        if self._steps_ended is None:
            self.next_step = step + FIRST_STEPS
        else:
            self._since += now - self._steps_ended
            if self._step_seconds > 0:
                self._end_steps = (now - self._steps_ended) / self._step_seconds

    def end_steps(self) -> None:
        """Note that the steps of an epoch are done."""
        self._steps_ended = time.perf_counter()

    def look(self, step: int, epoch: int, total: int, used_seconds: float) -> int:
        """Return how many steps training should have in all, which are `total` now, and set when to look next.

        Args:
            step: How many are done; the epoch at hand has not been validated.
            epoch: How many epochs are done and validated.
            total: Steps of the whole training, as things stand.
            used_seconds: Of the budget.
        """
        now = time.perf_counter()
        if self._since_step < 0:
            self._since, self._since_step, self.next_step = now, step, step + 1
            return total
        taken, steps = now - self._since, step - self._since_step
        self._step_seconds = max(taken, 1e-6) / steps
        self.next_step = step + max(1, int(LOOK_SHARE * self._budget / self._step_seconds))
        if taken < self._window(used_seconds):
            return total
        self._since, self._since_step = now, step
        self.fastest = min(self.fastest, self._step_seconds)
        return self.fitting(step, epoch, total, used_seconds, self._step_seconds)

    def _window(self, used_seconds: float) -> float:
        """Return over how many seconds steps are timed before anything is decided by it."""
        return max(WINDOW_SHARE * self._budget, WINDOW_OF_REST * (self._budget - used_seconds))

    def fitting(self, step: int, epoch: int, total: int, used_seconds: float, step_seconds: float) -> int:
        """Return how many steps training should have in all, if each takes `step_seconds`; the rest is as in `look`."""

        def end(steps: int) -> float:
            ends = -(-steps // self._steps_per_epoch) - epoch
            return used_seconds + (steps - step) * step_seconds + ends * self._end_steps * step_seconds

        late = end(total) > LATE * self._budget
        early = end(total) < EARLY * self._budget and total < self._planned
        if step >= total or not (late or early):
            return total
        least = 1
        if used_seconds < SURE * self._budget:  # at full speed they last until the next decision
            least = max(1, int(1.1 * self._window(used_seconds) / min(self.fastest, step_seconds)))
        choices = range(min(step + least, total if late else self._planned), self._planned + 1)
        fit = bisect.bisect_right(choices, AIM * self._budget, key=end)
        return choices[max(fit - 1, 0)]


def make_clock(optim: OptimConfig, batches: Mapping[str, Batches]) -> Clock | None:
    """Return the clock of a training with a budget; None without one, or where an earlier run's decisions are followed.

    A validation is guessed to take a third of a training pass an image: it has no gradients.
    """
    if optim.minutes is None or optim.shortened is not None:
        return None
    steps_per_epoch = len(batches["train"])
    num_val = batches["val"].num_examples if "val" in batches else 0
    end_steps = steps_per_epoch * num_val / max(3 * batches["train"].num_examples, 1)
    return Clock(60 * optim.minutes, optim.epochs * steps_per_epoch, steps_per_epoch, end_steps)
