"""The proof that a device computes: a child process a dtype computes and compares, and its verdict in plain words."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from linne.doctor.child import Heard, first_event, listen
from linne.doctor.report import Check, Section, Status
from linne.doctor.wheel import architecture_checks

if TYPE_CHECKING:
    from linne.doctor.gpu import Gpu
    from linne.doctor.machine import Machine

Verdict = Literal["works", "slow", "wrong", "fails", "absent", "unknown"]
BATTERY = (sys.executable, "-m", "linne.doctor.battery")
TITLE = "Proof: computed and compared"
WHY = "a device that is listed may still crash, hang, compute wrong numbers or leave the work to the CPU"

_LIMIT_S = 60.0
_ACCELERATOR_LIMIT_S = 240.0
"""The first run on a GPU may compile its kernels: MIOpen takes a minute or two."""
_SLOW_SHARE = 0.2
"""Libraries reach 50 to 90 % of a peak with large matrices; a fifth means a wrong kernel, clock or power limit."""
_SLOW_COPY_GBS = 1.0
"""A quarter of PCI Express 3.0 with four lanes, the slowest link that a GPU is sold with."""

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


def proof_section(
    machine: Machine,
    devices: Sequence[str],
    quick: bool,
    gpus: Sequence[Gpu] = (),
    *,
    command: Sequence[str] = BATTERY,
    limit_s: float | None = None,
) -> Section:
    """Return a check for each device and dtype; a child that crashes, hangs or talks nonsense is a finding.

    `devices` are what `--device` takes, `auto` too. `quick` starts nothing. `gpus` are those that were found, whose
    architecture is held against the wheel's list. `command` is the battery, and `limit_s` the time for one dtype (60 s
    on the CPU, 240 s elsewhere).
    """
    if quick:
        text = "not tried, because of `--quick`"
        fix = "linne doctor"
        return Section(title=TITLE, checks=tuple(Check(name=d, status="note", found=text, fix=fix) for d in devices))
    checks: list[Check] = []
    children: list[Heard] = []
    for device in dict.fromkeys(devices):
        for dtype, heard in _dtypes(machine, device, command, limit_s):
            children.append(heard)
            checks.append(_check(device, dtype, heard, judge(heard, dtype)))
    return Section(title=TITLE, checks=(*architecture_checks(children, gpus, machine.environ), *checks))


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
        # CPUs multiply fp16 a hundred times slower than fp32 where they do at all, and nothing trains so.
        dtypes = ("fp32", "bf16") if there.get("kind") == "cpu" else ("fp32", "bf16", "fp16")


def judge(heard: Heard, dtype: str) -> Finding:
    """Return the verdict on what a child reported and how it ended."""
    absent, there = first_event(heard, "absent"), first_event(heard, "device")
    if absent is not None:
        return Finding(verdict="absent", text=f"absent: {absent.get('reason', 'no reason given')}", fix=_absent_fix())
    if there is None:
        return _never_began(heard)
    results = [event for event in heard.events if event["linne"] == "result"]
    wrong = [event for event in results if event.get("ok") is not True]
    computed = [event for event in wrong if not event.get("raised")]
    if computed:
        return Finding(
            verdict="wrong",
            text=f"wrong: {_list(computed)} {_differences(computed[0])}",
            fix="do not train with it; update the driver and PyTorch, then run `linne doctor` again",
        )
    if heard.end != "done" or first_event(heard, "end") is None:
        return _stopped(heard)
    if wrong:
        fix = "update PyTorch" if dtype == "fp32" else "train with `--set device.precision=fp32`"
        said = f"{wrong[0].get('operation')} says `{wrong[0].get('raised')}`"
        return Finding(verdict="fails", text=f"fails: {_list(wrong)} cannot be computed; {said}", fix=fix)
    if not results:
        return Finding(verdict="unknown", text="unknown: the child computed nothing", fix=_by_hand())
    return _how_fast(heard, there, results, dtype)


def _how_fast(heard: Heard, there: Mapping[str, Any], results: list[Mapping[str, Any]], dtype: str) -> Finding:
    closest = max(_share(event) for event in results)
    text = f"all {len(results)} operations agree with float64 (largest error: {closest:.0%} of what is allowed)"
    rates = first_event(heard, "rates") or {}
    tflops, copies = _number(rates.get("matrix_tflops")), rates.get("copy_gbs")
    to_device = _number(copies.get("to")) if isinstance(copies, Mapping) else None
    peak = next((by[dtype] for name, by in PEAKS_TFLOPS.items() if str(there.get("name")).startswith(name)), None)
    if tflops is not None:
        text += f"; matrix product {tflops:.3g} TFLOP/s" + (f" of {peak:g}" if peak else "")
    if isinstance(copies, Mapping):
        text += "".join(f", {words} {rate:.3g} GB/s" for key, words in _COPIES if (rate := _number(copies.get(key))))
    left = [event for event in results if _fell_back(event)]
    if left:
        text = f"slow: {_list(left)} fell back to the CPU; {text}"
        return Finding(verdict="slow", text=text, fix="update PyTorch, or choose a model without these operations")
    if tflops is not None and peak and tflops < _SLOW_SHARE * peak:
        fix = "see that nothing else uses the device, and its power and temperature limits"
        return Finding(verdict="slow", text=f"slow: {text}", fix=fix)
    if to_device is not None and to_device < _SLOW_COPY_GBS:
        return Finding(verdict="slow", text=f"slow: {text}", fix="see which PCI Express slot and lanes the device has")
    return Finding(verdict="works", text=f"works on {there.get('name')}: {text}")


_COPIES = (("to", "copies to it"), ("back", "back"), ("within", "within its memory"))


def _never_began(heard: Heard) -> Finding:
    if "No module named 'torch'" in heard.said:
        return Finding(verdict="unknown", text="not tried: PyTorch is not installed", fix='pip install "linne[train]"')
    if heard.end in ("crashed", "hung", "flooded"):
        return _stopped(heard)
    said = f", `{heard.said}`" if heard.said else ""
    return Finding(verdict="fails", text=f"fails: the child reported nothing ({heard.how}{said})", fix=_by_hand())


def _stopped(heard: Heard) -> Finding:
    """Return the finding on a child that did not come to its end, with the operation that it was in."""
    begun = _last(heard, "starts")
    where = f"in {begun.get('operation')}" if begun is not None else "before it reached the device"
    what = {"hung": "hangs", "crashed": "crashes"}.get(heard.end, "stops")
    said = f", `{heard.said}`" if heard.said else ""
    return Finding(verdict="fails", text=f"fails: {what} {where} ({heard.how}{said})", fix=_by_hand())


def _by_hand() -> str:
    return "python -m linne.doctor.battery"


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


def _check(device: str, dtype: str, heard: Heard, finding: Finding) -> Check:
    """Return the check; a narrow dtype that a device lacks is a warning, since fp32 trains everywhere."""
    status = _STATUS[finding.verdict]
    lacking = dtype != "fp32" and finding.verdict == "fails" and heard.end == "done"
    there = first_event(heard, "device") or {}
    fix = f"{finding.fix} --device {device} --dtype {dtype}" if finding.fix == _by_hand() else finding.fix
    return Check(
        name=f"{device} {dtype}",
        status="warning" if lacking else status,
        found=finding.text,
        why=WHY,
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


def _number(value: object) -> float | None:
    # JSON has whole numbers that no float holds, and NaN.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1e300 < value < 1e300:
        return None
    return float(value)


def _last(heard: Heard, name: str) -> Mapping[str, Any] | None:
    return next((event for event in reversed(heard.events) if event["linne"] == name), None)
