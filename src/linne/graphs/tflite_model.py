"""A TensorFlow Lite file opened with LiteRT's interpreter, after a look at what is in it; TensorFlow is not needed."""

from __future__ import annotations

import contextlib
import math
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np

from linne.errors import LinneError
from linne.graphs.pieces import run_in_pieces
from linne.graphs.stderr import caught_stderr, write_stderr
from linne.host import processes_here, usable_cores
from linne.preprocess import Floats, UInt8

PACKAGE = "ai-edge-litert"
INSTALL = "pip install 'linne[tflite]'"
IDENTIFIER = b"TFL3"
"""At byte 4 of every file of this format."""
MAX_BYTES = 2**31 - 1
"""Of a flatbuffer, whose offsets are signed numbers of 32 bits."""
MOST_NUMBERS = 2**31
"""In one tensor: LiteRT takes the memory for what a file says, as it opens it."""
XNNPACK, NONE = "xnnpack", "none"
_NEWS = (b"INFO: Created TensorFlow Lite ", b"INFO: Initialized TensorFlow Lite ")
_DELEGATE = "DELEGATE"
"""What LiteRT calls an operator that stands for those which a delegate took."""


def why_no_tflite() -> str | None:
    """Return why LiteRT's interpreter cannot be imported, or None."""
    try:
        from ai_edge_litert import interpreter, schema_py_generated  # noqa: F401
    except (ImportError, OSError) as error:
        return f"{PACKAGE} cannot be imported ({error}); {INSTALL}"
    return None


def require_plain(content: bytes, name: str) -> None:
    """Raise LinneError unless the file `content`, called `name`, is whole and made of TensorFlow Lite's own operators.

    Custom operators, TensorFlow's own among them (`Flex...`), are code of whoever made the file. LiteRT believes a
    file's numbers of tensors, buffers and operators, and ends the process where they are wrong: they are compared here.
    What is not covered is a hole in an operator itself.
    """
    from ai_edge_litert import schema_py_generated as schema

    if len(content) > MAX_BYTES:
        raise LinneError(f"`{name}` has {len(content):,} bytes, and a TensorFlow Lite file has at most {MAX_BYTES:,}")
    if content[4:8] != IDENTIFIER:
        raise LinneError(f"`{name}` is no TensorFlow Lite file", hint="copy or download it again")
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        custom = _custom_operator(model, schema.BuiltinOperator.CUSTOM)
        # 0 and 1 say that the numbers are in the flatbuffer; larger ones, where behind it they are.
        places = [(buffer.offset, buffer.offset + buffer.size) for buffer in model.buffers]
        outside = any(start > 1 and end > len(content) for start, end in places) or bool(model.externalBuffers)
        problem = _wrong_number(model)
    except (struct.error, IndexError, ValueError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise LinneError(f"`{name}` cannot be read as TensorFlow Lite: {error}", hint="copy it again") from error
    if custom is not None:
        raise LinneError(
            f"`{name}` needs the custom operator `{ascii(custom)[1:-1]}`, and only TensorFlow Lite's own are run"
        )
    if outside:
        raise LinneError(f"`{name}` keeps tensors outside itself, which are not followed")
    if problem is not None:
        raise LinneError(f"`{name}` cannot be read as TensorFlow Lite: {problem}", hint="copy it again")


def _custom_operator(model: Any, custom: int) -> str | None:
    """Return the name of an operator that is not TensorFlow Lite's own, or None.

    LiteRT goes by the larger of the two numbers that an operator has, an older one of a byte and a newer one.
    """
    for code in model.operatorCodes or ():
        if code.customCode or max(code.builtinCode, code.deprecatedBuiltinCode) == custom:
            return (code.customCode or b"")[:100].decode("utf-8", "replace")
    return None


def _wrong_number(model: Any) -> str | None:
    """Return what in the file points at something that is not there, or None."""
    if len(model.subgraphs or ()) != 1:
        return f"it has {len(model.subgraphs or ())} graphs, expected 1"
    graph = model.subgraphs[0]
    num_tensors, num_codes = len(graph.tensors), len(model.operatorCodes)
    for tensor in graph.tensors:
        if not 0 <= tensor.buffer < len(model.buffers):
            return f"a tensor is in buffer {tensor.buffer} of {len(model.buffers)}"
        shape = [] if tensor.shape is None else [abs(int(size)) for size in tensor.shape]
        if math.prod(shape) > MOST_NUMBERS:
            return f"a tensor has {' x '.join(map(str, shape))} numbers"
    ends = [graph.inputs, graph.outputs]
    for operator in graph.operators:
        if not 0 <= operator.opcodeIndex < num_codes:
            return f"an operator is of kind {operator.opcodeIndex} of {num_codes}"
        ends += [operator.inputs, operator.outputs, operator.intermediates]
    for places in ends:
        for place in () if places is None else places:
            if not -1 <= place < num_tensors:  # -1 stands for an input that is left out
                return f"tensor {place} of {num_tensors} is asked for"
    if any(signature.subgraphIndex != 0 for signature in model.signatureDefs or ()):
        return "a signature is of another graph than the first"
    return None


class TfliteModel:
    """A network with one image input on the CPU: a batch in, its first output out."""

    def __init__(self, content: bytes, name: str, *, num_threads: int | None = None, delegate: str = XNNPACK) -> None:
        """Open the file `content`, called `name` in errors.

        Args:
            num_threads: of the CPU; None for this process's share of those it may use.
            delegate: `xnnpack`, or `none` for LiteRT's own kernels.

        Raises:
            LinneError: it cannot be read, has custom operators, or takes something else than images.
        """
        require_plain(content, name)
        self.name = name
        self._version = metadata.version(PACKAGE)
        self._interpreter: Any = self._open(content, num_threads, delegate)
        try:
            (taken, *more), (given, *_) = self._interpreter.get_input_details(), self._interpreter.get_output_details()
            own, every = _taken_by_delegates(self._interpreter._get_ops_details())
        except ValueError as error:  # of names that are no text as well
            raise LinneError(f"`{name}` cannot be read by LiteRT {self._version}: {_said(error)}") from error
        shape = [int(size) for size in taken["shape_signature"]]
        if more or len(shape) != 4 or any(size < 1 for size in shape[1:]):
            seen = " x ".join(map(str, shape))
            raise LinneError(f"`{name}` takes {1 + len(more)} inputs, {seen} the first; expected one, of images")
        self._input, self._output = int(taken["index"]), int(given["index"])
        self.shape = tuple(shape[1:])
        """Of an image, as the file has it."""
        self.batch_size: int | None = None if shape[0] < 1 else shape[0]
        """How many images it takes at once; None for any number, where its file says so."""
        self._now = int(taken["shape"][0])
        self._lock = threading.Lock()
        self.notes = (
            (f"XNNPACK runs none of the {every} operators of `{name}`; LiteRT's own kernels do",)
            if delegate == XNNPACK and own == 0
            else ()
        )
        """Of what a person should know."""
        runs = f"XNNPACK ({own} of {every} operators)" if delegate == XNNPACK else "its own kernels"
        self.description = f"LiteRT {self._version} with {runs} on CPU"

    def run(self, images: Floats | UInt8) -> Floats:
        """Return the first output for a batch of images, of the kind of number that it takes, one row each.

        Raises:
            LinneError: LiteRT fails on it.
        """
        if len(images) == 0:
            raise LinneError(f"`{self.name}` was given no image")
        if self.batch_size is not None:
            return run_in_pieces(self._run_once, images, self.batch_size)
        return self._run_once(images)

    def _run_once(self, images: Any) -> Floats:
        with self._lock:  # one interpreter has one set of tensors
            return self._computed(images)

    def _computed(self, images: Any) -> Floats:
        model = self._interpreter
        try:
            if len(images) != self._now:
                # `strict`: only what the file itself leaves open.
                model.resize_tensor_input(self._input, [len(images), *self.shape], strict=True)
                model.allocate_tensors()
                self._now = len(images)
            model.set_tensor(self._input, np.ascontiguousarray(images))
            model.invoke()
            return np.array(model.get_tensor(self._output), dtype=np.float32)
        except (RuntimeError, ValueError, MemoryError) as error:
            self._now = 0  # whatever state it is in
            raise LinneError(f"`{self.name}` fails in LiteRT {self._version}: {_said(error)}") from error

    def _open(self, content: bytes, num_threads: int | None, delegate: str) -> Any:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        resolvers = {XNNPACK: OpResolverType.BUILTIN, NONE: OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}
        try:
            with _without_its_news():
                interpreter = Interpreter(
                    model_content=content,
                    num_threads=num_threads or max(usable_cores() // processes_here(), 1),
                    experimental_op_resolver_type=resolvers[delegate],
                )
                interpreter.allocate_tensors()
        except (RuntimeError, ValueError, MemoryError) as error:
            raise LinneError(f"`{self.name}` cannot be opened by LiteRT {self._version}: {_said(error)}") from error
        return interpreter


def _taken_by_delegates(operators: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Return how many operators delegates took, and how many there are.

    LiteRT lists a delegate's part as one more operator, with what goes in and what comes out, beside those it took.
    Those are what lies between: from its outputs back to its inputs.
    """
    own = [operator for operator in operators if operator["op_name"] != _DELEGATE]
    maker = {int(tensor): place for place, operator in enumerate(own) for tensor in operator["outputs"]}
    taken: set[int] = set()
    for part in operators:
        if part["op_name"] != _DELEGATE:
            continue
        seen = {int(tensor) for tensor in part["inputs"]}
        waiting = [int(tensor) for tensor in part["outputs"]]
        while waiting:
            tensor = waiting.pop()
            if tensor not in seen and tensor in maker:
                taken.add(maker[tensor])
                waiting += [int(before) for before in own[maker[tensor]]["inputs"]]
            seen.add(tensor)
    return len(taken), len(own)


@contextlib.contextmanager
def _without_its_news() -> Iterator[None]:
    """Keep LiteRT's own lines of `INFO:`, which nothing else turns off, from stderr; what else is said comes after."""
    try:
        with caught_stderr() as said:
            yield
    finally:
        lines = b"".join(said).splitlines(keepends=True)
        write_stderr(b"".join(line for line in lines if not line.startswith(_NEWS)))


def _said(error: Exception) -> str:
    """Return what LiteRT says in an error, in one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
