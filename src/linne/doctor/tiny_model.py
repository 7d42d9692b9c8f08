"""The model that every inference runtime is tried with: y = relu(x @ w), whose answer is known by heart.

numpy is imported where it is used: the doctor itself, and a probe of what is not there, go without.
"""

from __future__ import annotations

import itertools
import math
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TOLERANCE = 1e-2
"""Of the sums below, which are whole numbers up to 9: room for fp16 and TF32, none for a wrong kernel."""
WEIGHTS = ((1, -1), (2, -2), (1, 0))
INPUT = ((1, 2, 3),)
EXPECTED = (8.0, 0.0)


def tiny_input() -> NDArray[np.float32]:
    """Return the input `x`, 1 by 3."""
    import numpy as np

    return np.array(INPUT, np.float32)


def tiny_model() -> bytes:
    """Return the model in ONNX (opset 13), x of 1 by 3, w of 3 by 2, as protobuf by hand.

    Field numbers are from onnx.proto3: a package to write sixteen fields would be one more to install.
    """
    tensor = _number(1, 3) + _number(1, 2) + _number(2, 1) + _bytes(8, b"w")
    tensor += _bytes(9, struct.pack("<6f", *itertools.chain(*WEIGHTS)))
    product = _bytes(1, b"x") + _bytes(1, b"w") + _bytes(2, b"z") + _bytes(4, b"MatMul")
    positive = _bytes(1, b"z") + _bytes(2, b"y") + _bytes(4, b"Relu")
    graph = _bytes(1, product) + _bytes(1, positive) + _bytes(2, b"tiny") + _bytes(5, tensor)
    graph += _bytes(11, _value(b"x", (1, 3))) + _bytes(12, _value(b"y", (1, 2)))
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _bytes(1, b"") + _number(2, 13))


def is_right(result: object, expected: object = EXPECTED) -> bool:
    """Return whether a list of numbers, as a child reported it, is what was expected, within rounding."""
    values = result if isinstance(result, list) else []
    wanted = list(expected) if isinstance(expected, (list, tuple)) else []
    if not wanted or len(values) != len(wanted) or not all(isinstance(value, float) for value in [*values, *wanted]):
        return False
    allowed = max(map(abs, wanted)) * TOLERANCE
    return all(math.isfinite(a) and abs(a - b) <= allowed for a, b in zip(values, wanted, strict=True))


def as_numbers(result: Any) -> list[float]:
    """Return what a runtime computed as a flat list, for a report."""
    import numpy as np

    return [float(value) for value in np.asarray(result).ravel()]


def _number(field: int, value: int) -> bytes:
    return bytes([field << 3, value])  # both below 128: one byte each


def _bytes(field: int, value: bytes) -> bytes:
    size = len(value)
    length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
    return bytes([field << 3 | 2]) + length + value


def _value(name: bytes, shape: tuple[int, ...]) -> bytes:
    dimensions = b"".join(_bytes(1, _number(1, size)) for size in shape)
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, 1) + _bytes(2, dimensions)))
