"""ONNX files brought to the form that bundles keep, by the package onnx.

The graph itself is left as it is: nodes are put before its input (other order of channels, other layout, other kind
of number) and its output is taken elsewhere or goes through more nodes. All of it is data; nothing in a file is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from linne.errors import LinneError, RecipeError, suggest
from linne.graphs.session import INSTALL
from linne.graphs.wire import MAX_BYTES, require_whole

if TYPE_CHECKING:
    from onnx import ModelProto

Layout = Literal["NCHW", "NHWC", "NHW"]
LAYOUTS: tuple[Layout, ...] = ("NCHW", "NHWC")
"""Of four dimensions; three are rows and columns of grey images, as in Keras' first tutorial."""
TYPES = ("FLOAT", "FLOAT16", "DOUBLE", "UINT8")
"""Of inputs that an image can be."""
LEAST_PROBABILITY = 1e-38
"""Under which the logarithm of a probability does not fall: about the smallest float32 with all its digits."""
RESHAPERS = ("Identity", "Cast")
"""Nodes between a Softmax and an output that change no number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageInput:
    """The input of a graph that takes images."""

    name: str
    type: str
    """One of `TYPES`."""
    layout: Layout
    batch: int | None
    """How many images at once; None for any number."""
    channels: int
    height: int | None
    """None where the graph takes any."""
    width: int | None


def read_graph(path: Path) -> ModelProto:
    """Return the ONNX file, checked: nothing outside it, and sound by onnx's own checker.

    Raises:
        LinneError: the package onnx is missing, or the file is too large, damaged, or keeps data in other files.
    """
    try:
        import onnx
    except ImportError as error:
        raise LinneError(f"`{path}` needs the package onnx to be imported", hint=INSTALL) from error
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise LinneError(f"`{path}` has {size:,} bytes, and an ONNX file has at most {MAX_BYTES:,}")
    data = path.read_bytes()
    require_whole(data, str(path))
    try:
        model = onnx.load_model_from_string(data)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's own kind and the checker's
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise LinneError(
            f"`{path}` cannot be read as ONNX: {reason}", hint="copy or download it again, or export it anew"
        ) from error
    return model


def image_input(model: ModelProto, name: str, *, layout: str | None = None) -> ImageInput:
    """Return the one input of the graph in file `name`; its layout is told by where the 1 or 3 channels are.

    Raises:
        LinneError: there are several inputs, or one that no image can be.
        RecipeError: both layouts are possible and `layout` says none.
    """
    from onnx import TensorProto

    stored = {item.name for item in model.graph.initializer}  # old files list them as inputs as well
    inputs = [item for item in model.graph.input if item.name not in stored]
    if len(inputs) != 1:
        found = ", ".join(f"`{item.name}`" for item in inputs) or "none"
        raise LinneError(f"the graph `{name}` takes {len(inputs)} inputs ({found}), expected one, of images")
    (item,) = inputs
    tensor = item.type.tensor_type
    kind = TensorProto.DataType.Name(tensor.elem_type)
    shape = [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim]
    if len(shape) not in (3, 4) or kind not in TYPES:
        said = " x ".join("?" if size is None else str(size) for size in shape)
        raise LinneError(
            f"the graph `{name}` takes `{item.name}`, {kind.lower()} of shape {said or 'unknown'}, expected a batch of "
            "images: float, half, double or uint8 of four dimensions, or of three for grey ones"
        )
    chosen: Layout = "NHW" if len(shape) == 3 else _layout(shape, name, layout)
    if chosen == "NHW":
        shape = [*shape, 1]
    axis = 1 if chosen == "NCHW" else 3
    height, width = shape[2:] if chosen == "NCHW" else shape[1:3]
    return ImageInput(
        name=item.name,
        type=kind,
        layout=chosen,
        batch=shape[0],
        channels=shape[axis] or 3,
        height=height,
        width=width,
    )


def _layout(shape: list[int | None], name: str, said: str | None) -> Layout:
    """Return where the channels are: second or last, whichever is 1 or 3."""
    if said is not None and said.upper() not in LAYOUTS:
        raise RecipeError(f"no layout `{said}` of pixels", hint=suggest(said.upper(), LAYOUTS) or "use nchw or nhwc")
    possible = [layout for layout, axis in zip(LAYOUTS, (1, 3), strict=True) if shape[axis] in (1, 3)]
    if said is not None:
        chosen = LAYOUTS[LAYOUTS.index(said.upper())]
        if shape[1 if chosen == "NCHW" else 3] not in (1, 3, None):
            raise RecipeError(f"the graph `{name}` takes {shape}, which has no 1 or 3 channels as {chosen} has them")
        return chosen
    if len(possible) != 1:
        seen = " x ".join("?" if size is None else str(size) for size in shape)
        raise RecipeError(
            f"the graph `{name}` takes {seen}, of which the channels may be the second or the last"
            if possible or None in shape
            else f"the graph `{name}` takes {seen}, of which neither the second nor the last are 1 or 3 channels",
            hint="use --preprocess layout=nchw or --preprocess layout=nhwc",
        )
    return possible[0]


def choose_output(model: ModelProto, name: str, typed: str | None) -> str:
    """Return the name of the graph's output, the one there is or the one `typed`.

    Raises:
        RecipeError: there are several and none is typed, or there is no such.
    """
    outputs = [item.name for item in model.graph.output]
    if typed is not None and typed not in outputs:
        raise RecipeError(
            f"the graph `{name}` has no output `{typed}`",
            hint=suggest(typed, outputs) or f"it has {', '.join(f'`{output}`' for output in outputs)}",
        )
    if typed is None and len(outputs) != 1:
        raise RecipeError(
            f"the graph `{name}` has {len(outputs)} outputs",
            hint=f"use --output-name with one of {', '.join(f'`{output}`' for output in outputs)}",
        )
    return typed or outputs[0]


def before_softmax(model: ModelProto, output: str) -> str | None:
    """Return what goes into the Softmax over the last axis that makes `output`, or None where none does.

    Softmax(x) is the same for x and x plus a number, so its input are logits like any others.
    """
    node = _last_of(model, output, ("Softmax", "LogSoftmax"))
    if node is None:
        return None
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), -1)
    # Before operator set 13 the default was 1, which for N x K is the last as well.
    return str(node.input[0]) if axis in (1, -1) else None


def before_sigmoid(model: ModelProto, output: str) -> str | None:
    """Return what goes into the Sigmoid that makes `output`, or None where none does."""
    node = _last_of(model, output, ("Sigmoid",))
    return None if node is None else str(node.input[0])


def _last_of(model: ModelProto, output: str, kinds: tuple[str, ...]) -> Any:
    """Return the node that makes `output`, nodes that change no number aside, if it is one of `kinds`; else None."""
    makers: dict[str, Any] = {made: node for node in model.graph.node for made in node.output}
    node = makers.get(output)
    while node is not None and node.op_type in RESHAPERS and node.domain in ("", "ai.onnx"):
        node = makers.get(node.input[0])
    return node if node is not None and node.op_type in kinds and node.domain in ("", "ai.onnx") else None


def bundle_form(
    model: ModelProto,
    taken: ImageInput,
    output: str,
    *,
    height: int,
    width: int,
    batch: int | None,
    flip: bool = False,
    as_logarithm: bool = False,
    as_two: bool = False,
) -> bytes:
    """Return the graph in the form that bundles keep; `model` is left as it is.

    Args:
        output: the tensor that becomes the output; more than two dimensions are flattened.
        batch: how many images at once; None leaves the number open.
        flip: whether the graph takes BGR; RGB is turned around before it.
        as_logarithm: whether the output are probabilities, of which logarithms are taken.
        as_two: whether the output is one number, the second class's logit where the first one's is 0.

    Raises:
        LinneError: what comes out is no sound graph.
    """
    import onnx
    from onnx import TensorProto, helper

    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    names = _Names(graph)
    ahead, entry = _steps_before(taken, [height, width], flip, names)
    size: list[Any] = ["N" if batch is None else batch, taken.channels, height, width]
    kept = [item for item in graph.input if item.name != taken.name]  # initialisers that old files list
    del graph.input[:]
    graph.input.extend([helper.make_tensor_value_info(entry, TensorProto.FLOAT, size), *kept])
    behind, leaves = _steps_behind(output, as_logarithm, as_two, names)
    nodes = [*ahead, *graph.node, *behind]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.output[:]
    graph.output.extend([helper.make_tensor_value_info(leaves, TensorProto.FLOAT, [size[0], None])])
    # What was inferred of shapes may name the old batch size.
    del graph.value_info[:]
    try:
        onnx.checker.check_model(changed)
    except Exception as error:  # the checker's own kind
        raise LinneError(f"the graph cannot be given the form of a bundle: {error}") from error
    return bytes(changed.SerializeToString())


def pixel_form(
    model: ModelProto, height: int, width: int, scale_C: Sequence[float], bias_C: Sequence[float]
) -> tuple[bytes, bytes]:
    """Return the scaling alone and the graph with it in front: uint8 N x H x W x C in, pixel * scale + bias.

    Args:
        model: a graph in the form that bundles keep; it is left as it is.
        scale_C: one number a channel, as `preprocess.scale_and_bias` gives them.

    Raises:
        LinneError: what comes out is no sound graph.
    """
    import onnx
    from onnx import TensorProto, helper

    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    names = _Names(graph)
    stored = {item.name for item in graph.initializer}
    (entry,) = (item for item in graph.input if item.name not in stored)
    pixels, numbers, scale, bias = (names.new(wish) for wish in ("pixels", "numbers", "scale", "bias"))
    scaled, moved = names.new("scaled"), names.new("normalised")
    constants = [
        helper.make_tensor(scale, TensorProto.FLOAT, [len(scale_C)], scale_C),
        helper.make_tensor(bias, TensorProto.FLOAT, [len(bias_C)], bias_C),
    ]
    nodes = [
        helper.make_node("Cast", [pixels], [numbers], to=TensorProto.FLOAT),
        helper.make_node("Mul", [numbers, scale], [scaled]),
        helper.make_node("Add", [scaled, bias], [moved]),
        helper.make_node("Transpose", [moved], [entry.name], perm=[0, 3, 1, 2]),
    ]
    first = entry.type.tensor_type.shape.dim[0]
    size: list[Any] = [first.dim_value or first.dim_param or "N", height, width, len(scale_C)]
    taken = helper.make_tensor_value_info(pixels, TensorProto.UINT8, size)
    alone = helper.make_graph(nodes, "scaling", [taken], [entry], constants)
    sets = {"opset_imports": changed.opset_import, "ir_version": changed.ir_version}
    graph.input.remove(entry)
    graph.input.append(taken)
    graph.initializer.extend(constants)
    behind = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *behind])
    try:
        onnx.checker.check_model(changed)
    except Exception as error:  # the checker's own kind
        raise LinneError(f"the graph cannot be given pixels: {error}") from error
    return bytes(helper.make_model(alone, **sets).SerializeToString()), bytes(changed.SerializeToString())


class _Names:
    """Names that nothing in a graph has."""

    def __init__(self, graph: Any) -> None:
        self._taken = {item.name for item in (*graph.input, *graph.output, *graph.initializer)}
        self._taken |= {name for node in graph.node for name in (*node.input, *node.output)}

    def new(self, wish: str) -> str:
        """Return `wish`, with a number where that is taken."""
        number, name = 1, wish
        while name in self._taken:
            number, name = number + 1, f"{wish}_{number}"
        self._taken.add(name)
        return name


def _steps_before(taken: ImageInput, size: list[int], flip: bool, names: _Names) -> tuple[list[Any], str]:
    """Return the nodes from RGB float32 N x C x H x W to what the graph takes, and the name of the former."""
    from onnx import TensorProto, helper

    # Each with its attributes, and the numbers that go into it beside the images.
    steps: list[tuple[str, Mapping[str, Any], list[int]]] = []
    if flip:
        steps.append(("Gather", {"axis": 1}, [2, 1, 0]))
    if taken.layout == "NHWC":
        steps.append(("Transpose", {"perm": [0, 2, 3, 1]}, []))
    if taken.layout == "NHW":
        steps.append(("Reshape", {}, [0, *size]))  # 0: as many images as there are
    if taken.type != "FLOAT":
        steps.append(("Cast", {"to": TensorProto.DataType.Value(taken.type)}, []))
    nodes: list[Any] = []
    entry = current = names.new("images") if steps else taken.name
    for position, (kind, attributes, numbers) in enumerate(steps):
        made = taken.name if position == len(steps) - 1 else names.new(f"images_{kind.lower()}")
        more = []
        if numbers:
            given = names.new("bgr" if kind == "Gather" else "shape")
            value = helper.make_tensor(given, TensorProto.INT64, [len(numbers)], numbers)
            nodes.append(helper.make_node("Constant", [], [given], value=value))
            more = [given]
        nodes.append(helper.make_node(kind, [current, *more], [made], **attributes))
        current = made
    return nodes, entry


def _steps_behind(output: str, as_logarithm: bool, as_two: bool, names: _Names) -> tuple[list[Any], str]:
    """Return the nodes from `output` to float32 logits N x K, and the name of those."""
    from onnx import TensorProto, helper

    flat, logits = names.new("flat"), names.new("logits")
    nodes = [helper.make_node("Flatten", [output], [flat], axis=1)]
    if as_two:  # softmax of 0 and x is 1 - sigmoid(x) and sigmoid(x)
        single, both = names.new("second"), names.new("both")
        value = helper.make_tensor(both, TensorProto.FLOAT, [1, 2], [0.0, 1.0])
        nodes += [
            helper.make_node("Cast", [flat], [single], to=TensorProto.FLOAT),
            helper.make_node("Constant", [], [both], value=value),
            helper.make_node("MatMul", [single, both], [logits]),
        ]
        return nodes, logits
    if not as_logarithm:
        return [*nodes, helper.make_node("Cast", [flat], [logits], to=TensorProto.FLOAT)], logits
    single, least, held = names.new("probabilities"), names.new("least"), names.new("held")
    value = helper.make_tensor(least, TensorProto.FLOAT, [], [LEAST_PROBABILITY])
    nodes += [
        helper.make_node("Cast", [flat], [single], to=TensorProto.FLOAT),
        helper.make_node("Constant", [], [least], value=value),
        helper.make_node("Max", [single, least], [held]),
        helper.make_node("Log", [held], [logits]),
    ]
    return nodes, logits
