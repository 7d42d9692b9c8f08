"""The child that tries MIGraphX: `python -m linne.doctor.probe_migraphx [--device gpu]`.

By its Python module where there is one, else by its C library. The target `ref` computes on the CPU, without ROCm.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from linne.child import said_of, say
from linne.doctor.probe import asked_device, try_device
from linne.doctor.tiny_model import EXPECTED, as_numbers, tiny_input, tiny_model

LIBRARY = "libmigraphx_c.so.3"
TARGETS = ("ref", "gpu")
PLACEHOLDER = "the module `migraphx` here is a placeholder without code"


def main(words: Sequence[str] | None = None) -> int:
    """Report which MIGraphX there is and what its reference target does, or what the target asked for does."""
    target = asked_device(words, "compile and run a tiny model with MIGraphX")
    reason = "No module named 'migraphx'"
    try:
        module: Any = importlib.import_module("migraphx")
        # PyPI's 0.0.1 holds the name alone.
        if not hasattr(module, "parse_onnx_buffer"):
            module, reason = None, PLACEHOLDER
    except ModuleNotFoundError as error:
        if error.name != "migraphx":
            say("broken", reason=f"{error}")
            return 0
        module = None
    except BaseException as error:
        say("broken", reason=said_of(error))
        return 0
    library = None if module is not None else load_library()
    if module is None and library is None:
        say("missing", reason=reason)
        return 0
    version = None if module is None else str(getattr(module, "__version__", "of unknown version"))
    say("runtime", found=version or f"its C library, {LIBRARY}", version=version, devices=list(TARGETS), own=TARGETS[0])
    tried = target or TARGETS[0]
    if module is not None:
        try_device(tried, lambda facts: compute_by_module(module, tried, facts))
    else:
        try_device(tried, lambda facts: compute_by_library(library, tried, facts))
    return 0


def compute_by_module(module: Any, target: str, facts: dict[str, Any]) -> None:
    """Compile and run with the Python module."""
    program = module.parse_onnx_buffer(tiny_model())
    program.compile(module.get_target(target))
    facts["computes"] = [target]
    facts["result"] = as_numbers(program.run({"x": tiny_input()})[0].tolist())


def compute_by_library(library: Any, target: str, facts: dict[str, Any]) -> None:
    """Compile and run with the C library, by the functions of its `migraphx/migraphx.h`; what it makes is not freed.

    The child ends after it. No number of an enumeration is used, as they move between releases: the shape of the input
    is the program's own.
    """
    model, numbers = tiny_model(), tiny_input()
    created, program, shapes, shape = _Handle(), _Handle(), _Handle(), _Handle()
    argument, parameters, results, result = _Handle(), _Handle(), _Handle(), _Handle()
    options, buffer = _Handle(), ctypes.POINTER(ctypes.c_float)()
    _call(library, "onnx_options_create", _out(created))
    _call(library, "parse_onnx_buffer", _out(program), model, ctypes.c_size_t(len(model)), created)
    _call(library, "compile_options_create", _out(options))
    _call(library, "compile_options_set_offload_copy", options, ctypes.c_bool(True))
    _call(library, "target_create", _out(created), target.encode())
    _call(library, "program_compile", program, created, options)
    _call(library, "program_get_parameter_shapes", _out(shapes), program)
    _call(library, "program_parameter_shapes_get", _out(shape), shapes, b"x")
    _call(library, "argument_create", _out(argument), shape, ctypes.c_void_p(numbers.ctypes.data))
    _call(library, "program_parameters_create", _out(parameters))
    _call(library, "program_parameters_add", parameters, b"x", argument)
    _call(library, "program_run", _out(results), program, parameters)
    facts["computes"] = [target]
    _call(library, "arguments_get", _out(result), results, ctypes.c_size_t(0))
    _call(library, "argument_buffer", _out(buffer), result)
    facts["result"] = as_numbers(buffer[: len(EXPECTED)])


_Handle = ctypes.c_void_p
_out = ctypes.byref


def _call(library: Any, name: str, *arguments: Any) -> None:
    """Call one function of the C library, each of which returns 0 or the number of an error that it wrote to stderr."""
    status = getattr(library, f"migraphx_{name}")(*arguments)
    if status:
        raise RuntimeError(f"migraphx_{name} returned {status}")


def load_library() -> Any:
    """Return the C library, by the loader's own search or from ROCm's folder; None where there is none."""
    folders = [os.environ.get("ROCM_PATH") or "/opt/rocm"]
    for name in (LIBRARY, *(os.path.join(folder, "lib", LIBRARY) for folder in folders)):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


if __name__ == "__main__":
    sys.exit(main())
