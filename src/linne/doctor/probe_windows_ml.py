"""The child that asks Windows ML for its providers: `python -m linne.doctor.probe_windows_ml [--device PROVIDER]`.

Windows keeps providers of ONNX Runtime in a catalogue: each is ready, to be made ready, or to be fetched first. Only a
ready one is opened, as fetching takes the network.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

from linne.child import said_of, say
from linne.doctor.probe import asked_device, load, try_device, version_of
from linne.doctor.probe_onnx_plugins import open_plugin
from linne.graphs.plugins import READY

FETCH = 'python -c "import windowsml; c = windowsml.EpCatalog(); [ep.ensure_ready() for ep in c.find_all_providers()]"'


def main(words: Sequence[str] | None = None) -> int:
    """Report the catalogue, or what the provider asked for does."""
    name = asked_device(words, "open a tiny model with a provider of Windows ML")
    library = load("windowsml")
    if library is None:
        return 0
    try:
        # Its entries are the catalogue's own, and end with it.
        with library.EpCatalog() as catalog:
            entries = {str(entry.name): entry for entry in catalog.find_all_providers()}
            states = {key: str(entry.ready_state.name) for key, entry in entries.items()}
            devices = [key for key, state in states.items() if state == READY]
            version = version_of("windowsml")
            rest = [key for key in states if key not in devices]
            later = f"; not yet: {', '.join(rest)}" if rest else ""
            found, fix = f"{version}, ready: {', '.join(devices) or 'none'}{later}", FETCH if rest else ""
            say("runtime", found=found, version=version, devices=devices, own=None, states=states, fix=fix)
            if name in entries:
                try_device(name, lambda facts: _compute(entries[name], facts))
    except Exception as error:
        say("broken", reason=said_of(error))
    return 0


def _compute(entry: Any, facts: dict[str, Any]) -> None:
    open_plugin(importlib.import_module("onnxruntime"), str(entry.name), str(entry.library_path), facts)


if __name__ == "__main__":
    sys.exit(main())
