"""Providers of ONNX Runtime in libraries of their own, which a program registers: from packages, or from Windows.

That one registers says nothing. Where it finds no hardware of its kind, it offers no device, and a session that goes on
without it is the CPU's.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from dataclasses import dataclass
from typing import Any

from linne.errors import DeviceError

PREFIX = "onnxruntime_ep_"
"""Of the modules that bring one each."""
PACKAGES = ("onnxruntime-ep-openvino", "onnxruntime-ep-webgpu", "onnxruntime-ep-nv-tensorrt-rtx")
"""That hold a plugin; those for AMD are names with no code in them yet (PyPI, 2026-11)."""
WINDOWS_ML = 'pip install "windowsml[with-ort]"'
READY = "Ready"
PLUGINS = ("plugin", "windowsml")
"""The words before the colon with which `--device` asks for one."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A library with a provider."""

    provider: str
    """As ONNX Runtime calls it."""
    library: str
    package: str
    """What brings it."""


def find_plugin(kind: str, name: str) -> Plugin:
    """Return `plugin:NAME`, of the package onnxruntime-ep-NAME, or `windowsml:NAME`, of Windows' own catalogue.

    Raises:
        DeviceError: there is none of that name, or Windows has it not ready; nothing is fetched.
    """
    return _of_package(name) if kind == "plugin" else _of_windows(name)


def _of_package(name: str) -> Plugin:
    module = PREFIX + name.replace("-", "_")
    package = module.replace("_", "-")
    if not name.replace("-", "_").isidentifier() or importlib.util.find_spec(module) is None:
        found = sorted(
            item.name.removeprefix(PREFIX) for item in pkgutil.iter_modules() if item.name.startswith(PREFIX)
        )
        raise DeviceError(
            f"no package brings the plugin `{name}` of ONNX Runtime",
            hint=f"installed: {', '.join(found) or 'none'}; to be had: {', '.join(PACKAGES)}",
        )
    try:
        brings: Any = importlib.import_module(module)
        return Plugin(str(brings.get_ep_name()), str(brings.get_library_path()), package)
    except (ImportError, AttributeError, OSError) as error:  # a placeholder that only carries the name has neither
        raise DeviceError(f"the package {package} brings no plugin: {error}") from error


def _of_windows(name: str) -> Plugin:
    try:
        windowsml: Any = importlib.import_module("windowsml")
        with windowsml.EpCatalog() as catalog:
            entries = {
                str(entry.name): (str(entry.ready_state.name), str(entry.library_path))
                for entry in catalog.find_all_providers()
            }
    except (ImportError, OSError, RuntimeError) as error:
        raise DeviceError(f"Windows ML cannot be used: {error}", hint=f"on Windows 11 24H2: {WINDOWS_ML}") from error
    full = next((entry for entry in entries if name in (entry, entry.removesuffix("ExecutionProvider"))), None)
    if full is None:
        raise DeviceError(
            f"Windows ML has no provider `{name}` for this machine", hint=f"it has {', '.join(entries) or 'none'}"
        )
    state, library = entries[full]
    if state != READY:
        raise DeviceError(
            f"Windows has `{full}` not ready ({state}), and fetching it takes the network",
            hint="`linne doctor` says what makes it ready",
        )
    return Plugin(full, library, "windowsml")


def offered(runtime: Any, provider: str) -> list[Any]:
    """Return the devices that ONNX Runtime has of a registered provider, best first."""
    return [device for device in runtime.get_ep_devices() if device.ep_name == provider]


def devices_of(runtime: Any, plugin: Plugin) -> list[Any]:
    """Return the devices that a plugin offers, after registering it for this process where it is not yet.

    Raises:
        DeviceError: it does not register, or offers no device.
    """
    devices = offered(runtime, plugin.provider)
    if not devices:
        try:
            runtime.register_execution_provider_library(plugin.provider, plugin.library)
        except Exception as error:  # its own kinds, one for each status
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DeviceError(f"ONNX Runtime cannot register {plugin.package}: {said[:300]}") from error
        devices = offered(runtime, plugin.provider)
    if not devices:
        runtime.unregister_execution_provider_library(plugin.provider)
        raise DeviceError(
            f"{plugin.package} offers ONNX Runtime no device: it finds no hardware of its kind here",
            hint="`linne doctor` says what it finds",
        )
    return devices
