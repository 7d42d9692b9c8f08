"""The child that tries ONNX Runtime: `python -m linne.doctor.probe_onnx_runtime [--device PROVIDER]`.

ONNX Runtime lists the providers that it was built with, not those that run here, and opens a session on the CPU in
place of one that does not load. So each is asked alone, told to leave nothing to the CPU, and asked who it was.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from linne.child import said_of, say
from linne.doctor.probe import asked_device, load, try_device
from linne.doctor.tiny_model import as_numbers, tiny_input, tiny_model
from linne.graphs.providers import CPU, load_libraries

REMOTE = ("AzureExecutionProvider",)
"""Sends the work to a server: there is nothing to open here, and the doctor uses no network."""


def main(words: Sequence[str] | None = None) -> int:
    """Report the providers that ONNX Runtime lists and what its CPU does, or what the provider asked for does."""
    device = asked_device(words, "open a tiny model with a provider of ONNX Runtime")
    runtime = load("onnxruntime")
    if runtime is None:
        return 0
    try:
        providers, version = [str(name) for name in runtime.get_available_providers()], str(runtime.__version__)
    except Exception as error:
        say("broken", reason=said_of(error))
        return 0
    devices = [name for name in providers if name not in REMOTE]
    own = CPU if CPU in devices else None
    names = [name.removesuffix("ExecutionProvider") for name in providers]
    found = f"{version}, built with {', '.join(names) or 'no provider'}"
    say("runtime", found=found, version=version, devices=devices, own=own, providers=providers)
    provider = device or own
    if provider is not None:
        try_device(provider, lambda facts: _compute(runtime, provider, facts))
    return 0


def _compute(runtime: Any, provider: str, facts: dict[str, Any]) -> None:
    facts.update(provider=provider, strict=True)
    try:
        session = _session(runtime, provider, strict=True)
    except Exception as error:  # any kind: the loose session tells whether it does anything at all
        facts.update(strict=False, raised=said_of(error))
        session = _session(runtime, provider, strict=False)
    facts["computes"] = list(session.get_providers())
    facts["result"] = as_numbers(session.run(["y"], {"x": tiny_input()})[0])


def _session(runtime: Any, provider: str, strict: bool) -> Any:
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, or found below
    if strict and provider != CPU:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    load_libraries(provider, runtime)
    return runtime.InferenceSession(tiny_model(), options, providers=[provider], enable_fallback=False)


if __name__ == "__main__":
    sys.exit(main())
