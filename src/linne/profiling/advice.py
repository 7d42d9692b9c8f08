"""What would make a step faster, by what its trace shows: the rules, from plain numbers to words.

A rule speaks only where its number is large enough to matter, and says the number. What is at stake is the share of a
step that could go at most; the largest come first.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from linne.profiling.summary import TraceSummary, milliseconds, percent, wrapped

MOST = 3
"""Pieces of advice: one changes one thing at a time."""
WAITING = COPYING = 0.10
"""Shares of a step from which a rule speaks; below, what could be gained is lost in the noise between two runs."""
OPTIMISER, PREPARING, DECODING = 0.20, 0.25, 0.40
ONE_OPERATOR = 0.30
IDLE = 0.25
"""Share of a step in which the device has nothing to do."""
SMALL_KERNEL, MANY_KERNELS = 20e-6, 100
"""Seconds below which starting a kernel takes about as long as the kernel, and how many a step make that matter."""
WORTH_TRYING = 1.15
"""Times as fast: from which a setting that was tried is worth a word."""
LONG_STEP = 0.1
"""Seconds from which a step on one thread gains from a second one (docs/benchmarks/training-step.md, "Threads")."""
NUM_LARGEST_BATCH = 1024
"""Images a batch above which a larger one is no advice: it learns less from each image."""

_CONVOLUTION = re.compile(r"conv(olution|\d?d|_)", re.IGNORECASE)
_ARITHMETIC = re.compile(r"conv|mm$|addmm|matmul|linear|attention|gemm|CompiledF|triton", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to change."""

    text: str
    """What was seen, with its number."""
    change: str | None
    """What to type, or None where no option changes it."""
    stake: float
    """The share of a step that could go, at most."""


def advise(summary: TraceSummary) -> tuple[Advice, ...]:
    """Return the few things that could gain most, none where nothing stands out."""
    found = [advice for rule in RULES for advice in [rule(summary)] if advice is not None]
    return tuple(sorted(found, key=lambda advice: -advice.stake)[:MOST])


def advice_text(summary: TraceSummary) -> str:
    """Return the advice as a terminal shows it; where nothing stands out, that."""
    found = advise(summary)
    if not found:
        return wrapped(_nothing(summary), 0) + "\n"
    lines = ["what could make it faster:"]
    for number, advice in enumerate(found, 1):
        lines.append(wrapped(f"{number}. {advice.text}", 3))
        if advice.change is not None:
            lines.append(f"   try: {advice.change}")
    return "\n".join(lines) + "\n"


def _nothing(summary: TraceSummary) -> str:
    own = percent(summary.share("forward", "backward"))
    unit = "step" if summary.traced == "train" else "batch"
    said = f"nothing stands out: {own} of a {unit} is the network's own arithmetic"
    if summary.traced == "train":
        return f"{said}; what is left is a smaller network (`--model`) or smaller images (`data.height`, `data.width`)"
    return f"{said}; what is left is a smaller network"


def _waiting(summary: TraceSummary) -> Advice | None:
    """More threads, pixels kept in memory, or smaller files, in this order."""
    share, settings = summary.share("wait", "decode"), summary.settings
    if summary.traced != "train" or share < WAITING:
        return None
    workers, cores = settings["data.num_workers"], summary.device.num_cores
    seen = f"{percent(share)} of each step waits for data, with {_threads(workers)} on {cores} cores to decode it ahead"
    if workers < cores:
        return Advice(seen, f"--set data.num_workers={cores}", share)
    if summary.resident_bytes is not None:
        kept = f"{summary.resident_bytes / 2**20:,.0f} MiB of decoded pixels would fit into memory"
        return Advice(f"{seen}; {kept}", "--set data.loader=resident", share)
    size = f"linne data pack SOURCE packed/ --size {max(summary.size)}"
    return Advice(f"{seen}; resized once, images decode faster", size, share)


def _threads(count: int) -> str:
    return f"{count or 'no'} thread{'s' * (count != 1)}"


def _decoding(summary: TraceSummary) -> Advice | None:
    share = summary.share("decode")
    if summary.traced == "train" or share < DECODING:
        return None
    height, width = summary.size
    seen = (
        f"{percent(share)} of each batch is reading and decoding, for {height} x {width} pixels that the network sees"
    )
    if summary.traced == "evaluate":
        return Advice(
            f"{seen}; resized once, images decode faster",
            f"linne data pack SOURCE packed/ --size {max(height, width)}",
            share,
        )
    return Advice(f"{seen}; files nearer to that size are decoded faster", None, share)


def _copying(summary: TraceSummary) -> Advice | None:
    share, settings = summary.share("copy", "back"), summary.settings
    if not summary.device.is_accelerator or share < COPYING:
        return None
    pinned = summary.traced == "train" and summary.device.pins_memory
    memory = "" if pinned else ", from memory that is not page-locked"
    seen = (
        f"{percent(share)} of the time is copying: {summary.copied_bytes / 1e6:,.1f} MB to the device each time{memory}"
    )
    if settings.get("data.loader") == "streaming" and summary.resident_bytes is not None:
        return Advice(seen, "--set data.loader=resident", share)
    return Advice(seen, None, share)


def _precision(summary: TraceSummary) -> Advice | None:
    """Another arithmetic, where it was tried and was faster."""
    return _tried(summary, "device.precision", "with")


def _layout(summary: TraceSummary) -> Advice | None:
    """Another layout of images and weights, where it was tried and was faster."""
    share = sum(operator.share for operator in summary.operators if _CONVOLUTION.search(operator.name))
    return _tried(summary, "device.channels_last", f"{percent(share)} of the operators' time is convolutions; with")


def _tried(summary: TraceSummary, path: str, seen: str) -> Advice | None:
    found = next(((typed, gain) for typed, gain in summary.trials.items() if typed.startswith(f"{path}=")), None)
    if found is None or found[1] < WORTH_TRYING:
        return None
    typed, gain = found
    return Advice(
        f"{seen} {typed} steps were {gain:.1f} times as fast, tried in turns with these", f"--set {typed}", 1 - 1 / gain
    )


def _idle(summary: TraceSummary) -> Advice | None:
    """A device that waits for the program, not for data: too many kernels that are too small."""
    if summary.device_seconds is None or summary.num_kernels is None:
        return None
    idle = max(1 - summary.device_seconds / summary.seconds, 0.0)
    waits = summary.share("wait", "decode")
    each = summary.device_seconds / max(summary.num_kernels, 1)
    if idle - waits < IDLE or summary.num_kernels < MANY_KERNELS or each > SMALL_KERNEL:
        return None
    seen = (
        f"{summary.device.address} is idle for {percent(idle)} of the time: {summary.num_kernels:,.0f} kernels of "
        f"{1e6 * each:.0f} us each are done before the next is started"
    )
    if summary.device.compiles and summary.settings.get("device.compile") is False:
        return Advice(seen, "--set device.compile=true", idle - waits)
    return Advice(seen, _larger_batch(summary), idle - waits)


def _optimiser(summary: TraceSummary) -> Advice | None:
    share, change = summary.share("optimiser"), _larger_batch(summary)
    if share < OPTIMISER or change is None:
        return None
    seen = f"{percent(share)} of each step updates the weights, which takes as long however many images a batch has"
    return Advice(seen, change, share / 2)


def _larger_batch(summary: TraceSummary) -> str | None:
    size = summary.settings.get("data.batch_size", NUM_LARGEST_BATCH)
    return f"--batch-size {2 * size}" if 2 * size <= NUM_LARGEST_BATCH else None


def _preparing(summary: TraceSummary) -> Advice | None:
    share = summary.share("prepare")
    active = [path for path, value in summary.settings.items() if path.startswith("augment.") and value]
    if summary.traced != "train" or share < PREPARING or not active:
        return None
    listed = ", ".join(path.removeprefix("augment.") for path in active)
    dearest = next((path for path in DEAR if path in active), active[0])
    off = "false" if summary.settings[dearest] is True else "none"
    return Advice(f"{percent(share)} of each step augments images ({listed})", f"--set {dearest}={off}", share)


DEAR = ("augment.policy", "augment.hue", "augment.rotate_degrees", "augment.contrast", "augment.saturation")
"""What takes longest first (docs/concepts/augmentation.md)."""


def _fallback(summary: TraceSummary) -> Advice | None:
    if not summary.fallbacks:
        return None
    name, _ = max(summary.fallbacks.items(), key=lambda item: item[1])
    calls = sum(summary.fallbacks.values())
    more = f" and {len(summary.fallbacks) - 1} more" if len(summary.fallbacks) > 1 else ""
    seen = f"{summary.device.address} leaves `{name}`{more} to the CPU, {calls:,.1f} calls a step"
    by_optimizer = "lerp" in name and summary.settings.get("optim.optimizer", "sgd") != "sgd"
    change = "--set optim.optimizer=sgd" if by_optimizer else "another --model; --require-accelerator refuses such"
    return Advice(seen, change, 1.0)  # a fallback waits for the device twice: nobody can say what is at stake


def _one_operator(summary: TraceSummary) -> Advice | None:
    """An operator that is not the network's arithmetic."""
    first = next((operator for operator in summary.operators if not _ARITHMETIC.search(operator.name)), None)
    if first is None or first.share < ONE_OPERATOR:
        return None
    seen = f"{percent(first.share)} of the operators' time is `{first.name}`, no convolution and no product"
    return Advice(f"{seen}; trace.json shows who calls it", None, first.share / 2)


def _one_thread(summary: TraceSummary) -> Advice | None:
    device, threads = summary.device, summary.settings.get("device.num_threads")
    share = summary.share("forward", "backward")
    if device.is_accelerator or threads is None or threads >= device.num_cores or summary.seconds < LONG_STEP:
        return None
    seen = (
        f"{percent(share)} of a step of {milliseconds(summary.seconds)} computes with {_threads(threads)} on "
        f"{device.num_cores} cores"
    )
    return Advice(seen, f"--set device.num_threads={device.num_cores}", share * (1 - threads / device.num_cores))


RULES: tuple[Callable[[TraceSummary], Advice | None], ...] = (
    _waiting,
    _decoding,
    _copying,
    _precision,
    _layout,
    _idle,
    _optimiser,
    _preparing,
    _fallback,
    _one_operator,
    _one_thread,
)
