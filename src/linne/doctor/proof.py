"""The proof that a device computes: a child process a dtype computes and compares, and its verdict in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from linne.child import Heard, first_event, listen
from linne.doctor import advice
from linne.doctor.gpu import AMD, INTEL, NVIDIA, Gpu
from linne.doctor.report import Check, Section, Status
from linne.doctor.wheel import architecture_checks

if TYPE_CHECKING:
    from linne.doctor.machine import Machine

Verdict = Literal["works", "slow", "wrong", "fails", "absent", "unknown"]
TITLE = "Proof: computed and compared"
_ENDS = "what ends this child ends a training as well"

_LIMIT_S = 60.0
_ACCELERATOR_LIMIT_S = 240.0
"""The first run on a GPU may compile its kernels: MIOpen takes a minute or two."""
_SLOW_SHARE = 0.2
"""Libraries reach 50 to 90 % of a peak with large matrices; a fifth means a wrong kernel, clock or power limit."""
_BY_HAND = "to see it alone: python -m linne.doctor.battery"
_UPDATE = "update the driver and PyTorch"
_IN_FP32 = f"train with `--set device.precision=fp32`, or {_UPDATE}"
_LONGER = "training takes longer than it has to"
_SLOW_COPY_GBS = 1.0
"""A quarter of PCI Express 3.0 with four lanes, the slowest link that a GPU is sold with."""

_DTYPES: Mapping[str, tuple[str, ...]] = {"cpu": ("fp32", "bf16"), "dml": ("fp32",)}
"""CPUs multiply fp16 a hundred times slower than fp32 where they do at all, and DirectML trains in fp32 alone."""

PEAKS_TFLOPS: Mapping[str, Mapping[str, float]] = {"NVIDIA H200": {"fp32": 66.9, "bf16": 989.0, "fp16": 989.0}}
"""Dense peaks, for names as torch gives them (with anything after). H200 SXM: half of the 1,979 with sparsity that
NVIDIA's product page gives, https://www.nvidia.com/en-us/data-center/h200/, as cited on 2026-11-21; fp32 without
TF32. Only cards whose figures were looked up are here: for others the rate is shown without a verdict."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What came of one device and dtype, and a clause that says so."""

    verdict: Verdict
    text: str
    fix: str = ""
    why: str = ""


def proof_section(
    machine: Machine,
    devices: Sequence[str],
    quick: bool,
    gpus: Sequence[Gpu] = (),
    *,
    command: Sequence[str] | None = None,
    limit_s: float | None = None,
) -> Section:
    """Return a check for each device and dtype; a child that crashes, hangs or talks nonsense is a finding.

    `devices` are what `--device` takes, `auto` too. `quick` starts nothing. `gpus` are those that were found, whose
    architecture is held against the wheel's list. `command` stands in for the battery in tests, and `limit_s` is the
    time for one dtype (60 s on the CPU, 240 s elsewhere).
    """
    if quick:
        text = "not tried, because of `--quick`"
        fix = "linne doctor"
        return Section(title=TITLE, checks=tuple(Check(name=d, status="note", found=text, fix=fix) for d in devices))
    command = machine.child("linne.doctor.battery") if command is None else command
    checks: list[Check] = []
    children: list[Heard] = []
    for device in dict.fromkeys(devices):
        for dtype, heard in _dtypes(machine, device, command, limit_s):
            children.append(heard)
            checks.append(_check(machine, gpus, (device, dtype), heard))
    return Section(title=TITLE, checks=(*architecture_checks(machine, children, gpus), *checks))


def _dtypes(
    machine: Machine, device: str, command: Sequence[str], limit_s: float | None
) -> Iterator[tuple[str, Heard]]:
    """Yield what each dtype's child reported, fp32 first: a device that is absent, or hangs, is not asked for more."""
    limit = limit_s or (_LIMIT_S if device == "cpu" else _ACCELERATOR_LIMIT_S)
    dtypes: tuple[str, ...] = ("fp32",)
    for number in range(3):
        if number >= len(dtypes):
            break
        dtype = dtypes[number]
        heard = listen((*command, "--device", device, "--dtype", dtype), environ=machine.environ, limit_s=limit)
        yield dtype, heard
        there = first_event(heard, "device")
        if there is None or heard.end in ("hung", "flooded"):
            break
        dtypes = _DTYPES.get(str(there.get("kind")), ("fp32", "bf16", "fp16"))


def judge(heard: Heard, dtype: str) -> Finding:
    """Return the verdict on what a child reported and how it ended."""
    absent, there = first_event(heard, "absent"), first_event(heard, "device")
    if absent is not None:
        why = "nothing that is asked of a device is done on the CPU instead"
        reason = absent.get("reason", "no reason given")
        return Finding(verdict="absent", text=f"absent: {reason}", fix=_absent_fix(), why=why)
    if there is None:
        return _never_began(heard)
    results = [event for event in heard.events if event["linne"] == "result"]
    wrong = [event for event in results if event.get("ok") is not True]
    computed = [event for event in wrong if not event.get("raised")]
    if computed:
        return Finding(
            verdict="wrong",
            text=f"wrong: {_list(computed)} {_differences(computed[0])}",
            fix=f"do not train with it; {_UPDATE}" if dtype == "fp32" else _IN_FP32,
            why="training would learn from wrong numbers, and no error would say so",
        )
    if heard.end != "done" or first_event(heard, "end") is None:
        return _stopped(heard)
    if wrong:
        fix = _UPDATE if dtype == "fp32" else _IN_FP32
        more = f", as do {len(wrong) - 1} more" if len(wrong) > 1 else ""
        text = f"fails: {wrong[0].get('operation')} raises `{wrong[0].get('raised')}`{more}"
        return Finding(verdict="fails", text=text, fix=fix, why="a model that needs it cannot be trained in it")
    if not results:
        return Finding(verdict="unknown", text="unknown: the child computed nothing", fix=_BY_HAND)
    return _how_fast(heard, there, results, dtype)


def _how_fast(heard: Heard, there: Mapping[str, Any], results: list[Mapping[str, Any]], dtype: str) -> Finding:
    closest = max(_share(event) for event in results)
    text = f"all {len(results)} operations agree with float64 (largest error: {closest:.0%} of what is allowed)"
    rates = first_event(heard, "rates") or {}
    tflops, copies = _number(rates.get("matrix_tflops")), rates.get("copy_gbs")
    to_device = _number(copies.get("to")) if isinstance(copies, Mapping) else None
    peak = next((by[dtype] for name, by in PEAKS_TFLOPS.items() if str(there.get("name")).startswith(name)), None)
    if tflops is not None:
        text += f"; matrix product {_three(tflops)} TFLOP/s" + (f" of {peak:g}" if peak else "")
    if isinstance(copies, Mapping):
        text += "".join(
            f", {words} {_three(rate)} GB/s" for key, words in _COPIES if (rate := _number(copies.get(key)))
        )
    left = [event for event in results if _fell_back(event)]
    if left:
        text = f"slow: {_list(left)} fell back to the CPU; {text}"
        only_adamw = [event.get("operation") for event in left] == ["AdamW"]
        fix = "train with `--set optim.optimizer=sgd`" if only_adamw else "choose a model without these operations"
        return Finding(verdict="slow", text=text, fix=fix, why="each such operation waits for copies both ways")
    if tflops is not None and peak and tflops < _SLOW_SHARE * peak:
        fix = "see that nothing else uses the device, and its power and temperature limits"
        text = f"slow: {tflops / peak:.0%} of its peak in matrix products; {text}"
        return Finding(verdict="slow", text=text, fix=fix, why=_LONGER)
    if to_device is not None and to_device < _SLOW_COPY_GBS:
        fix = "see the speed and width of its slot, on Linux: sudo lspci -vv | grep -E 'VGA|3D|Display|LnkSta:'"
        text = f"slow: less than {_SLOW_COPY_GBS:g} GB/s reach it; {text}"
        return Finding(verdict="slow", text=text, fix=fix, why=_LONGER)
    return Finding(verdict="works", text=f"works on {there.get('name')}: {text}")


_COPIES = (("to", "copies to it"), ("back", "back"), ("within", "within its memory"))


def _never_began(heard: Heard) -> Finding:
    if "No module named 'torch'" in heard.said:
        return Finding(verdict="unknown", text="not tried: PyTorch is not installed")
    if heard.end in ("crashed", "hung", "flooded"):
        return _stopped(heard)
    said = f", `{heard.said}`" if heard.said else ""
    text = f"fails: the child reported nothing ({heard.how}{said})"
    return Finding(verdict="fails", text=text, fix=_BY_HAND, why=_ENDS)


def _stopped(heard: Heard) -> Finding:
    """Return the finding on a child that did not come to its end, with the operation that it was in."""
    begun = _last(heard, "starts")
    where = f"in {begun.get('operation')}" if begun is not None else "before it reached the device"
    what = {"hung": "hangs", "crashed": "crashes"}.get(heard.end, "stops")
    said = f", `{heard.said}`" if heard.said else ""
    text = f"fails: {what} {where} ({heard.how}{said})"
    return Finding(verdict="fails", text=text, fix=f"{_UPDATE}\n{_BY_HAND}", why=_ENDS)


def _absent_fix() -> str:
    return "install the driver and the PyTorch build for it as the checks above say, or use `--device cpu`"


_STATUS: Mapping[Verdict, Status] = {
    "works": "good",
    "slow": "warning",
    "wrong": "bad",
    "fails": "bad",
    "absent": "bad",
    "unknown": "unknown",
}


def _check(machine: Machine, gpus: Sequence[Gpu], asked: tuple[str, str], heard: Heard) -> Check:
    """Return the check; a narrow dtype that a device lacks is a warning, since fp32 trains everywhere."""
    device, dtype = asked
    finding = judge(heard, dtype)
    status = _STATUS[finding.verdict]
    lacking = dtype != "fp32" and finding.verdict == "fails" and heard.end == "done"
    there = first_event(heard, "device") or {}
    fix = f"{finding.fix} --device {device} --dtype {dtype}" if finding.fix.endswith(_BY_HAND) else finding.fix
    fix = fix.replace(_UPDATE, _update(machine, gpus, there.get("kind")))
    return Check(
        name=f"{device} {dtype}",
        status="warning" if lacking else status,
        found=finding.text,
        why=finding.why,
        fix=fix,
        details={
            "verdict": finding.verdict,
            "device": device,
            "dtype": dtype,
            "kind": there.get("kind"),
            "hardware": there.get("name"),
            "address": there.get("address"),
            "torch_device": there.get("torch_device"),
            "torch": there.get("torch"),
            "architecture": there.get("architecture"),
            "tf32": (first_event(heard, "wheel") or {}).get("tf32"),
            "end": heard.end,
            "how": heard.how,
            "said": heard.said,
            "seconds": round(heard.seconds, 3),
            "operations": [
                {key: value for key, value in event.items() if key != "linne"}
                for event in heard.events
                if event["linne"] == "result"
            ],
            "rates": {key: value for key, value in (first_event(heard, "rates") or {}).items() if key != "linne"},
        },
    )


def _update(machine: Machine, gpus: Sequence[Gpu], kind: object) -> str:
    """Return how the driver and PyTorch are updated, with the commands for the GPU of this kind where it is known."""
    vendor = {"cuda": NVIDIA, "rocm": AMD, "xpu": INTEL}.get(str(kind))
    gpu = next((gpu for gpu in gpus if gpu.vendor == vendor), None)
    build = advice.install_torch(machine, gpu, replace=True) if gpu else ""
    return f"update the driver, and PyTorch:\n{build}" if build else _UPDATE


def _differences(event: Mapping[str, Any]) -> str:
    error, tolerance = _number(event.get("error")), _number(event.get("tolerance"))
    if event.get("message") or error is None or tolerance is None:
        return f"({event.get('message') or 'no number'})"
    return f"(off by {error:.2g} of the largest value, {tolerance:.2g} allowed)"


def _list(events: Sequence[Mapping[str, Any]]) -> str:
    names = [str(event.get("operation")) for event in events]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _share(event: Mapping[str, Any]) -> float:
    error, tolerance = _number(event.get("error")), _number(event.get("tolerance"))
    return error / tolerance if error is not None and tolerance else 0.0


def _fell_back(event: Mapping[str, Any]) -> bool:
    """Return whether the operation warned of it, in the words of torch's DirectML, MPS and XPU backends."""
    warned = event.get("warnings")
    texts = [str(text).lower() for text in warned] if isinstance(warned, list) else []
    return any("fall back" in text or "fallback" in text or "falling back" in text for text in texts)


def _three(rate: float) -> str:
    """Return a rate with three digits that count: `3,810`, `55.3`, `0.0877`."""
    return f"{float(f'{rate:.3g}'):,g}"


def _number(value: object) -> float | None:
    # JSON has whole numbers that no float holds, and NaN.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1e300 < value < 1e300:
        return None
    return float(value)


def _last(heard: Heard, name: str) -> Mapping[str, Any] | None:
    return next((event for event in reversed(heard.events) if event["linne"] == name), None)
