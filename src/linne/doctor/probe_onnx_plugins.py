"""The child that tries ONNX Runtime's plugins: `python -m linne.doctor.probe_onnx_plugins [--device MODULE]`.

A plugin is a library in a package of its own (`onnxruntime-ep-openvino`), which a program registers itself. That it
registers says nothing: one that finds no hardware of its kind offers no device, and the session is the CPU's.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence
from typing import Any

from linne.child import said_of, say
from linne.doctor.probe import asked_device, try_device, version_of
from linne.doctor.tiny_model import as_numbers, tiny_input, tiny_model
from linne.graphs.plugins import PREFIX, offered


def main(words: Sequence[str] | None = None) -> int:
    """Report the packages that bring a plugin, or what the one asked for does."""
    module = asked_device(words, "open a tiny model with a plugin of ONNX Runtime")
    modules = sorted(found.name for found in pkgutil.iter_modules() if found.name.startswith(PREFIX))
    if not modules:
        say("missing", reason="no package brings a plugin")
        return 0
    try:
        runtime: Any = importlib.import_module("onnxruntime")
        versions = {name: version_of(name.replace("_", "-")) for name in modules}
        found = ", ".join(f"{name.replace('_', '-')} {version}" for name, version in versions.items())
        say("runtime", found=found, version=str(runtime.__version__), devices=modules, own=None, versions=versions)
    except Exception as error:
        say("broken", reason=said_of(error))
        return 0
    if module is not None:
        try_device(module, lambda facts: _compute(runtime, module, facts))
    return 0


def _compute(runtime: Any, module: str, facts: dict[str, Any]) -> None:
    package: Any = importlib.import_module(module)
    open_plugin(runtime, str(package.get_ep_name()), str(package.get_library_path()), facts)


def open_plugin(runtime: Any, provider: str, library: str, facts: dict[str, Any]) -> None:
    """Register a plugin's library, open the model on the first device that it offers, and fill in `facts`."""
    facts["registered"] = False
    runtime.register_execution_provider_library(provider, library)
    facts["registered"] = True
    devices = offered(runtime, provider)
    facts["offers"] = [f"{device.device.type.name} of {device.device.vendor}" for device in devices]
    if not devices:
        return
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_provider_for_devices([devices[0]], {})
    session = runtime.InferenceSession(tiny_model(), options, enable_fallback=False)
    # By the name of its package or catalogue entry, as it was asked for.
    facts["computes"] = [facts["device"] if name == provider else name for name in session.get_providers()]
    facts["result"] = as_numbers(session.run(["y"], {"x": tiny_input()})[0])


if __name__ == "__main__":
    sys.exit(main())
