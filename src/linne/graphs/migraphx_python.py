"""MIGraphX by its Python module, as AMD builds it for one version of Python.

Signatures are those of AMDMIGraphX@f729a52f, src/py/migraphx_py.cpp. Its functions raise RuntimeError.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from linne.preprocess import Floats

MODULE = "migraphx"
PLACEHOLDER = f"the module `{MODULE}` here is a placeholder without code"
"""What is said of PyPI's `migraphx` 0.0.1, which holds the name alone."""


class MigraphxModule:
    """The Python module, imported. Its two kinds of objects keep to the protocols of `migraphx_program`."""

    def __init__(self, module: Any) -> None:
        """Take `module`.

        Raises:
            ImportError: it is a placeholder.
        """
        if not hasattr(module, "parse_onnx_buffer"):
            raise ImportError(PLACEHOLDER)
        self._module = module
        self.description = "by its Python module"

    @classmethod
    def find(cls) -> Self:
        """Return the module that this Python has.

        Raises:
            ModuleNotFoundError: there is none.
            Exception: it cannot be imported; with a broken ROCm that may be of any kind.
        """
        return cls(importlib.import_module(MODULE))

    def parse(self, onnx: bytes, batch_size: int) -> MigraphxModuleProgram:
        """Return the program of an ONNX file whose open sizes are `batch_size`."""
        # By position: the first parameter is called `filename` in some releases, `onnx_buffer` in others.
        program = self._module.parse_onnx_buffer(onnx, default_dim_value=batch_size)
        return MigraphxModuleProgram(self._module, program)

    def load(self, content: bytes) -> MigraphxModuleProgram:
        """Return the program whose file `save` gave. The file is trusted: it is read by MIGraphX, unchecked."""
        with tempfile.TemporaryDirectory(prefix="linne-") as folder:
            path = Path(folder, "program.mxr")
            path.write_bytes(content)
            return MigraphxModuleProgram(self._module, self._module.load(str(path)))


class MigraphxModuleProgram:
    """A program of the module's. Its memory is freed with the last reference to it."""

    def __init__(self, module: Any, program: Any) -> None:
        self._module = module
        self._program = program

    def quantize(self, precision: str, target: str, calibration: Sequence[Mapping[str, Floats]]) -> None:
        """Change the program, not compiled yet, to compute in `precision`; `calibration` is for int8."""
        function = getattr(self._module, f"quantize_{precision}", None)
        if function is None:
            raise RuntimeError(f"this release has no `quantize_{precision}`")
        if precision != "int8":
            function(self._program)
            return
        arguments = [{name: self._module.argument(array) for name, array in item.items()} for item in calibration]
        function(self._program, self._module.get_target(target), calibration=arguments)

    def compile(self, target: str, *, exhaustive_tune: bool) -> None:
        """Compile for `target`; inputs and outputs stay in the CPU's memory."""
        self._program.compile(
            self._module.get_target(target), offload_copy=True, fast_math=False, exhaustive_tune=exhaustive_tune
        )

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of what it takes, by name."""
        return {str(name): tuple(shape.lens()) for name, shape in self._program.get_parameter_shapes().items()}

    def run(self, arrays: Mapping[str, Floats]) -> list[Floats]:
        """Return copies of the outputs for float32 `arrays` of the shapes of `parameters`, contiguous ones.

        Raises:
            RuntimeError: it fails, or an output is not float32.
        """
        outputs = [np.array(output) for output in self._program.run(dict(arrays))]
        for output in outputs:
            if output.dtype != np.float32:
                raise RuntimeError(f"an output is of type {output.dtype}, expected float32")
        return outputs

    def save(self) -> bytes:
        """Return the compiled program as a file's content, which this MIGraphX runs on this kind of GPU."""
        with tempfile.TemporaryDirectory(prefix="linne-") as folder:
            path = Path(folder, "program.mxr")
            self._module.save(self._program, str(path))
            return path.read_bytes()
