"""MIGraphX by its C library, `libmigraphx_c.so.3`, with ctypes: what Debian packages, and what ROCm always installs.

Signatures are those of `migraphx/migraphx.h` of MIGraphX 2.14. No number of its enumeration of types is used, as these
move between releases. Every function returns 0, or the number of an error whose text it writes to stderr.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np

from linne.graphs.stderr import caught_stderr, write_stderr
from linne.preprocess import Floats

LIBRARY = "libmigraphx_c.so.3"
VARIABLE = "LINNE_MIGRAPHX_LIBRARY"
"""Of the environment: the file of the library, where it is in no place that is searched."""

_HANDLE, _SIZE, _TEXT, _FLAG = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_bool
_MADE = ctypes.POINTER(_HANDLE)
_NUMBER = ctypes.POINTER(_SIZE)
_NUMBERS = ctypes.POINTER(_NUMBER)
_SIGNATURES: Mapping[str, tuple[Any, ...]] = {
    "argument_buffer": (_MADE, _HANDLE),
    "argument_create": (_MADE, _HANDLE, _HANDLE),
    "argument_destroy": (_HANDLE,),
    "argument_shape": (_MADE, _HANDLE),
    "arguments_destroy": (_HANDLE,),
    "arguments_get": (_MADE, _HANDLE, _SIZE),
    "arguments_size": (_NUMBER, _HANDLE),
    "compile_options_create": (_MADE,),
    "compile_options_destroy": (_HANDLE,),
    "compile_options_set_exhaustive_tune_flag": (_HANDLE, _FLAG),
    "compile_options_set_fast_math": (_HANDLE, _FLAG),
    "compile_options_set_offload_copy": (_HANDLE, _FLAG),
    "file_options_create": (_MADE,),
    "file_options_destroy": (_HANDLE,),
    "load": (_MADE, _TEXT, _HANDLE),
    "onnx_options_create": (_MADE,),
    "onnx_options_destroy": (_HANDLE,),
    "onnx_options_set_default_dim_value": (_HANDLE, _SIZE),
    "parse_onnx_buffer": (_MADE, _TEXT, _SIZE, _HANDLE),
    "program_compile": (_HANDLE, _HANDLE, _HANDLE),
    "program_destroy": (_HANDLE,),
    "program_get_parameter_shapes": (_MADE, _HANDLE),
    "program_parameter_shapes_destroy": (_HANDLE,),
    "program_parameter_shapes_get": (_MADE, _HANDLE, _TEXT),
    "program_parameter_shapes_names": (ctypes.POINTER(_TEXT), _HANDLE),
    "program_parameter_shapes_size": (_NUMBER, _HANDLE),
    "program_parameters_add": (_HANDLE, _TEXT, _HANDLE),
    "program_parameters_create": (_MADE,),
    "program_parameters_destroy": (_HANDLE,),
    "program_run": (_MADE, _HANDLE, _HANDLE),
    "quantize_bf16": (_HANDLE,),
    "quantize_fp16": (_HANDLE,),
    "quantize_int8": (_HANDLE, _HANDLE, _HANDLE),
    "quantize_int8_options_add_calibration_data": (_HANDLE, _HANDLE),
    "quantize_int8_options_create": (_MADE,),
    "quantize_int8_options_destroy": (_HANDLE,),
    "save": (_HANDLE, _TEXT, _HANDLE),
    "shape_elements": (_NUMBER, _HANDLE),
    "shape_bytes": (_NUMBER, _HANDLE),
    "shape_lengths": (_NUMBERS, _NUMBER, _HANDLE),
    "shape_strides": (_NUMBERS, _NUMBER, _HANDLE),
    "shape_type": (ctypes.POINTER(ctypes.c_int), _HANDLE),
    "target_create": (_MADE, _TEXT),
    "target_destroy": (_HANDLE,),
}
"""The arguments of each function that is called, without the `migraphx_` of its name."""
_EXPLAINED = frozenset(
    {"load", "parse_onnx_buffer", "program_compile", "quantize_bf16", "quantize_fp16", "quantize_int8", "save"}
    | {"target_create"}
)
"""Those that fail because of a graph or a machine: the error holds what they write to stderr. To run is not one: what
every other thread writes would be held up for as long as it computes.
"""


class MigraphxLibrary:
    """The C library, loaded. Its two kinds of objects keep to the protocols of `migraphx_program`."""

    def __init__(self, library: Any, place: str) -> None:
        """Take `library`, which ctypes has loaded from `place`."""
        self._library = library
        self.description = f"by `{place}`"

    @classmethod
    def load_file(cls, place: str) -> Self:
        """Return the library in the file `place`, or of that name as the system's loader finds it.

        Raises:
            OSError: there is none, it is another library, or something that it needs is missing.
        """
        library = ctypes.CDLL(place)
        if not hasattr(library, "migraphx_parse_onnx_buffer"):
            raise OSError(f"`{place}` is no C library of MIGraphX's")
        return cls(library, place)

    @classmethod
    def find(cls) -> Self:
        """Return the library that the environment names, or else that the loader finds, or else ROCm's.

        Raises:
            OSError: there is none that can be loaded, with the reason of the first that is there.
        """
        named = os.environ.get(VARIABLE)
        if named:
            try:
                return cls.load_file(named)
            except OSError as error:
                raise OSError(f"`{VARIABLE}` names a file that is no help: {error}") from error
        reason: OSError | None = None
        for place in (LIBRARY, str(Path(os.environ.get("ROCM_PATH") or "/opt/rocm", "lib", LIBRARY))):
            try:
                return cls.load_file(place)
            except OSError as error:
                if reason is None or os.path.exists(place):
                    reason = error
        raise reason if reason is not None else OSError(f"no `{LIBRARY}`")

    def parse(self, onnx: bytes, batch_size: int) -> MigraphxCProgram:
        """Return the program of an ONNX file whose open sizes are `batch_size`."""
        with ExitStack() as stack:
            options = self.create(stack, "onnx_options")
            self.call("onnx_options_set_default_dim_value", options, batch_size)
            return MigraphxCProgram(self, self.new("parse_onnx_buffer", onnx, len(onnx), options))

    def load(self, content: bytes) -> MigraphxCProgram:
        """Return the program whose file `save` gave. The file is trusted: it is read by MIGraphX, unchecked."""
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="linne-"))
            path = Path(folder, "program.mxr")
            path.write_bytes(content)
            return MigraphxCProgram(self, self.new("load", os.fsencode(path), self.create(stack, "file_options")))

    def call(self, name: str, *arguments: Any) -> None:
        """Call `migraphx_NAME`.

        Raises:
            RuntimeError: it fails, or this release has no such function.
        """
        function = getattr(self._library, f"migraphx_{name}", None)
        if function is None:
            raise RuntimeError(f"this release has no `migraphx_{name}`")
        function.argtypes, function.restype = _SIGNATURES[name], ctypes.c_int
        wrote = ""
        if name in _EXPLAINED:
            status, wrote = _listen(function, arguments)
        else:
            status = function(*arguments)
        if status:
            reason = wrote.rpartition(f"migraphx_{name}: Error: ")[2].strip()
            raise RuntimeError(reason or f"migraphx_{name} returned {status}, and wrote the reason to stderr")

    def new(self, name: str, *arguments: Any) -> Any:
        """Return the handle that `migraphx_NAME` writes to its first argument."""
        made = _HANDLE()
        self.call(name, ctypes.byref(made), *arguments)
        return made

    def number(self, name: str, *arguments: Any) -> int:
        """Return the number that `migraphx_NAME` writes to its first argument."""
        number = _SIGNATURES[name][0]._type_()
        self.call(name, ctypes.byref(number), *arguments)
        return int(number.value)

    def create(self, stack: ExitStack, kind: str, *arguments: Any) -> Any:
        """Return a new `kind`, which `stack` destroys."""
        return self.keep(stack, kind, self.new(f"{kind}_create", *arguments))

    def keep(self, stack: ExitStack, kind: str, handle: Any) -> Any:
        """Return `handle`, a `kind` that `stack` is to destroy."""
        stack.callback(self.destroy, kind, handle)
        return handle

    def destroy(self, kind: str, handle: Any) -> None:
        """Free `handle`, a `kind`."""
        self.call(f"{kind}_destroy", handle)

    def sizes(self, name: str, shape: Any) -> tuple[int, ...]:
        """Return what `migraphx_shape_NAME` tells of each dimension."""
        numbers, count = _NUMBER(), _SIZE()
        self.call(f"shape_{name}", ctypes.byref(numbers), ctypes.byref(count), shape)
        return tuple(numbers[: count.value])


class MigraphxCProgram:
    """A program of the C library's. Its memory is freed with the last reference to it."""

    def __init__(self, library: MigraphxLibrary, handle: Any) -> None:
        self._library = library
        self._handle = handle
        weakref.finalize(self, library.destroy, "program", handle)

    def quantize(self, precision: str, target: str, calibration: Sequence[Mapping[str, Floats]]) -> None:
        """Change the program, not compiled yet, to compute in `precision`; `calibration` is for int8."""
        library = self._library
        if precision != "int8":
            library.call(f"quantize_{precision}", self._handle)
            return
        with ExitStack() as stack:
            options = library.create(stack, "quantize_int8_options")
            for arrays in calibration:
                library.call("quantize_int8_options_add_calibration_data", options, self._inputs(stack, arrays))
            library.call("quantize_int8", self._handle, library.create(stack, "target", target.encode()), options)

    def compile(self, target: str, *, exhaustive_tune: bool) -> None:
        """Compile for `target`; inputs and outputs stay in the CPU's memory."""
        library = self._library
        with ExitStack() as stack:
            options = library.create(stack, "compile_options")
            library.call("compile_options_set_offload_copy", options, True)
            library.call("compile_options_set_fast_math", options, False)
            library.call("compile_options_set_exhaustive_tune_flag", options, exhaustive_tune)
            library.call("program_compile", self._handle, library.create(stack, "target", target.encode()), options)

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of what it takes, by name."""
        library = self._library
        with ExitStack() as stack:
            shapes = self._parameter_shapes(stack)
            names = (_TEXT * library.number("program_parameter_shapes_size", shapes))()
            library.call("program_parameter_shapes_names", names, shapes)
            return {
                name.decode(): library.sizes("lengths", library.new("program_parameter_shapes_get", shapes, name))
                for name in names
                if name is not None
            }

    def run(self, arrays: Mapping[str, Floats]) -> list[Floats]:
        """Return copies of the outputs for float32 `arrays` of the shapes of `parameters`, contiguous ones.

        Raises:
            RuntimeError: it fails, having written the reason to stderr; or an output is not of the inputs' type.
        """
        library = self._library
        with ExitStack() as stack:
            inputs = self._inputs(stack, arrays)
            outputs = library.keep(stack, "arguments", library.new("program_run", self._handle, inputs))
            count = library.number("arguments_size", outputs)
            shapes = self._parameter_shapes(stack)
            type_of_inputs = library.number(
                "shape_type",
                library.new("program_parameter_shapes_get", shapes, next(iter(arrays)).encode()),
            )
            return [
                self._copied(library.new("arguments_get", outputs, position), type_of_inputs)
                for position in range(count)
            ]

    def save(self) -> bytes:
        """Return the compiled program as a file's content, which this MIGraphX runs on this kind of GPU."""
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="linne-"))
            path = Path(folder, "program.mxr")
            options = self._library.create(stack, "file_options")
            self._library.call("save", self._handle, os.fsencode(path), options)
            return path.read_bytes()

    def _parameter_shapes(self, stack: ExitStack) -> Any:
        shapes = self._library.new("program_get_parameter_shapes", self._handle)
        return self._library.keep(stack, "program_parameter_shapes", shapes)

    def _inputs(self, stack: ExitStack, arrays: Mapping[str, Floats]) -> Any:
        """Return the library's view of `arrays`, which must live and stay where they are until `stack` has ended."""
        library = self._library
        shapes = self._parameter_shapes(stack)
        inputs = library.keep(stack, "program_parameters", library.new("program_parameters_create"))
        for name, array in arrays.items():
            shape = library.new("program_parameter_shapes_get", shapes, name.encode())
            sizes, size_bytes = library.sizes("lengths", shape), library.number("shape_bytes", shape)
            if array.shape != sizes or array.nbytes != size_bytes or not array.flags.c_contiguous:
                raise RuntimeError(f"`{name}` takes {sizes} in {size_bytes} bytes, not {array.shape} in {array.nbytes}")
            argument = library.new("argument_create", shape, _HANDLE(array.ctypes.data))
            library.keep(stack, "argument", argument)
            library.call("program_parameters_add", inputs, name.encode(), argument)
        return inputs

    def _copied(self, argument: Any, expected_type: int) -> Floats:
        """Return a copy of an output of the library's, float32 as the inputs are."""
        library = self._library
        shape = library.new("argument_shape", argument)
        found_type = library.number("shape_type", shape)
        if found_type != expected_type:
            raise RuntimeError(f"an output is of type {found_type}, expected {expected_type}, the inputs' float32")
        sizes = library.sizes("lengths", shape)
        buffer = library.new("argument_buffer", argument)
        content = (ctypes.c_char * library.number("shape_bytes", shape)).from_address(buffer.value)
        strides_bytes = [4 * stride for stride in library.sizes("strides", shape)]
        return np.ndarray(sizes, np.float32, memoryview(content).cast("B"), strides=strides_bytes).copy()


def _listen(function: Any, arguments: Sequence[Any]) -> tuple[int, str]:
    """Return what `function` returns and, where that is an error, what was written to stderr meanwhile.

    Else that is written to stderr in the end: it may be of any thread's.
    """
    with caught_stderr() as said:
        status = int(function(*arguments))
    wrote = b"".join(said)
    if not status:
        write_stderr(wrote)
    return status, wrote.decode("utf-8", "replace")
