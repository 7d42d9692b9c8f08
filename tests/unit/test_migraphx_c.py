"""MIGraphX's C library as it is called: by a double of it, which counts what it made and what was destroyed.

`test_migraphx_reference.py` asks the real one.
"""

from __future__ import annotations

import ctypes
import gc
import itertools

import numpy as np
import pytest

from linne.graphs.migraphx_c import MigraphxLibrary

MAKE = ("parse_onnx_buffer", "load", "program_run", "program_get_parameter_shapes")
FLOAT_TYPE = 4


class FakeLibrary:
    """The identity of three floats: `migraphx.h` of MIGraphX 2.14, handles and what is written to first arguments."""

    def __init__(self, failing=""):
        self.failing = failing
        self.calls = []
        self.alive = {}
        self._handles = itertools.count(1000)
        self._lengths, self._strides = (ctypes.c_size_t * 1)(3), (ctypes.c_size_t * 1)(1)
        self._buffer = 0

    def __getattr__(self, name):
        def call(*arguments):
            return self._called(name.removeprefix("migraphx_"), arguments)

        return call

    def _called(self, name, arguments):
        self.calls.append(name)
        if name == self.failing:
            return 4
        if name.endswith("_destroy"):
            assert self.alive.pop(arguments[0].value) == name.removesuffix("_destroy")
        elif name.endswith("_create") or name in MAKE:
            kind = {"program_run": "arguments", "program_get_parameter_shapes": "program_parameter_shapes"}.get(name)
            arguments[0]._obj.value = next(self._handles)
            self.alive[arguments[0]._obj.value] = kind or (
                name.removesuffix("_create") if name not in MAKE else "program"
            )
            if name == "argument_create":
                self._buffer = arguments[2].value
        elif name == "program_parameter_shapes_names":
            arguments[0][0] = b"x"
        elif name in ("shape_lengths", "shape_strides"):
            numbers = self._lengths if name == "shape_lengths" else self._strides
            arguments[0]._obj.contents = ctypes.cast(numbers, ctypes.POINTER(ctypes.c_size_t)).contents
            arguments[1]._obj.value = 1
        elif name in ("arguments_get", "argument_shape", "program_parameter_shapes_get"):
            arguments[0]._obj.value = 1  # lent, not to be destroyed
        elif name == "argument_buffer":
            arguments[0]._obj.value = self._buffer
        else:
            sizes = {
                "program_parameter_shapes_size": 1,
                "arguments_size": 1,
                "shape_bytes": 12,
                "shape_type": FLOAT_TYPE,
            }
            if name in sizes:
                arguments[0]._obj.value = sizes[name]
        return 0


def through(fake, precision="int8"):
    """Return what comes out of the whole way of a graph."""
    numbers = np.array([1, 2, 3], np.float32)
    program = MigraphxLibrary(fake, "a double").parse(b"onnx", 1)
    if precision != "fp32":
        program.quantize(precision, "ref", [{"x": numbers}, {"x": numbers + 1}])
    program.compile("gpu", exhaustive_tune=True)
    assert program.parameters() == {"x": (3,)}
    (output,) = program.run({"x": numbers})
    return output


def test_a_graph_goes_through_in_the_order_that_the_header_asks_for():
    fake = FakeLibrary()
    np.testing.assert_array_equal(through(fake), [1, 2, 3])
    steps = ("parse_onnx_buffer", "quantize_int8", "program_compile", "program_run", "argument_buffer")
    at = [fake.calls.index(step) for step in steps]
    assert at == sorted(at)
    assert fake.calls.count("quantize_int8_options_add_calibration_data") == 2


def called():
    """Return every function that is called on the way, but those that destroy."""
    fake = FakeLibrary()
    through(fake)
    return sorted({name for name in fake.calls if not name.endswith("_destroy")})


def test_everything_that_was_made_is_destroyed_once_also_where_a_step_fails():
    fakes = [FakeLibrary(), *map(FakeLibrary, called())]
    through(fakes[0])
    for fake in fakes[1:]:
        with pytest.raises(RuntimeError, match=f"migraphx_{fake.failing} returned 4"):
            through(fake)
    gc.collect()  # once for all: with every library of the tests in memory it takes half a second
    assert [(fake.failing, fake.alive) for fake in fakes if fake.alive] == []


def test_a_function_that_a_release_does_not_have_is_named():
    class Old:
        migraphx_program_destroy = staticmethod(lambda handle: 0)

    with pytest.raises(RuntimeError, match="this release has no `migraphx_onnx_options_create`"):
        MigraphxLibrary(Old(), "an old one").parse(b"onnx", 1)


@pytest.mark.parametrize("wrong", [np.zeros(4, np.float32), np.zeros(3, np.float64), np.zeros(6, np.float32)[::2]])
def test_arrays_that_do_not_fit_never_reach_the_library(wrong):
    fake = FakeLibrary()
    program = MigraphxLibrary(fake, "a double").parse(b"onnx", 1)
    with pytest.raises(RuntimeError, match=r"`x` takes \(3,\) in 12 bytes"):
        program.run({"x": wrong})
    assert "argument_create" not in fake.calls
