"""What an exported graph says of itself: its labels, its input, its version; and what it does not say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import linne
from linne.bundle import Bundle
from linne.exports import identity_of
from linne.importing.inputs import IN_GRAPHS
from linne.preprocess import InputSpec

LABELS, VERSION, OF = "labels", "linne.version", "linne.bundle"
"""Keys of `metadata_props`, with `importing.inputs.IN_GRAPHS`. Programs of others find the names under the first."""


def tidy(content: bytes) -> bytes:
    """Return the graph without notes on where in whose source each operator comes from: paths of this machine."""
    import onnx

    model = onnx.load_model_from_string(content)
    for holder in _holders(model):
        holder.ClearField("doc_string")
        if "metadata_props" in holder.DESCRIPTOR.fields_by_name:
            holder.ClearField("metadata_props")
    return bytes(model.SerializeToString())


def _holders(model: Any) -> Iterator[Any]:
    """Yield all that may hold notes: the model, its functions and graphs, their nodes and values."""
    yield model
    graphs = [model.graph]
    nodes = []
    for function in model.functions:
        yield function
        nodes += function.node
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield graph
            yield from (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
            nodes += graph.node
        else:
            node = nodes.pop()
            yield node
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    graphs.append(attribute.g)
                graphs += attribute.graphs


def describe(content: bytes, bundle: Bundle, taken: InputSpec) -> bytes:
    """Return the graph with labels, input and versions in its `metadata_props`, instead of what was there.

    Args:
        taken: how images are prepared for this graph: of one that takes pixels, they are as they are.
    """
    import onnx

    model = onnx.load_model_from_string(content)
    notes = {
        LABELS: json.dumps(list(bundle.labels)),
        IN_GRAPHS: json.dumps(taken.to_dict()),
        VERSION: linne.__version__,
        OF: identity_of(bundle),
    }
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, notes)
    return bytes(model.SerializeToString())
