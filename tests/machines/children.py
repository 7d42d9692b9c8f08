"""What the doctor's children report on machines that are not here, with the numbers that such hardware gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from linne.child import report_line
from machines.build import Answer

OPERATIONS = (
    "copy both ways",
    "convolution",
    "depthwise convolution",
    "matrix product",
    "batch norm",
    "layer norm",
    "max pooling",
    "mean pooling",
    "softmax",
    "attention",
    "cross entropy",
    "SGD",
    "AdamW",
    "training step",
)
TOLERANCES = {"fp32": 5e-5, "bf16": 3.1e-2, "fp16": 4e-3}
ERRORS = {"fp32": 6.1e-6, "bf16": 1.0e-2, "fp16": 1.2e-3}
"""The largest of a sound device."""


def proofs(asked: str, **by_dtype: Answer) -> dict[str, Answer]:
    """Return the answers of the battery for a device as it was asked for."""
    return {f"-m linne.doctor.battery --device {asked} --dtype {dtype}": answer for dtype, answer in by_dtype.items()}


def proof(
    dtype: str,
    device: Mapping[str, Any],
    *,
    tflops: float = 0.0,
    copy_gbs: Mapping[str, float] | None = None,
    changed: Mapping[str, Mapping[str, Any]] | None = None,
    stops_in: str = "",
    end: Answer | None = None,
    architectures: Sequence[str] = (),
) -> Answer:
    """Return what the battery reports of a device: all operations right but those `changed`, up to `stops_in`.

    `end` says how it ends then: its code, its signal, its last words. `architectures` are what the wheel has code for.
    """
    wheel = {"torch": device["torch"], "architectures": list(architectures)}
    lines = [report_line("wheel", **wheel), report_line("device", **device)]
    for operation in OPERATIONS:
        if dtype != "fp32" and operation in ("SGD", "AdamW"):
            continue
        lines.append(report_line("starts", operation=operation))
        if operation == stops_in:
            return Answer(stdout="".join(lines), **({} if end is None else _ending(end)))
        result = {
            "ok": True,
            "error": 0.0 if operation == "copy both ways" else ERRORS[dtype] / 2 ** (OPERATIONS.index(operation) % 5),
            "tolerance": 0.0 if operation == "copy both ways" else TOLERANCES[dtype],
            "message": "",
            "raised": "",
            "warnings": [],
            "seconds": 0.01,
        }
        lines.append(report_line("result", operation=operation, **(result | dict((changed or {}).get(operation, {})))))
    lines += [
        report_line("starts", operation="rates"),
        report_line("rates", matrix_tflops=tflops, copy_gbs=copy_gbs or {}),
    ]
    return Answer(stdout="".join([*lines, report_line("end")]))


def _ending(end: Answer) -> dict[str, Any]:
    return {"stderr": end.stderr, "code": end.code, "signal": end.signal, "hangs": end.hangs}


def cpu_proofs(torch: str) -> dict[str, Answer]:
    """Return the proofs of a machine whose torch finds nothing but the CPU."""
    device = {"kind": "cpu", "name": "CPU", "torch_device": "cpu", "torch": torch}
    within = {"within": 21.4}
    return proofs(
        "auto",
        fp32=proof("fp32", device, tflops=0.81, copy_gbs=within),
        bf16=proof("bf16", device, tflops=0.42, copy_gbs=within),
    )


def absent(reason: str) -> Answer:
    """Return what the battery says of a device that is not there."""
    return Answer(stdout=report_line("absent", reason=reason))


NO_TORCH = Answer(stderr="Traceback (most recent call last):\nModuleNotFoundError: No module named 'torch'\n", code=1)


PROBES = "-m linne.doctor.probe_onnx_runtime"
ABSENT = {"*": Answer(stdout=report_line("missing", reason="No module named 'it'"))}
"""Of all runtimes that a machine says nothing of."""


def onnxruntime(version: str, providers: Sequence[str], **sessions: Mapping[str, Any]) -> dict[str, Answer]:
    """Return the answers of ONNX Runtime: all providers compute but those whose `sessions` say otherwise."""
    names = [f"{name}ExecutionProvider" for name in providers]
    found = f"{version}, built with {', '.join(providers)}"
    own = "CPUExecutionProvider"
    listed = report_line("runtime", found=found, version=version, devices=names, own=own, providers=names)
    answers = {PROBES: Answer(stdout=listed + _session("CPU", own, {}))}
    for short, name in zip(providers, names, strict=True):
        if name != own:
            session = listed + _session(short, name, sessions.get(short, {}))
            answers[f"{PROBES} --device {name}"] = Answer(stdout=session)
    return answers | ABSENT


def _session(short: str, name: str, changed: Mapping[str, Any]) -> str:
    computes = [name] if short == "CPU" else [name, "CPUExecutionProvider"]
    facts = {"device": name, "raised": "", "computes": computes, "result": [8.0, 0.0], "expected": [8.0, 0.0]}
    return report_line("session", **(facts | {"provider": name, "strict": True} | dict(changed)))
