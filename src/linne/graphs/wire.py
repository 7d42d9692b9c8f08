"""What an ONNX file keeps outside itself, seen in its bytes: without the package onnx, and before a runtime reads it.

An ONNX file is a protobuf message: fields, each a number with a kind, and for texts, bytes and messages a length. Only
the fields that lead to tensors are entered; numbers are those of onnx.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

from linne.errors import LinneError

MAX_BYTES = 2**31 - 1
"""Protobuf's own limit on a message."""
MAX_DEPTH = 64
"""Of graphs in graphs, as Loop and If hold them."""

_CHILDREN: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
    "tensor": {},
}
_TENSOR_NAME, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 8, 13, 14


def require_whole(graph: bytes | Path, name: str) -> None:
    """Raise LinneError unless the ONNX file `graph`, called `name`, keeps all of its tensors in itself.

    A path in a file that somebody else wrote may point anywhere.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    data = _mapped(graph) if isinstance(graph, Path) else graph
    if len(data) > MAX_BYTES:
        raise LinneError(f"`{name}` has {len(data):,} bytes, and an ONNX file has at most {MAX_BYTES:,}")
    try:
        outside = next(_outside(memoryview(data), "model", 0), None)
    except (IndexError, ValueError) as error:
        raise LinneError(f"`{name}` cannot be read as ONNX: {error}", hint="copy or download it again") from error
    if outside is not None:
        raise LinneError(
            f"`{name}` keeps `{outside}` in another file, which is not followed",
            hint="where you trust it: `onnx.save(onnx.load(FILE), 'whole.onnx')` makes one file of up to 2 GB",
        )


def _mapped(path: Path) -> bytes | mmap.mmap:
    """Return the content of a file; only the few bytes that are looked at are read."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""


def _outside(data: memoryview, kind: str, depth: int) -> Iterator[str]:
    """Yield the names of tensors in a message of `kind` that are kept elsewhere."""
    if depth > 4 * MAX_DEPTH:  # graph, node, attribute, graph
        raise ValueError(f"graphs are nested deeper than {MAX_DEPTH} levels")
    children, name, elsewhere = _CHILDREN[kind], "", False
    for number, value in _fields(data):
        if kind == "tensor":
            if number == _TENSOR_NAME and isinstance(value, memoryview):
                name = bytes(value[:200]).decode("utf-8", "replace")
            # Either of the two is enough for one reader or another to look outside.
            elsewhere |= number == _TENSOR_EXTERNAL or (number == _TENSOR_LOCATION and value == 1)
        elif number in children and isinstance(value, memoryview):
            yield from _outside(value, children[number], depth + 1)
    if elsewhere:
        yield name or "a tensor"


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview | None]]:
    """Yield (number, value) of each field: a number, the bytes of a text or message, or None for fixed sizes."""
    position = 0
    while position < len(data):
        key, position = _number(data, position)
        kind = key & 7
        if kind == 0:
            value, position = _number(data, position)
            yield key >> 3, value
        elif kind == 2:
            length, position = _number(data, position)
            end = position + length
            if end > len(data):
                raise ValueError("it is cut short")
            yield key >> 3, data[position:end]
            position = end
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
            yield key >> 3, None
        else:
            raise ValueError("it is no protobuf message")


def _number(data: memoryview, position: int) -> tuple[int, int]:
    """Return the number of 7 bits a byte at `position`, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ValueError("it is cut short")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("it is no protobuf message")
