"""What is changed and looked up in a TensorFlow Lite file, which is a flatbuffer with, perhaps, a zip behind it."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from typing import Any

from linne.graphs.tflite_model import IDENTIFIER

HEAVY = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
ANY = -1
"""How the format writes a size that is open."""
_WRITTEN = (1980, 1, 1, 0, 0, 0)
"""When a zip says that its files are of: the same bytes on every call."""


def of_any_batch(content: bytes) -> bytes:
    """Return the file with the first size of its inputs and outputs left open, as the format writes it.

    Whether its operators bear that is for whoever runs it to find out.
    """
    import flatbuffers

    model = _model(content)
    graph = model.subgraphs[0]
    for place in (*graph.inputs, *graph.outputs):
        tensor = graph.tensors[place]
        tensor.shapeSignature = [ANY, *tensor.shape[1:]]
    builder = flatbuffers.Builder(len(content) + 1024)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


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
            tensor = graph.tensors[operator.outputs[0]].name.decode()
            name = _in_torch(tensor)
            while name in found:
                name += "'"
            found[name] = tensor
    return found


def _in_torch(tensor: str) -> str:
    path = tensor.split(";;")[-1].partition(";")[0]
    steps = [re.fullmatch(r"(?:.*\.)?_*[A-Za-z0-9]+_(.+)", step) for step in path.split("/")]
    return ".".join(step[1] for step in steps if step is not None).removeprefix("network.") or path


def _model(content: bytes) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
