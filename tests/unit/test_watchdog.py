"""A training that stands still is ended with all stacks; one that moves is left alone."""

from __future__ import annotations

import textwrap
import time

import pytest

from linne.training.watchdog import Watchdog, stuck_file, was_stuck

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
    left = stuck_file(tmp_path).read_text()
    assert left.startswith("Timeout (0:00:00.500000)!\n")
    assert "waits_for_a_device" in left
    assert "waits_for_a_disk" in left


@pytest.mark.parametrize("limit_s", [None, 30.0])
def test_nothing_is_left_of_a_watch_in_which_all_went_well(tmp_path, limit_s):
    with Watchdog(tmp_path, limit_s) as watchdog:
        watchdog.alive()
    assert list(tmp_path.iterdir()) == []


def test_what_an_earlier_process_left_stays_and_the_empty_file_of_a_killed_one_goes(tmp_path):
    stuck_file(tmp_path).write_text("Timeout (1:00:00)!\n")
    stuck_file(tmp_path, rank=1).touch()
    for rank in (0, 1):
        with Watchdog(tmp_path, 30.0, rank) as watchdog:
            watchdog.alive()
    assert [path.name for path in tmp_path.iterdir()] == ["stuck.txt"]
    assert was_stuck(stuck_file(tmp_path))
    assert not was_stuck(stuck_file(tmp_path, rank=1))
