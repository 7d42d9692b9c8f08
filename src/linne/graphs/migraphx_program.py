"""A graph compiled by MIGraphX, AMD's graph compiler, for a GPU of AMD's or for its own reference on the CPU.

There are two ways to it, its Python module and its C library; both keep to `Binding` and `Native` here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, Self

import numpy as np

from linne.errors import DeviceError, LinneError
from linne.graphs.migraphx_c import LIBRARY, VARIABLE, MigraphxLibrary
from linne.graphs.migraphx_python import MODULE, PLACEHOLDER, MigraphxModule
from linne.graphs.pieces import run_in_pieces
from linne.graphs.wire import require_whole
from linne.preprocess import Floats

Target = Literal["gpu", "ref"]
"""`ref` computes on the CPU in plain loops, without any of ROCm's libraries: right, and slow."""
Precision = Literal["fp32", "fp16", "bf16", "int8"]
TARGETS: Mapping[str, Target] = {"auto": "gpu", "rocm": "gpu", "cpu": "ref"}
"""By what `--device` calls them. `auto` is no reference: nobody waits for it who has not asked for it."""
GUIDE = "it comes with ROCm, and `make migraphx` in a clone of linne unpacks one to try (docs/guides/migraphx.md)"
UNKNOWN = "unknown"
"""In what is said of a version or a GPU that nothing tells."""
MAPS = Path("/proc/self/maps")
"""Where Linux lists the files that this process has loaded."""
IDENTITY = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801620f0a0179120a0a08080112040a02"
    "080142040a00100d"
)
"""An ONNX file of one node, which gives one float back as it is."""


class Native(Protocol):
    """A program of MIGraphX's. Its calls raise RuntimeError with MIGraphX's words; one thread at a time may call."""

    def quantize(self, precision: str, target: str, calibration: Sequence[Mapping[str, Floats]]) -> None:
        """Change the program, not compiled yet, to compute in `precision`; `calibration` is for int8."""

    def compile(self, target: str, *, exhaustive_tune: bool) -> None:
        """Compile for `target`; inputs and outputs stay in the CPU's memory."""

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of what it takes, by name."""

    def run(self, arrays: Mapping[str, Floats]) -> list[Floats]:
        """Return copies of the outputs for float32 `arrays` of the shapes of `parameters`, contiguous ones."""

    def save(self) -> bytes:
        """Return the compiled program as a file's content, which this MIGraphX runs on this kind of GPU."""


class Binding(Protocol):
    """A way to MIGraphX."""

    description: str

    def parse(self, onnx: bytes, batch_size: int) -> Native:
        """Return the program of an ONNX file whose open sizes are `batch_size`."""

    def load(self, content: bytes) -> Native:
        """Return the program whose file `save` gave. The file is trusted: it is read by MIGraphX, unchecked."""


@dataclass(frozen=True, slots=True)
class Missing:
    """That there is no way to MIGraphX."""

    reason: str
    broken: bool
    """Whether something of it is there, and cannot be loaded."""


def look_for_migraphx() -> Binding | Missing:
    """Return the C library that the environment names, or else the Python module, or else the C library."""
    reason, broken = "", bool(os.environ.get(VARIABLE))
    if not broken:
        try:
            return MigraphxModule.find()
        except Exception as error:  # a broken ROCm raises what it likes
            absent = isinstance(error, ModuleNotFoundError) and error.name == MODULE
            reason = (
                f"no Python module `{MODULE}`, and " if absent else f"`{MODULE}` cannot be imported ({error}), and "
            )
            broken = not absent and str(error) != PLACEHOLDER
    try:
        return MigraphxLibrary.find()
    except OSError as error:
        # The loader names what it does not find: the library itself, or one that it needs.
        return Missing(f"{reason}{error}", broken or not str(error).startswith(f"{LIBRARY}: "))


def find_binding() -> Binding:
    """Return what `look_for_migraphx` finds.

    Raises:
        LinneError: that is nothing, with the reason.
    """
    found = look_for_migraphx()
    if isinstance(found, Missing):
        raise LinneError(found.reason, hint=GUIDE)
    return found


def why_no_migraphx() -> str | None:
    """Return why MIGraphX cannot be used, or None."""
    found = look_for_migraphx()
    return f"{found.reason}; {GUIDE}" if isinstance(found, Missing) else None


def installed_version() -> str | None:
    """Return the version of the MIGraphX that this process can use, which is loaded for that; None without one."""
    return None if isinstance(look_for_migraphx(), Missing) else loaded_version()


def loaded_version(maps: Path = MAPS) -> str:
    """Return the version of the MIGraphX that this process has loaded, from the name of its file.

    Neither way tells it: the C library has no function for it, and the module often says `dev`. The file is called
    `libmigraphx.so.2014000`, three digits each for minor release and patch.
    """
    try:
        found = re.search(r"libmigraphx\.so\.(\d{7,})", maps.read_text("utf-8", "replace"))
    except OSError:
        found = None
    if found is None:
        return f"of {UNKNOWN} version"
    number = int(found[1])
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"


def target_for(device: str, *, require_accelerator: bool = False) -> Target:
    """Return the target for what `--device` says.

    Raises:
        DeviceError: there is none, or none but the CPU where an accelerator is required.
    """
    if device not in TARGETS:
        numbered = device.startswith("rocm:")
        raise DeviceError(
            f"MIGraphX runs on {', '.join(TARGETS)}, not on `{device}`",
            hint="set HIP_VISIBLE_DEVICES to the GPU's number and use --device rocm" if numbered else None,
        )
    if require_accelerator and TARGETS[device] == "ref":
        raise DeviceError("an accelerator is required, and MIGraphX's target `ref` computes on the CPU")
    return TARGETS[device]


class MigraphxProgram:
    """A compiled graph with one image input: a batch in, its outputs' first out. One thread at a time may run it."""

    def __init__(self, native: Native, name: str, target: Target, binding: Binding) -> None:
        """Take a compiled program; `open` and `load` make them."""
        self.name = name
        self.version = loaded_version()
        on = "its GPU target" if target == "gpu" else "its target `ref`, a slow reference on the CPU"
        self.description = f"MIGraphX {self.version} {binding.description} with {on}"
        self._native: Native | None = native
        self.input, self.shape = _one_input(native, name)

    @classmethod
    def open(
        cls,
        graph: bytes | Path,
        name: str,
        *,
        target: Target,
        batch_size: int,
        precision: Precision = "fp32",
        calibration_NCHW: Floats | None = None,
        exhaustive_tune: bool = False,
        binding: Binding | None = None,
    ) -> Self:
        """Return the ONNX file `graph`, called `name` in errors, compiled for `target`, which can take minutes.

        Args:
            batch_size: how many images it computes at once, where the graph leaves that open.
            precision: what the graph is changed to compute with; inputs and outputs stay float32.
            calibration_NCHW: normalised images, from which int8 takes the ranges of its numbers.
            exhaustive_tune: whether to try every kernel on the GPU, which takes up to hours.

        Raises:
            LinneError: MIGraphX cannot be used, or does not read or compile the graph.
            DeviceError: MIGraphX does not find a GPU for the target `gpu`.
        """
        data = graph.read_bytes() if isinstance(graph, Path) else graph
        require_whole(data, name)
        if (precision == "int8") != (calibration_NCHW is not None and len(calibration_NCHW) > 0):
            raise LinneError("int8 needs images to be calibrated with, and no other precision does")
        binding = binding or find_binding()
        with _explained(name, "read"):
            native = binding.parse(data, batch_size)
        taken, shape = _one_input(native, name)
        try:
            with _explained(name, f"compiled in {precision}"):
                if precision != "fp32":
                    images = () if calibration_NCHW is None else _batches(calibration_NCHW, shape[0])
                    native.quantize(precision, target, [{taken: batch} for batch in images])
                native.compile(target, exhaustive_tune=exhaustive_tune)
        except LinneError:
            if target == "gpu":
                require_gpu(binding)
            raise
        return cls(native, name, target, binding)

    @classmethod
    def load(cls, content: bytes, name: str, *, target: Target, binding: Binding | None = None) -> Self:
        """Return the program that `save` gave, for the target that it was compiled for.

        The content is trusted: MIGraphX reads it without checks. It is of use to the same MIGraphX and kind of GPU.

        Raises:
            LinneError: MIGraphX cannot be used, or does not read it.
        """
        binding = binding or find_binding()
        with _explained(name, "loaded"):
            native = binding.load(content)
        return cls(native, name, target, binding)

    @property
    def batch_size(self) -> int:
        """How many images it takes at once."""
        return self.shape[0]

    def run(self, images: Floats) -> Floats:
        """Return the first output for a batch of float32 images of any number, in pieces of `batch_size`.

        Raises:
            LinneError: the images are of another size, or MIGraphX fails on them.
        """
        if images.shape[1:] != self.shape[1:]:
            raise LinneError(f"`{self.name}` takes images of {self.shape[1:]}, not of {images.shape[1:]}")
        return run_in_pieces(self._run, images, self.batch_size)

    def save(self) -> bytes:
        """Return the compiled program as the content of a `.mxr` file, for `load`."""
        native = self._open()
        with _explained(self.name, "saved"):
            return native.save()

    def close(self) -> None:
        """Let go of the program; its memory is given back when no thread runs it. A second call does nothing."""
        self._native = None

    def _run(self, images: Floats) -> Floats:
        native = self._open()
        with _explained(self.name, "run"):
            return native.run({self.input: np.ascontiguousarray(images, np.float32)})[0]

    def _open(self) -> Native:
        if self._native is None:
            raise RuntimeError("the program is closed")
        return self._native


def _one_input(native: Native, name: str) -> tuple[str, tuple[int, ...]]:
    """Return what the program called `name` takes, and its shape."""
    with _explained(name, "read"):
        parameters = native.parameters()
    if len(parameters) != 1:
        found = ", ".join(f"`{parameter}`" for parameter in parameters) or "none"
        raise LinneError(f"`{name}` takes {len(parameters)} inputs ({found}), expected one, of images")
    return next(iter(parameters.items()))


def _batches(images: Floats, size: int) -> list[Floats]:
    """Return `images` as batches of `size`; the last is filled up with the first of them."""
    rows = -(-len(images) // size) * size
    whole = np.ascontiguousarray(images[np.arange(rows) % len(images)], np.float32)
    return [whole[start : start + size] for start in range(0, rows, size)]


def require_gpu(binding: Binding) -> None:
    """Raise DeviceError where not even a graph of one node compiles for the GPU."""
    try:
        with _explained("a graph of one node", "compiled"):
            binding.parse(IDENTITY, 1).compile("gpu", exhaustive_tune=False)
    except LinneError as error:
        raise DeviceError(
            f"MIGraphX finds no GPU that it can use: {error.message}",
            hint="`linne doctor` looks for what is missing; --device cpu takes MIGraphX's reference, which is slow",
        ) from error


@contextmanager
def _explained(name: str, what: str) -> Iterator[None]:
    """Turn MIGraphX's errors into LinneError: that `name` cannot be `what`."""
    try:
        yield
    except Exception as error:  # RuntimeError mostly, and what pybind11 makes of C++'s others
        # Where in its source an error arose is left out; the name of the function that follows stays.
        reason = re.sub(r"^\S+\.[ch]pp:\d+: ", "", " ".join(str(error).split()))[:300]
        raise LinneError(f"`{name}` cannot be {what} by MIGraphX {loaded_version()}: {reason}") from error
