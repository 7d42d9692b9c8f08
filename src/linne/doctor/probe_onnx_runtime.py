"""The child that opens one inference runtime: `python -m linne.doctor.runtime_probe [--provider NAME]`.

ONNX Runtime lists the providers that it was built with, not those that run here, and opens a session on the CPU in
place of one that does not load. So each is asked alone, told to leave nothing to the CPU, and asked who it was.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from linne.doctor.child import report_line

TOLERANCE = 1e-2
"""Of the sums below, which are whole numbers up to 9: room for fp16 and TF32, none for a wrong kernel."""
CPU = "CPUExecutionProvider"


def tiny_model() -> bytes:
    """Return an ONNX model (opset 13) of `y = relu(x @ w)`, x of 1 by 3, w of 3 by 2, as protobuf by hand.

    Field numbers are from onnx.proto3: a package to write sixteen fields would be one more to install.
    """
    weights = np.array([[1, -1], [2, -2], [1, 0]], "<f4")
    tensor = _number(1, 3) + _number(1, 2) + _number(2, 1) + _bytes(8, b"w") + _bytes(9, weights.tobytes())
    product = _bytes(1, b"x") + _bytes(1, b"w") + _bytes(2, b"z") + _bytes(4, b"MatMul")
    positive = _bytes(1, b"z") + _bytes(2, b"y") + _bytes(4, b"Relu")
    graph = _bytes(1, product) + _bytes(1, positive) + _bytes(2, b"tiny") + _bytes(5, tensor)
    graph += _bytes(11, _value(b"x", (1, 3))) + _bytes(12, _value(b"y", (1, 2)))
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _bytes(1, b"") + _number(2, 13))


def _number(field: int, value: int) -> bytes:
    return bytes([field << 3, value])  # both below 128: one byte each


def _bytes(field: int, value: bytes) -> bytes:
    size = len(value)
    length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
    return bytes([field << 3 | 2]) + length + value


def _value(name: bytes, shape: tuple[int, ...]) -> bytes:
    dimensions = b"".join(_bytes(1, _number(1, size)) for size in shape)
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, 1) + _bytes(2, dimensions)))


def _say(event: str, **facts: Any) -> None:
    sys.stdout.write(report_line(event, **facts))
    sys.stdout.flush()


def _session(runtime: Any, provider: str, strict: bool) -> Any:
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, or found below
    if strict and provider != CPU:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return runtime.InferenceSession(tiny_model(), options, providers=[provider], enable_fallback=False)


def _open(runtime: Any, provider: str) -> None:
    """Report whether `provider` computes the model; if not, who does instead."""
    facts: dict[str, Any] = {"provider": provider, "raised": "", "computes": [], "result": None, "strict": True}
    try:
        try:
            session = _session(runtime, provider, strict=True)
        except Exception as error:  # any kind: the loose session tells whether it does anything at all
            facts.update(strict=False, raised=f"{type(error).__name__}: {error}"[:300])
            session = _session(runtime, provider, strict=False)
        facts["computes"] = list(session.get_providers())
        result = session.run(["y"], {"x": np.array([[1, 2, 3]], np.float32)})[0]
        facts["result"] = np.asarray(result).ravel().astype(float).tolist()
    except Exception as error:
        facts["raised"] = f"{type(error).__name__}: {error}"[:300]
    _say("session", **facts)


def is_right(result: object) -> bool:
    """Return whether a session's result is that of the model: [8, 0]."""
    values = result if isinstance(result, list) else []
    if len(values) != 2 or not all(isinstance(value, float) for value in values):
        return False
    return bool(np.allclose(values, [8.0, 0.0], rtol=0, atol=8 * TOLERANCE))


def main(words: Sequence[str] | None = None) -> int:
    """Report the providers that ONNX Runtime lists, or open the one asked for."""
    parser = argparse.ArgumentParser(description="open a tiny model with one provider of ONNX Runtime")
    parser.add_argument("--provider")
    asked = parser.parse_args(words)
    try:
        # By name: it is not among linne's dependencies, and nothing of it is typed.
        runtime: Any = importlib.import_module("onnxruntime")
        listed, version = runtime.get_available_providers(), runtime.__version__
    except ModuleNotFoundError as error:
        missing = error.name == "onnxruntime"
        _say("missing" if missing else "broken", reason=f"{error}")
        return 0
    except Exception as error:  # a wheel for another system raises OSError, a half-removed one AttributeError
        _say("broken", reason=f"{type(error).__name__}: {error}"[:300])
        return 0
    _say("runtime", version=version, providers=list(listed))
    if asked.provider:
        _open(runtime, asked.provider)
    return 0


if __name__ == "__main__":
    sys.exit(main())
