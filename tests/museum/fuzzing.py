"""Runs damaged images through the decoder, in child processes that may die, and says what went wrong with which."""

from __future__ import annotations

import json
import mmap
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from linne.data.images.decode import MAX_PIXELS, decode, peek, to_input
from linne.errors import ImageError
from linne.preprocess import InputSpec
from museum.mutations import mutated

SECONDS = 1.0
"""Of processor time that one call may take, by the fastest of three."""
SECONDS_A_PIXEL = 2e-8
"""More, for images that state many: the largest accepted one takes most of a second to be copied and resized."""
HANGS_AFTER_SECONDS = 30.0
"""By the clock: a machine that does other things as well must not be taken for a hang."""
MEMORY_BYTES = 16 * MAX_PIXELS + 2**28
"""16 bytes a pixel, as `decode` says, and the interpreter with its libraries."""
SMALL = InputSpec(channels=3, height=2, width=2, mean=(0.5,) * 3, std=(0.5,) * 3)
"""So small that JPEGs are decoded at a reduced size."""
LARGE = InputSpec(channels=1, height=24, width=30, mean=(0.5,), std=(0.5,), crop_pct=0.9, interpolation="bilinear")


@dataclass(frozen=True)
class Finding:
    """One case that went wrong."""

    number: int
    parent: str
    """The exhibit that it was made from."""
    what: str


@dataclass(frozen=True)
class Tally:
    """What became of some cases."""

    count: int
    num_refused: int
    slowest_seconds: float
    peak_bytes: int


Read = Callable[..., Any]


def judge(data: bytes, read: Read = to_input, seconds: float = SECONDS) -> tuple[str | None, bool, float]:
    """Return what is wrong with what becomes of `data` (None when nothing is), whether it is refused, and the seconds.

    `read` is called as `to_input` is, at a reduced and at full size; every size must come to the same verdict, in one
    line that begins with the name.
    """
    verdicts, slowest = [], 0.0
    for spec in (SMALL, LARGE):
        wrong, verdict, taken = _judge_at(data, spec, read)
        if wrong is not None:
            return wrong, bool(verdict), taken
        verdicts.append(verdict)
        if taken > seconds:
            taken = min(taken, *(_judge_at(data, spec, read)[2] for _ in range(2)))
        slowest = max(slowest, taken)
    first, second = verdicts
    if first != second and "would become" not in first + second:  # too thin for one size, not for the other
        return f"two verdicts: {first or 'shown'} / {second or 'shown'}", True, slowest
    if slowest > seconds + _seconds_of_size(data):
        return f"took {slowest:.2f} s", bool(first), slowest
    return None, bool(first), slowest


def _judge_at(data: bytes, spec: InputSpec, read: Read) -> tuple[str | None, str, float]:
    """Return what is wrong, the words of the refusal (empty where it is shown), and the seconds it took."""
    start = time.process_time()
    try:
        pixels_HWC = read(data, spec, name="case")
    except ImageError as error:
        proper = error.message.startswith("`case`") and error.message.isprintable()
        return None if proper else f"strange words: {error.message!r}", error.message, time.process_time() - start
    except BaseException as error:
        return f"{type(error).__name__} instead of ImageError: {error}", "", time.process_time() - start
    right = pixels_HWC.dtype == np.uint8 and pixels_HWC.shape == (spec.height, spec.width, spec.channels)
    wrong = None if right else f"{pixels_HWC.dtype} of {pixels_HWC.shape}"
    return wrong, "", time.process_time() - start


def _seconds_of_size(data: bytes) -> float:
    try:
        header = peek(data)
    except ImageError:
        return 0.0
    return SECONDS_A_PIXEL * header.height * header.width


def judge_peek(data: bytes) -> str | None:
    """Return what is wrong with what `peek` says of an image that can be shown."""
    try:
        header, pixels_HWC = peek(data, name="case"), decode(data, 3, name="case")
    except ImageError:
        return None
    except BaseException as error:
        return f"{type(error).__name__} from peek: {error}"
    stated, shown = (header.height, header.width), pixels_HWC.shape[:2]
    # An orientation that is stated behind the pixels is not seen.
    if sorted(stated) != sorted(shown):
        return f"peek says {stated}, it is {shown}"
    if header.grey and (pixels_HWC != pixels_HWC[..., :1]).any():
        return "peek says grey, it is not"
    return None


def work(seed: int, first: int, last: int, place: Path) -> None:
    """Judge the cases from `first` to before `last`; say a line of JSON for each finding, and one of totals.

    The number of the case at hand stands in the file `place`, for who finds this process dead.
    """
    num_refused, slowest, too_much = 0, 0.0, False
    with open(place, "r+b") as file, mmap.mmap(file.fileno(), 8) as at_hand:
        for number in range(first, last):
            struct.pack_into("<q", at_hand, 0, number)
            parent, data = mutated(seed, number)
            wrong, is_refused, seconds = judge(data)
            if wrong is None and number % 4 == 0:
                wrong = judge_peek(data)
            num_refused += is_refused
            slowest = max(slowest, seconds)
            if not too_much and peak_bytes() > MEMORY_BYTES:
                wrong, too_much = f"took {peak_bytes() / 1e9:.2f} GB of memory", True
            if wrong is not None:
                say(asdict(Finding(number, parent, wrong)))
    say(asdict(Tally(last - first, num_refused, slowest, peak_bytes())))


def say(values: dict[str, Any]) -> None:
    """Write a line of JSON to stdout now: this process may not live long."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def peak_bytes() -> int:
    """Return the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@dataclass
class Worker:
    """A child process that judges the cases from `first` to before `last`, started again behind one that it dies of."""

    command: Callable[[int, int, Path], Sequence[str]]
    first: int
    last: int
    folder: Path
    hangs_after_seconds: float = HANGS_AFTER_SECONDS

    def __post_init__(self) -> None:
        self.findings: list[Finding] = []
        self.tallies: list[Tally] = []
        self._start(self.first)

    def _start(self, number: int) -> None:
        self._place = self.folder / f"at-{self.first}"
        self._place.write_bytes(struct.pack("<q", number))
        self._output = open(self.folder / f"out-{self.first}", "w+")  # noqa: SIM115 - as long as the process
        self._errors = open(self.folder / f"err-{self.first}", "a")  # noqa: SIM115
        self._process = subprocess.Popen(
            self.command(number, self.last, self._place), stdout=self._output, stderr=self._errors
        )
        self._seen, self._seen_at = -1, time.monotonic()

    def is_done(self) -> bool:
        """Return whether all cases were judged; call it now and then."""
        number = struct.unpack("<q", self._place.read_bytes())[0]
        if number != self._seen:
            self._seen, self._seen_at = number, time.monotonic()
        code = self._process.poll()
        if code is None:
            if time.monotonic() - self._seen_at < self.hangs_after_seconds:
                return False
            self._process.kill()
            self._process.wait()
        self._collect()
        if code == 0:
            return True
        what = (
            f"took more than {self.hangs_after_seconds:g} s"
            if code is None
            else f"ended the process with {code}, by this case or one before it"
        )
        self.findings.append(Finding(number, "", what))
        if number + 1 >= self.last:
            return True
        self._start(number + 1)
        return False

    def _collect(self) -> None:
        self._output.seek(0)
        for line in self._output:
            values = json.loads(line)
            if "what" in values:
                self.findings.append(Finding(**values))
            else:
                self.tallies.append(Tally(**values))
        self._output.close()
        self._errors.close()
