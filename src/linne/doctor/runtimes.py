"""The inference runtimes: which provider of ONNX Runtime really computes here, each asked in a child of its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from linne.doctor.child import Heard, listen
from linne.doctor.report import Check, Section, Status
from linne.doctor.runtime_probe import CPU, is_right

if TYPE_CHECKING:
    from linne.doctor.machine import Machine

PROBE = (sys.executable, "-m", "linne.doctor.runtime_probe")
TITLE = "Inference runtimes"
WHY = "ONNX Runtime lists what it was built with, and computes on the CPU in place of what does not load"
_NAME = "ONNX Runtime"
_FIX = "use another provider, or install the libraries that this one needs"
_LIMIT_S = 60.0
_REMOTE = ("AzureExecutionProvider",)
"""Sends the work to a server: there is nothing to open here, and the doctor uses no network."""


def runtimes_section(machine: Machine, *, command: Sequence[str] = PROBE, limit_s: float = _LIMIT_S) -> Section:
    """Return a check of ONNX Runtime and of each provider that it lists; `limit_s` is for one of them."""
    heard = listen(command, environ=machine.environ, limit_s=limit_s)
    listed = _event(heard, "runtime")
    if listed is None:
        return Section(title=TITLE, checks=(_no_runtime(heard),))
    names = listed.get("providers")
    providers = [str(name) for name in names] if isinstance(names, list) else []
    found = f"{listed.get('version')}, built with {', '.join(map(_short, providers)) or 'no provider'}"
    facts = {"version": listed.get("version"), "providers": providers}
    checks = [Check(name=_NAME, status="good" if providers else "bad", found=found, why=WHY, details=facts)]
    for provider in providers:
        if provider not in _REMOTE:
            words = (*command, "--provider", provider)
            checks.append(judge(provider, listen(words, environ=machine.environ, limit_s=limit_s)))
    return Section(title=TITLE, checks=tuple(checks))


def judge(provider: str, heard: Heard) -> Check:
    """Return the check of one provider: it computes all, leaves some to the CPU, is replaced, fails or is wrong."""
    opened = _event(heard, "session")
    name = f"{_NAME}: {_short(provider)}"
    facts = {"provider": provider, "end": heard.end, "how": heard.how, "said": heard.said, **(opened or {})}
    facts.pop("linne", None)
    # A provider that was listed but never installed whole is no fault of the machine; the CPU's is.
    failing: Status = "bad" if provider == CPU else "warning"
    if opened is None:
        said = f", `{heard.said}`" if heard.said else ""
        text = f"does not open: the child ended without a word ({heard.how}{said})"
        return Check(name=name, status=failing, found=text, why=WHY, fix=_FIX, details=facts)
    computes, raised = opened.get("computes"), opened.get("raised")
    first = str(computes[0]) if isinstance(computes, list) and computes else None
    status, fix = failing, _FIX
    if first is None or opened.get("result") is None:
        text = f"does not run: `{raised}`"
    elif first != provider:
        text = f"does not load; {_short(first)} computes in its place"
    elif not is_right(opened.get("result")):
        status, text = "bad", f"computes wrong: {opened.get('result')}, not [8, 0]"
        fix = "do not serve with it; update ONNX Runtime and the driver"
    elif opened.get("strict") is not True:
        text = f"loads, but leaves operations to the CPU: `{raised}`"
    else:
        status, text, fix = "good", "computes, and right", ""
    return Check(name=name, status=status, found=text, why=WHY, fix=fix, details=facts)


def _no_runtime(heard: Heard) -> Check:
    missing, broken = _event(heard, "missing"), _event(heard, "broken")
    if missing is not None:
        found, fix = "not installed; PyTorch serves without it", "pip install onnxruntime"
        return Check(name=_NAME, status="note", found=found, why="it serves exported models faster on a CPU", fix=fix)
    said = broken.get("reason") if broken is not None else f"{heard.how} {heard.said}".strip()
    fix = "pip uninstall onnxruntime onnxruntime-gpu\npip install onnxruntime"
    facts = {"end": heard.end, "how": heard.how, "said": heard.said}
    return Check(name=_NAME, status="bad", found=f"cannot be imported: `{said}`", why=WHY, fix=fix, details=facts)


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider")


def _event(heard: Heard, name: str) -> Mapping[str, Any] | None:
    return next((event for event in heard.events if event["linne"] == name), None)
