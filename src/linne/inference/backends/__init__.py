"""Which backends there are; each is imported only when asked for."""

from __future__ import annotations

import importlib

from linne.bundle import Bundle
from linne.errors import LinneError, suggest
from linne.exports import Precision
from linne.host import accelerator_files
from linne.inference.backends.base import Backend

BACKENDS = {
    "onnxruntime": "linne.inference.backends.onnx_runtime:OnnxRuntimeBackend",
    "torch": "linne.inference.backends.pytorch:TorchBackend",
    "openvino": "linne.inference.backends.openvino:OpenVinoBackend",
    "migraphx": "linne.inference.backends.migraphx:MigraphxBackend",
    "tensorrt": "linne.inference.backends.tensorrt:TensorRtBackend",
    "tflite": "linne.inference.backends.tflite:TfliteBackend",
    "null": "linne.inference.backends.null:NullBackend",
}
"""In the order in which `auto` tries them on a CPU. Where there is an accelerator torch is first, which finds it.

OpenVINO is for what nothing else can run: it reads the graphs that ONNX Runtime does, in fp32 as quickly, so that an
earlier place would only let the last digits of an answer hang on what else is installed.
"""
NEVER_AUTO = ("null",)
"""Only by name: it answers for no trained network."""


def load_backend(name: str) -> type[Backend]:
    """Return the class of backend `name`.

    Raises:
        LinneError: no such backend, with the nearest match.
    """
    if name not in BACKENDS:
        offered = [each for each in BACKENDS if each not in NEVER_AUTO]
        raise LinneError(f"no backend `{name}`", hint=suggest(name, offered) or f"use auto or {', '.join(offered)}")
    module, _, attribute = BACKENDS[name].partition(":")
    backend: type[Backend] = getattr(importlib.import_module(module), attribute)
    return backend


def choose_backend(
    name: str, bundle: Bundle, precision: Precision = "fp32", device: str = "auto"
) -> tuple[str, type[Backend], str]:
    """Return the backend for `bundle` in `precision`, `auto` or by name: its name, its class, and why this one.

    Raises:
        LinneError: no such backend, or it (for `auto`: each of them) cannot run the bundle here, with the reason.
    """
    if name != "auto":
        backend = load_backend(name)
        reason = backend.why_unavailable()
        if reason is not None:
            raise LinneError(f"backend `{name}` cannot be used: {reason}")
        reason = backend.why_not(bundle, precision)
        if reason is not None:
            raise LinneError(
                f"backend `{name}` cannot run bundle `{bundle.path}`: {reason}", hint="`auto` takes one that can"
            )
        return name, backend, "asked for"
    passed_over: list[str] = []
    order, why = _order(device)
    for candidate in order:
        backend = load_backend(candidate)
        if backend.why_not(bundle, precision) is not None or precision not in backend.PRECISIONS:
            continue
        reason = backend.why_unavailable()
        if reason is None:
            return candidate, backend, "; ".join([*passed_over, why])
        passed_over.append(f"not {candidate}: {reason}")
    if not passed_over:
        passed_over.append(f"nothing in it computes in {precision}")
    raise LinneError(f"no backend can be used here: {'; '.join(passed_over)}")


def _order(device: str) -> tuple[list[str], str]:
    """Return the backends for `auto`, the best first, and why in this order; without importing a framework."""
    usual = [name for name in BACKENDS if name not in NEVER_AUTO]
    if device == "cpu":
        return usual, "first backend that can be used here"
    if device == "auto":
        found = accelerator_files()
        if not found:
            return usual, "first backend that can be used here"
        device = f"`{found[0]}`"
    return ["torch", *(name for name in usual if name != "torch")], f"first backend that can be used for {device}"
