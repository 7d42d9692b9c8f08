"""Tensors from an ONNX file: its initialisers, by name. Its graph is not looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from linne.errors import LinneError

FLOATS = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")


def load_onnx(path: Path) -> dict[str, torch.Tensor]:
    """Return the floating-point initialisers; exporters of torch networks keep the parameters' names where they can.

    Data outside the file is refused: a path in a file that somebody else wrote may point anywhere.

    Raises:
        LinneError: the package `onnx` is missing, the file is damaged, or it keeps data in other files.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise LinneError(f"`{path}` needs the package onnx to be read", hint="pip install onnx") from error
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own kind among them
        raise LinneError(f"`{path}` cannot be read as ONNX: {error}", hint="copy or download it again") from error
    tensors: dict[str, torch.Tensor] = {}
    for item in model.graph.initializer:
        if item.data_location == onnx.TensorProto.EXTERNAL:
            raise LinneError(
                f"`{path}` keeps `{item.name}` in another file, which is not followed",
                hint="where you trust it: `onnx.save(onnx.load(FILE), 'whole.onnx')` makes one file of up to 2 GB",
            )
        if onnx.TensorProto.DataType.Name(item.data_type) in FLOATS:
            try:
                values = numpy_helper.to_array(item)
            except (ValueError, TypeError) as error:
                raise LinneError(f"`{path}`: `{item.name}` is damaged: {error}") from error
            tensors[item.name] = torch.from_numpy(np.array(values, dtype=np.float32))
    return tensors
