"""Ten thousand damaged images: no crash, no hang, bounded memory, no error but ImageError.

`scripts/fuzz_images` judges a million.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter

import numpy as np
import pytest
from museum.fuzzing import HANGS_AFTER_SECONDS, MEMORY_BYTES, SECONDS, Worker, judge
from museum.mutations import KINDS, mutated

from linne.errors import ImageError

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def fuzzed(python, repository, tmp_path_factory):
    """What `scripts/fuzz_images` says of ten thousand cases, and the folder it kept."""
    folder = tmp_path_factory.mktemp("fuzz")
    words = ("--count", 10_000, "--seed", 3, "--processes", 1, "--folder", folder)
    return python(repository / "scripts/fuzz_images", *words), folder


def test_ten_thousand_damaged_images_are_shown_or_refused_and_nothing_else(fuzzed):
    ended, folder = fuzzed
    totals = json.loads(ended.stdout)
    assert [path.read_text() for path in folder.glob("finding-*.json")] == []
    assert ended.returncode == totals["num_findings"] == 0
    assert totals["count"] == 10_000
    assert 5_000 < totals["num_refused"] < 9_000, "some of both, or the damage is too little or too much"
    assert totals["slowest_seconds"] <= 2 * SECONDS
    assert totals["peak_bytes"] <= MEMORY_BYTES


def test_a_run_that_is_started_again_goes_on_where_it_was(fuzzed, python, repository):
    ended, folder = fuzzed
    again = python(repository / "scripts/fuzz_images", "--count", 10_000, "--seed", 3, "--folder", folder)
    assert again.stdout == ended.stdout
    assert again.stderr == "", "nothing was judged again"


def test_a_case_is_the_same_whenever_it_is_asked_for_and_every_format_is_damaged(fuzzed, python, repository):
    _, folder = fuzzed
    name, data = mutated(3, 777)
    shown = python(repository / "scripts/fuzz_images", "--seed", 3, "--case", 777, "--folder", folder)
    assert (folder / "case-3-777.bin").read_bytes() == data
    assert shown.stdout.startswith(f"{folder / 'case-3-777.bin'}: {len(data)} bytes, from {name}\nas it should be; ")
    assert mutated(4, 777)[1] != data
    kinds = Counter(mutated(3, number)[0].rpartition(".")[2] for number in range(180))
    assert set(kinds) == set(KINDS)


# That it would have been seen


def pixels(spec):
    return np.zeros((spec.height, spec.width, spec.channels), np.uint8)


def slow(data, spec, name):
    start = time.process_time()
    while time.process_time() - start < 0.06:
        pass
    return pixels(spec)


def by_size(data, spec, name):
    if spec.height < 10:
        raise ImageError(f"`{name}` cannot be read: too small")
    return pixels(spec)


def refuse(words):
    def read(data, spec, name):
        raise ImageError(words)

    return read


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda data, spec, name: {}[data], "KeyError instead of ImageError"),
        (lambda data, spec, name: sys.exit(3), "SystemExit instead of ImageError"),
        (lambda data, spec, name: pixels(spec)[1:], "uint8 of (1, 2, 3)"),
        (lambda data, spec, name: pixels(spec) / 1, "float64 of (2, 2, 3)"),
        (refuse("`other.jpg` cannot be read"), "strange words: "),
        (refuse("`case` cannot be read: two\nlines"), "strange words: "),
        (by_size, "two verdicts: `case` cannot be read: too small / shown"),
        (slow, "took 0.0"),
    ],
    ids=["another error", "exit", "another shape", "another type", "no name", "two lines", "two verdicts", "slow"],
)
def test_a_decoder_with_a_fault_is_found_out(read, said):
    wrong, _, _ = judge(b"data", read, seconds=0.05)
    assert wrong is not None
    assert wrong.startswith(said)


def test_a_process_that_dies_or_hangs_is_found_out_and_the_cases_behind_are_judged(tmp_path):
    program = """
import json, os, struct, sys, time
for number in range(int(sys.argv[1]), int(sys.argv[2])):
    open(sys.argv[3], "r+b").write(struct.pack("<q", number))
    if number == 3:
        os.abort()
    if number == 6:
        time.sleep(60)
print(json.dumps({"count": 1, "num_refused": 1, "slowest_seconds": 0.5, "peak_bytes": 9}))
"""
    worker = Worker(lambda *where: [sys.executable, "-c", program, *map(str, where)], 0, 9, tmp_path, 1.0)
    deadline = time.monotonic() + HANGS_AFTER_SECONDS
    while not worker.is_done():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [(finding.number, finding.what) for finding in worker.findings] == [
        (3, f"ended the process with {-signal.SIGABRT}, by this case or one before it"),
        (6, "took more than 1 s"),
    ]
    assert [tally.num_refused for tally in worker.tallies] == [1]
