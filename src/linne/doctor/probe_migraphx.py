"""The child that tries MIGraphX: `python -m linne.doctor.probe_migraphx [--device gpu]`.

By its Python module where there is one, else by its C library. The target `ref` computes on the CPU, without ROCm.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from linne.child import say
from linne.doctor.probe import asked_device, try_device
from linne.doctor.tiny_model import as_numbers, tiny_input, tiny_model
from linne.graphs.migraphx_program import Binding, Missing, loaded_version, look_for_migraphx

TARGETS = ("ref", "gpu")


def main(words: Sequence[str] | None = None) -> int:
    """Report which MIGraphX there is and what its reference target does, or what the target asked for does."""
    target = asked_device(words, "compile and run a tiny model with MIGraphX") or TARGETS[0]
    binding = look_for_migraphx()
    if isinstance(binding, Missing):
        say("broken" if binding.broken else "missing", reason=binding.reason)
        return 0
    version = loaded_version()
    say(
        "runtime",
        found=f"{version}, {binding.description}",
        version=version,
        devices=list(TARGETS),
        own=TARGETS[0],
    )
    try_device(target, lambda facts: compute(binding, target, facts))
    return 0


def compute(binding: Binding, target: str, facts: dict[str, Any]) -> None:
    """Compile and run."""
    program = binding.parse(tiny_model(), 1)
    program.compile(target, exhaustive_tune=False)
    facts["computes"] = [target]
    facts["result"] = as_numbers(program.run({"x": tiny_input()})[0])


if __name__ == "__main__":
    sys.exit(main())
