"""The time a model waits for its batches, and not the time it learns from them."""

from __future__ import annotations

import time

from linne.device import Device
from linne.training.waiting import Waiting


def slow_batches(count: int, seconds: float):
    for number in range(count):
        time.sleep(seconds)
        yield number


def test_what_a_batch_takes_counts_and_what_is_done_with_it_does_not():
    waiting, start = Waiting(Device.pick("cpu")), time.perf_counter()
    for _ in waiting.timed(slow_batches(5, 0.02)):
        time.sleep(0.04)
    total = time.perf_counter() - start
    assert 5 * 0.02 <= waiting.read() <= total - 5 * 0.04  # a sleep is never shorter, but may well be longer


def test_reading_twice_counts_nothing_twice():
    waiting = Waiting(Device.pick("cpu"))
    seconds = []
    for _ in waiting.timed(slow_batches(4, 0.01)):
        seconds.append(waiting.read())
    assert seconds == sorted(seconds)
    assert waiting.read() == seconds[-1] < 0.2


def test_batches_pass_unchanged_and_leaving_closes_what_makes_them():
    left = []

    def batches():
        try:
            yield from range(10)
        finally:
            left.append(True)

    waiting = Waiting(Device.pick("cpu"))
    assert list(waiting.timed(batches())) == list(range(10))
    left.clear()
    for number in waiting.timed(batches()):
        if number == 3:
            break
    assert left == [True]
