"""The child that tries OpenVINO: `python -m linne.doctor.probe_openvino [--device NAME]`.

A compiled model tells which device it runs on; `AUTO` and `HETERO` decide by themselves, so they are not asked.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import Any

from linne.child import said_of, say
from linne.doctor.probe import asked_device, load, try_device
from linne.doctor.tiny_model import as_numbers, tiny_input, tiny_model

CPU = "CPU"


def main(words: Sequence[str] | None = None) -> int:
    """Report the devices that OpenVINO lists and what its CPU does, or what the device asked for does."""
    device = asked_device(words, "compile and run a tiny model with OpenVINO")
    library = load("openvino")
    if library is None:
        return 0
    try:
        core = library.Core()
        devices = [str(name) for name in core.available_devices]
        names = {name: str(core.get_property(name, "FULL_DEVICE_NAME")) for name in devices}
        own = CPU if CPU in devices else None
        # 2026.4.1-22982-e213a147257-releases/2026/4
        version = str(library.__version__).partition("-")[0]
        found = f"{version}, with {', '.join(f'{key} ({name.strip()})' for key, name in names.items()) or 'no device'}"
        say("runtime", found=found, version=version, devices=devices, own=own, names=names)
    except Exception as error:
        say("broken", reason=said_of(error))
        return 0
    tried = device or own
    if tried is not None:
        try_device(tried, lambda facts: _compute(core, tried, facts))
    return 0


def _compute(core: Any, device: str, facts: dict[str, Any]) -> None:
    compiled = core.compile_model(core.read_model(tiny_model()), device)
    facts["computes"] = [str(name) for name in compiled.get_property("EXECUTION_DEVICES")]
    facts["result"] = as_numbers(compiled({"x": tiny_input()})[0])
    with contextlib.suppress(Exception):  # not every plugin has the property
        facts["precision"] = str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())


if __name__ == "__main__":
    sys.exit(main())
