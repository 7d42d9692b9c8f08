"""Which backends there are; each is imported only when asked for."""

from __future__ import annotations

import importlib

from linne.bundle import Bundle
from linne.errors import LinneError, suggest
from linne.inference.backends.base import Backend

BACKENDS = {
    "torch": "linne.inference.backends.pytorch:TorchBackend",
    "onnxruntime": "linne.inference.backends.onnx_runtime:OnnxRuntimeBackend",
    "null": "linne.inference.backends.null:NullBackend",
}
NEVER_AUTO = ("null",)
"""Only by name: it answers for no trained network."""


def load_backend(name: str) -> type[Backend]:
    """Return the class of backend `name`.

    Raises:
        LinneError: no such backend, with the nearest match.
    """
    if name not in BACKENDS:
        raise LinneError(f"no backend `{name}`", hint=suggest(name, BACKENDS) or f"use auto or {', '.join(BACKENDS)}")
    module, _, attribute = BACKENDS[name].partition(":")
    backend: type[Backend] = getattr(importlib.import_module(module), attribute)
    return backend


def choose_backend(name: str, bundle: Bundle) -> tuple[str, type[Backend], str]:
    """Return the backend for `bundle`, `auto` or by name: its name, its class, and why this one.

    Raises:
        LinneError: no such backend, or it (for `auto`: each of them) cannot run the bundle here, with the reason.
    """
    if name != "auto":
        backend = load_backend(name)
        reason = backend.why_unavailable()
        if reason is not None:
            raise LinneError(f"backend `{name}` cannot be used: {reason}")
        reason = backend.why_not(bundle)
        if reason is not None:
            raise LinneError(
                f"backend `{name}` cannot run bundle `{bundle.path}`: {reason}", hint="`auto` takes one that can"
            )
        return name, backend, "asked for"
    passed_over: list[str] = []
    for candidate in BACKENDS:
        if candidate in NEVER_AUTO:
            continue
        backend = load_backend(candidate)
        if backend.why_not(bundle) is not None:
            continue
        reason = backend.why_unavailable()
        if reason is None:
            return candidate, backend, "; ".join([*passed_over, "first backend that can be used here"])
        passed_over.append(f"not {candidate}: {reason}")
    raise LinneError(f"no backend can be used here: {'; '.join(passed_over)}")
