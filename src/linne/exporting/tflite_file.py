"""What is changed and looked up in a TensorFlow Lite file, which is a flatbuffer with, perhaps, a zip behind it."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from linne.errors import LinneError
from linne.graphs.tflite_model import IDENTIFIER

HEAVY = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
ANY = -1
"""How the format writes a size that is open."""
_WRITTEN = (1980, 1, 1, 0, 0, 0)
"""When a zip says that its files are of: the same bytes on every call."""


def of_any_batch(content: bytes) -> bytes:
    """Return the file, made for one image, with the number of images left open as the format writes it.

    That is the first size of what goes in and comes out, and of what is reshaped to one image. Whether all operators
    bear it is for whoever runs it to find out: some fail, others answer wrongly.
    """
    import flatbuffers

    model = _model(content)
    graph = model.subgraphs[0]
    for place in (*graph.inputs, *graph.outputs):
        tensor = graph.tensors[place]
        tensor.shapeSignature = [ANY, *tensor.shape[1:]]
    for place in _only_shapes(model):
        buffer = model.buffers[graph.tensors[place].buffer]
        if buffer.data is None:
            raise LinneError("a network computes the shape of what it reshapes")
        sizes = np.frombuffer(bytes(buffer.data), np.int32).copy()
        if sizes[0] == 1:
            sizes[0] = ANY
            buffer.data = np.frombuffer(sizes.tobytes(), np.uint8)
    builder = flatbuffers.Builder(len(content) + 1024)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def _only_shapes(model: Any) -> set[int]:
    """Return the tensors that are shapes for a reshape, and nothing else to any operator."""
    from ai_edge_litert import schema_py_generated as schema

    shapes: set[int] = set()
    others: set[int] = set()
    for operator in model.subgraphs[0].operators:
        taken = [int(place) for place in operator.inputs if place >= 0]  # -1: left out
        reshapes = model.operatorCodes[operator.opcodeIndex].builtinCode == schema.BuiltinOperator.RESHAPE
        shapes.update(taken[1:2] if reshapes else ())
        others.update(taken[:1] if reshapes else taken)
    return shapes - others


def with_texts(content: bytes, texts: Mapping[str, str]) -> bytes:
    """Return the file with small files appended in a zip, where TensorFlow's own tools keep labels.

    An interpreter reads the flatbuffer and no further; anything that opens zips opens the rest.
    """
    stream = io.BytesIO(content)
    with zipfile.ZipFile(stream, "a") as archive:
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name, _WRITTEN), text)
    return stream.getvalue()


def layers_of(content: bytes) -> dict[str, str]:
    """Return the convolutions and matrix products by their names in torch, with what the file calls what they give.

    A converter writes the modules that an operator came from into the names of tensors, the layer itself last:
    `...;;timm.models.resnet.ResNet/torch.nn.modules.container.Sequential_layer1/torch.nn.modules.conv.Conv2d_0;1` is
    `layer1.0`.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = _model(content)
    heavy = {getattr(schema.BuiltinOperator, name) for name in HEAVY}
    graph = model.subgraphs[0]
    found: dict[str, str] = {}
    for operator in graph.operators:
        if model.operatorCodes[operator.opcodeIndex].builtinCode in heavy:
            (given, *_), (_, weights, *_) = operator.outputs, operator.inputs
            tensor = graph.tensors[given].name.decode()
            # What the network gives has the name of that instead.
            name = _in_torch(graph.tensors[weights].name.decode() if given in graph.outputs else tensor)
            while name in found:
                name += "'"
            found[name] = tensor
    return found


def _in_torch(tensor: str) -> str:
    path = tensor.split(";;")[-1].partition(";")[0]
    steps = [re.fullmatch(r"(?:.*\.)?_*[A-Za-z0-9]+_([^.]+)", step) for step in path.split("/")]
    return ".".join(step[1] for step in steps if step is not None).removeprefix("network.") or path


def _model(content: bytes) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
