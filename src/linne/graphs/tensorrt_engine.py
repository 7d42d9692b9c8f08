"""A graph compiled by TensorRT for one GPU of NVIDIA's, in the very numbers that the graph is written in.

Networks are strongly typed: TensorRT 11 knows nothing else, and in TensorRT 10 it is asked for. So what a layer
computes in is what the graph says, and TensorRT chooses kernels, not precisions.

An engine's file, a plan, is compiled code. TensorRT reads it unchecked, and runs what is in it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from linne.bundle_format import replace_file
from linne.errors import DeviceError, LinneError
from linne.graphs.pieces import pieces_of
from linne.graphs.tensorrt_cuda import Gpu, Recording
from linne.graphs.tensorrt_package import version_of
from linne.graphs.wire import require_whole
from linne.preprocess import Floats, UInt8

LEVEL = 3
"""TensorRT's own: how long its builder searches, of 0 to 5."""


def build_plan(
    tensorrt: Any,
    gpu: Gpu,
    graph: bytes,
    name: str,
    *,
    batch_size: int,
    level: int = LEVEL,
    timings: Path | None = None,
) -> bytes:
    """Return the plan of an ONNX file, for `gpu` and this TensorRT alone; it takes from seconds to many minutes.

    Args:
        graph: the file's content, called `name` in errors.
        batch_size: the most images that it computes at once, and what its kernels are chosen for, where the graph
            leaves that open. Fewer can be computed as well.
        timings: the file in which TensorRT finds how fast kernels were when it compiled before, for the same version
            and GPU, and keeps what it has timed now. It saves most of the time, and changes nothing else.

    Raises:
        LinneError: TensorRT does not read or compile it.
        DeviceError: TensorRT does not start on the GPU.
    """
    require_whole(graph, name)
    said: list[str] = []
    with gpu.current():
        logger = _logger(tensorrt, said)
        try:
            builder = tensorrt.Builder(logger)
        except TypeError as error:  # what its binding raises where there is nothing
            raise DeviceError(f"TensorRT {version_of(tensorrt)} does not start: {_why(said, error)}") from error
        network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = tensorrt.OnnxParser(network, logger)
        if not parser.parse(graph):
            reasons = [parser.get_error(index).desc() for index in range(parser.num_errors)]
            raise LinneError(f"`{name}` cannot be read by TensorRT {version_of(tensorrt)}: {_why(reasons or said)}")
        taken = _one_image_input(network, name)
        for index in range(network.num_outputs - 1, 0, -1):
            network.unmark_output(network.get_output(index))
        config = builder.create_builder_config()
        # On by default: products of numbers with 10 bits in place of 23.
        config.clear_flag(tensorrt.BuilderFlag.TF32)
        config.builder_optimization_level = level
        shape = tuple(taken.shape)
        if shape[0] == -1:
            profile = builder.create_optimization_profile()
            profile.set_shape(taken.name, (1, *shape[1:]), (batch_size, *shape[1:]), (batch_size, *shape[1:]))
            config.add_optimization_profile(profile)
        if timings is not None:
            _use_timings(config, timings)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise LinneError(f"`{name}` cannot be compiled by TensorRT {version_of(tensorrt)}: {_why(said)}")
        if timings is not None:
            _keep_timings(config, timings)
        return bytes(plan)


def _use_timings(config: Any, file: Path) -> None:
    """Let a builder begin with the timings in `file`, or with none where TensorRT does not take them."""
    try:
        content = file.read_bytes()
    except OSError:
        content = b""
    for begin in (content, b""):
        cache = config.create_timing_cache(begin)
        if cache is not None and config.set_timing_cache(cache, False):  # False: not of another GPU
            return


def _keep_timings(config: Any, file: Path) -> None:
    """Write a builder's timings to `file`; where that cannot be done, the next one takes its time again."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, bytes(config.get_timing_cache().serialize()))


class TensorRtEngine:
    """An engine with one image input: a batch in, its first output out. One thread at a time runs it."""

    def __init__(self, tensorrt: Any, gpu: Gpu, plan: bytes, name: str, *, cuda_graph: bool = False) -> None:
        """Open `plan`, called `name` in errors; `gpu` is the engine's from here on, and is closed with it.

        Args:
            plan: trusted: what is in it runs.
            cuda_graph: whether the kernels of a batch are launched as one, recorded for each size of a batch anew.

        Raises:
            LinneError: TensorRT does not read it.
            DeviceError: the GPU's memory does not suffice.
        """
        self.name = name
        self._tensorrt, self._gpu = tensorrt, gpu
        self._said: list[str] = []
        self._lock = threading.Lock()
        self._records = cuda_graph
        self._recording: Recording | None = None
        self._recorded = 0
        try:
            with gpu.current():
                self._open(plan)
        except BaseException:
            self.close()
            raise
        self.description = f"TensorRT {version_of(tensorrt)} on {gpu.facts.name}"

    def _open(self, plan: bytes) -> None:
        self._logger = _logger(self._tensorrt, self._said)
        self._runtime: Any = self._tensorrt.Runtime(self._logger)
        self._engine: Any = self._runtime.deserialize_cuda_engine(plan)
        version = version_of(self._tensorrt)
        if self._engine is None:
            raise LinneError(f"`{self.name}` cannot be opened by TensorRT {version}: {_why(self._said)}")
        self._context: Any = self._engine.create_execution_context()
        if self._context is None:
            raise DeviceError(f"TensorRT {version} cannot prepare `{self.name}`: {_why(self._said)}")
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        modes, number = self._tensorrt.TensorIOMode, self._tensorrt.DataType.FLOAT
        taken = [name for name in names if self._engine.get_tensor_mode(name) == modes.INPUT]
        given = [name for name in names if self._engine.get_tensor_mode(name) == modes.OUTPUT]
        if len(taken) != 1 or len(given) != 1 or any(self._engine.get_tensor_dtype(name) != number for name in names):
            raise LinneError(f"`{self.name}` takes {taken} and gives {given}, expected one of float32 each")
        self._taken, self._given = taken[0], given[0]
        shape = tuple(self._engine.get_tensor_shape(self._taken))
        self.fixed = shape[0] != -1
        """Whether it takes no other number of images than `batch_size`."""
        if not self.fixed:
            shape = tuple(self._engine.get_tensor_profile_shape(self._taken, 0)[2])
        self.batch_size, self.shape = shape[0], shape[1:]
        """The most images at once, and the shape of each."""
        self.num_layers = int(self._engine.num_layers)
        self._set_shape(self.batch_size)
        self._answer = tuple(self._context.get_tensor_shape(self._given))[1:]
        self._in = self._gpu.allocate(4 * self.batch_size * int(np.prod(self.shape)))
        self._out = self._gpu.allocate(4 * self.batch_size * int(np.prod(self._answer)))
        for name, address in ((self._taken, self._in), (self._given, self._out)):
            if not self._context.set_tensor_address(name, address):
                raise LinneError(f"`{self.name}`: TensorRT takes no memory for {name}: {_why(self._said)}")

    def run(self, images: Floats | UInt8) -> Floats:
        """Return the first output for a batch of float32 images of any number, in pieces of `batch_size` at most.

        Raises:
            LinneError: the images are of another size, or TensorRT fails on them.
        """
        if images.shape[1:] != self.shape:
            raise LinneError(f"`{self.name}` takes images of {self.shape}, not of {images.shape[1:]}")
        size = self.batch_size if self.fixed else min(self.batch_size, max(len(images), 1))
        starts = range(0, max(len(images), 1), size)
        pieces = pieces_of(images, size) if self.fixed else [images[start : start + size] for start in starts]
        with self._lock:
            if self._context is None:
                raise RuntimeError("the engine is closed")
            with self._gpu.current():
                answers = [self._run(np.ascontiguousarray(piece, np.float32)) for piece in pieces if len(piece)]
        return np.concatenate([*answers, np.zeros((0, *self._answer), np.float32)])[: len(images)]

    def _run(self, images: Floats) -> Floats:
        answer = np.empty((len(images), *self._answer), np.float32)
        self._set_shape(len(images))
        self._gpu.copy_in(self._in, images.ctypes.data, images.nbytes)
        if self._records:
            self._launch(len(images))
        else:
            self._enqueue()
        self._gpu.copy_out(answer.ctypes.data, self._out, answer.nbytes)
        self._gpu.wait()
        return answer

    def _set_shape(self, count: int) -> None:
        if not self._context.set_input_shape(self._taken, (count, *self.shape)):
            raise LinneError(f"`{self.name}` does not take {count} images: {_why(self._said)}")

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._gpu.stream):
            raise LinneError(f"`{self.name}` fails in TensorRT: {_why(self._said)}")

    def _launch(self, count: int) -> None:
        """Run what was recorded for this number of images; it is recorded again where the last one was another.

        TensorRT has to have run once with a shape before it can be recorded.
        """
        if self._recording is None or self._recorded != count:
            self._enqueue()
            self._gpu.wait()
            self._forget()
            self._recording, self._recorded = self._gpu.record(self._enqueue), count
        self._gpu.launch(self._recording)

    def _forget(self) -> None:
        if self._recording is not None:
            self._gpu.forget(self._recording)
        self._recording = None

    def close(self) -> None:
        """Give the GPU's memory back. A second call does nothing."""
        with self._lock:
            if not self._gpu.is_open:
                return
            try:
                with suppress(DeviceError), self._gpu.current():  # after an error of the GPU nothing can be freed
                    self._forget()
            finally:
                # Each holds on to the next.
                self._context = None
                self._engine = None
                self._runtime = None
                self._gpu.close()


def _one_image_input(network: Any, name: str) -> Any:
    """Return the one input of `network`.

    Raises:
        LinneError: there are several, or none.
    """
    if network.num_inputs != 1:
        names = ", ".join(f"`{network.get_input(index).name}`" for index in range(network.num_inputs)) or "none"
        raise LinneError(f"`{name}` takes {network.num_inputs} inputs ({names}), expected one, of images")
    return network.get_input(0)


def _logger(tensorrt: Any, said: list[str]) -> Any:
    """Return what TensorRT tells its errors to: they are added to `said`, and nothing is written to stderr."""
    severity = tensorrt.ILogger.Severity

    class Logger(tensorrt.ILogger):  # type: ignore[misc] # the module is known when it runs
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)  # what pybind11 asks of a class that inherits from one of its own

        def log(self, level: Any, message: str) -> None:
            if level in (severity.INTERNAL_ERROR, severity.ERROR):
                said.append(message)

    return Logger()


def _why(said: Sequence[str], error: Exception | None = None) -> str:
    """Return TensorRT's first error, which the others follow from, without line breaks."""
    return " ".join((said[0] if said else str(error or "it does not say why")).split())[:300]
