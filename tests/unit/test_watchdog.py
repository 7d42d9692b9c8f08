"""A training that stands still is ended with all stacks; one that moves is left alone."""

from __future__ import annotations

import textwrap
import time

import pytest

from linne.training.watchdog import FILE, Watchdog

STUCK = textwrap.dedent(
    """
    import sys, threading, time
    from pathlib import Path
    from linne.training.watchdog import Watchdog

    def waits_for_a_disk():
        time.sleep(60)

    def waits_for_a_device():
        time.sleep(60)

    threading.Thread(target=waits_for_a_disk, daemon=True).start()
    with Watchdog(Path(sys.argv[1]), 0.5) as watchdog:
        for _ in range(4):
            time.sleep(0.2)
            watchdog.alive()
        print("still moving", flush=True)
        waits_for_a_device()
    """
)


def test_a_step_that_does_not_end_ends_the_process_and_leaves_the_stacks_of_all_threads(python, tmp_path):
    start = time.monotonic()
    ended = python("-c", STUCK, str(tmp_path))
    assert ended.returncode == 1
    assert ended.stdout.strip() == "still moving"
    assert time.monotonic() - start < 50
    left = (tmp_path / FILE).read_text()
    assert left.startswith("nothing moved for 0.5 s: this is where every thread was\n")
    assert "waits_for_a_device" in left
    assert "waits_for_a_disk" in left


@pytest.mark.parametrize("limit_s", [None, 30.0])
def test_nothing_is_left_of_a_watch_in_which_all_went_well(tmp_path, limit_s):
    with Watchdog(tmp_path, limit_s) as watchdog:
        watchdog.alive()
    assert list(tmp_path.iterdir()) == []
