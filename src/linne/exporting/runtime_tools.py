"""ONNX Runtime's own tools for graphs, which are imported in a way of their own."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def importable() -> Iterator[None]:
    """Let ONNX Runtime's tools be imported inside, and leave Python's path as it was.

    Their modules import one another by names as plain as `float16` and `fusion_utils`, from a folder that their package
    puts on the path when it is imported first, and only then. It would stay there, before whoever imports next.
    """
    found = importlib.util.find_spec("onnxruntime")
    before = list(sys.path)
    if found is not None and found.origin is not None:
        sys.path.append(str(Path(found.origin).parent / "transformers"))
    try:
        yield
    finally:
        sys.path[:] = before
