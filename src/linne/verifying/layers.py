"""Where two networks part that should answer the same: the first layer whose output is nowhere in the other.

Names do not say: exporters rename and runtimes rewrite. What a layer puts out is looked for by its values among all
tensors of its shape that the candidate computes on one image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from linne.bundle import Bundle
from linne.exports import graph_of
from linne.inference.predictor import Predictor
from linne.preprocess import Floats

if TYPE_CHECKING:
    from torch import nn

TOLERANCES = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 0.1, "int8": 0.5}
"""Of a tensor's deviation, as a share of its own size (both as root mean squares), by precision."""
FOLDED = 2
"""Layers that may be missing in the candidate before one that is there: a convolution goes into its batch norm, and
what is between them into both."""
MAX_TENSORS = 2_000

Tensors = Sequence[tuple[str, NDArray[Any]]]


def where_they_part(reference: Predictor, candidate: Predictor, images_NCHW: Floats) -> str | None:
    """Return a sentence on where the two part on one image; None where the candidate cannot be looked into."""
    if candidate.backend_name == "null" or reference.backend_name == "null":
        return None
    precision = candidate.how.precision
    inside = _inside(candidate, images_NCHW)
    if inside is None:
        return None
    tensors, whose = inside
    found = first_missing(_layers(reference, images_NCHW), dict(tensors), TOLERANCES[precision])
    if found is None:
        return f"{whose} computes what the reference does: what differs is the program that ran it"
    before, at = found
    after = f"`{before}` is the last layer that agrees" if before else "no layer before it agrees"
    return f"the two part at `{at}`; {after}"


def first_missing(layers: Tensors, tensors: Mapping[str, NDArray[Any]], tolerance: float) -> tuple[str, str] | None:
    """Return the last layer that agrees and the first from which on none does; None where all that matters agree.

    Args:
        layers: what the reference's layers put out, in the order in which they ran.
        tensors: everything that the candidate computes.
    """
    agrees = [is_among(value, tensors.values(), tolerance) for _, value in layers]
    for place, (name, _) in enumerate(layers):
        if not any(agrees[place : place + FOLDED + 1]):
            before = next((layers[k][0] for k in reversed(range(place)) if agrees[k]), "")
            return before, name
    return None


def is_among(value: NDArray[Any], others: Any, tolerance: float) -> bool:
    """Return whether one of `others` is `value` within `tolerance`, whatever its axes of length one."""
    flat = np.asarray(value, np.float64).ravel()
    size = max(float(np.sqrt(np.mean(flat**2))), 1e-12)
    for other in others:
        if other.size == flat.size and _squeezed(other) == _squeezed(value):
            apart = np.asarray(other, np.float64).ravel() - flat
            if float(np.sqrt(np.mean(apart**2))) <= tolerance * size:
                return True
    return False


def _squeezed(value: NDArray[Any]) -> tuple[int, ...]:
    return tuple(side for side in value.shape if side != 1)


def _layers(reference: Predictor, images_NCHW: Floats) -> Tensors:
    """Return what each layer of the reference puts out, in order, on the first image."""
    if reference.backend_name == "torch":
        return list(_torch_layers(reference.backend, images_NCHW[:1]))
    return _graph_tensors(graph_of(reference.bundle).path, images_NCHW[:1])


def _inside(candidate: Predictor, images_NCHW: Floats) -> tuple[Tensors, str] | None:
    """Return all that the candidate's network computes, by a runtime that can be asked, and what to call it."""
    if candidate.backend_name == "torch":
        if candidate.how.options.get("compile", "no") != "no":
            return None
        return list(_torch_layers(candidate.backend, images_NCHW[:1])), "its network, layer by layer,"
    path = _graph_path(candidate.bundle, candidate.how.precision)
    if path is None:
        return None
    return _graph_tensors(path, images_NCHW[:1]), "its graph, run by ONNX Runtime as it is written,"


def _graph_path(bundle: Bundle, precision: str) -> Path | None:
    from linne.exports import has_graph
    from linne.graphs.session import why_no_runtime

    return graph_of(bundle, precision).path if has_graph(bundle, precision) and why_no_runtime() is None else None


def _torch_layers(backend: Any, images_NCHW: Floats) -> Tensors:
    """Return the output of each module that has no modules in itself."""
    import torch

    network: nn.Module = backend.network
    outputs: list[tuple[str, NDArray[Any]]] = []

    def keep(name: str) -> Any:
        def hook(_module: nn.Module, _given: Any, made: Any) -> None:
            if isinstance(made, torch.Tensor):
                outputs.append((name, made.detach().float().cpu().numpy()))

        return hook

    leaves = [(name, module) for name, module in network.named_modules() if not any(module.children())]
    handles = [module.register_forward_hook(keep(name)) for name, module in leaves]
    try:
        backend.run(images_NCHW)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def _graph_tensors(path: Path, images_NCHW: Floats) -> Tensors:
    """Return every float tensor that the graph in `path` computes, in the order of its nodes."""
    import onnx

    from linne.graphs.editing import read_graph
    from linne.graphs.session import GraphSession

    model = read_graph(path)
    final = {item.name for item in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name and name not in final][:MAX_TENSORS]
    # Tensors without a type are given the one they have by ONNX Runtime itself.
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = GraphSession(model.SerializeToString(), path.name, optimise="none")
    found = session.run_all(images_NCHW)
    wanted = [*names, *final]
    return [(name, found[name]) for name in wanted if name in found and found[name].dtype.kind == "f"]
