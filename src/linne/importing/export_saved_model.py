"""A child process: TensorFlow opens a SavedModel that does nothing by itself, and tf2onnx exports it.

    python -m linne.importing.export_saved_model HOME HEIGHT WIDTH OUTPUT

`HOME/model` is the copy; height and width are 0 where nobody said them, the output's name empty.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from linne.child import said_of, say
from linne.importing.in_child import Refused, images_like, one_image, one_output

MAX_PROGRAM_BYTES = 256 * 2**20
"""Weights lie beside the program; that of EfficientNetV2-L has 20 MB."""
INITIAL = "__saved_model_init_op"
USUAL = "serving_default"
_COMPUTING = """
    NoOp Identity IdentityN Const Placeholder PlaceholderWithDefault StatefulPartitionedCall PartitionedCall
    ReadVariableOp StopGradient PreventGradient EnsureShape StatelessIf If
    Shape Size Rank StridedSlice Slice Pack Unpack Reshape Transpose Squeeze ExpandDims ConcatV2 Split SplitV
    Gather GatherV2 GatherNd Tile Pad PadV2 MirrorPad Fill Range Cast ReverseV2 BroadcastTo ZerosLike OnesLike
    MatMul BatchMatMul BatchMatMulV2 BatchMatMulV3 Einsum BiasAdd
    Conv2D DepthwiseConv2dNative Conv2DBackpropInput Conv3D MaxPool MaxPoolV2 AvgPool
    FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 SpaceToBatchND BatchToSpaceND SpaceToDepth DepthToSpace
    ResizeBilinear ResizeNearestNeighbor ResizeBicubic
    Mean Sum Max Min Prod All Any Cumsum ArgMax TopKV2 OneHot L2Loss
    Add AddV2 AddN Sub Mul Div RealDiv DivNoNan FloorDiv FloorMod Neg Abs Sign Square SquaredDifference Reciprocal
    Sqrt Rsqrt Pow Exp Expm1 Log Log1p Sin Cos Erf Erfc Floor Ceil Round Rint Maximum Minimum ClipByValue
    Tanh Sigmoid Softmax LogSoftmax Softplus Softsign Relu Relu6 LeakyRelu Elu Selu
    Greater GreaterEqual Less LessEqual Equal NotEqual LogicalAnd LogicalOr LogicalNot Select SelectV2
"""
COMPUTING = frozenset(_COMPUTING.split())
"""Operations that make numbers of numbers: none reads or writes files, calls Python, or keeps anything."""


def main(words: list[str]) -> None:
    """Export, and report `converted`, `refused` with why, or `failed` with the step and the error."""
    home, height, width, output = words
    step = "TensorFlow cannot be loaded"
    try:
        import tensorflow as tf
        import tf2onnx

        step = "its program cannot be read"
        require_still(Path(home) / "model" / "saved_model.pb")
        step = f"TensorFlow {tf.__version__} cannot open it"
        loaded = tf.saved_model.load(str(Path(home) / "model"))  # holds the variables that its functions only refer to
        signature = _signature(loaded)
        require_computing(signature.graph.as_graph_def())
        (name, taken), *others = signature.structured_input_signature[1].items()
        if others:
            raise Refused(f"takes {len(others) + 1} inputs, expected one, of images")
        if taken.dtype != tf.float32:
            raise Refused(f"takes `{name}` of {taken.dtype.name}, expected float32")
        names = list(signature.structured_outputs)
        output = names[one_output(names, output)]
        shape = one_image(taken.shape.as_list() if taken.shape.rank else [], int(height), int(width))
        answer = tf.function(
            lambda images: signature(**{name: images})[output],
            input_signature=[tf.TensorSpec((None, *shape), tf.float32, name="images")],
        )
        step = f"tf2onnx {tf2onnx.__version__} cannot export it"
        tf2onnx.convert.from_function(
            answer, input_signature=answer.input_signature, opset=17, output_path=str(Path(home) / "model.onnx")
        )
        answers = [answer(image[None]).numpy().reshape(1, -1)[0].tolist() for image in images_like(shape)]
        versions = {"tensorflow": tf.__version__, "tf2onnx": tf2onnx.__version__}
        say("converted", library="tensorflow", versions=versions, sizes=shape, answers=answers)
    except Refused as refused:
        say("refused", why=str(refused), hint=refused.hint)
    except Exception as error:  # whatever a library raises
        say("failed", step=step, error=said_of(error))


def require_still(file: Path) -> None:
    """Refuse a program of which TensorFlow would run parts by itself when it loads it.

    Those are: what makes or fills tables and reads assets, functions and classes that restore an object, and what
    sessions of TensorFlow 1 begin with.
    """
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    if file.stat().st_size > MAX_PROGRAM_BYTES:
        raise Refused(f"has a program of more than {MAX_PROGRAM_BYTES:,} bytes")
    program: Any = SavedModel.FromString(file.read_bytes())
    graphs = list(program.meta_graphs)
    if len(graphs) != 1 or not graphs[0].HasField("object_graph_def"):
        raise Refused("is a SavedModel of TensorFlow 1, or holds several", "save it anew by TensorFlow 2")
    for node in graphs[0].object_graph_def.nodes:
        kind = node.WhichOneof("kind")
        restores = any(item.save_function or item.restore_function for item in node.saveable_objects.values())
        if kind in ("asset", "resource") or restores or node.registered_saver or node.registered_name:
            raise Refused(
                "holds a table, a file or an object of its own, which TensorFlow would run code of to load it",
                "save the network alone: `model.export('saved')`",
            )


def _signature(loaded: Any) -> Any:
    """Return the function that answers, of those that the model offers."""
    names = [name for name in loaded.signatures if name != INITIAL]
    if USUAL not in names and len(names) != 1:
        listed = ", ".join(f"`{name}`" for name in names) or "none"
        raise Refused(f"has no signature `{USUAL}` and not one alone (it has {listed})")
    return loaded.signatures[USUAL if USUAL in names else names[0]]


def require_computing(graph: Any) -> None:
    """Refuse what a signature would run, functions that it calls included, where it does more than compute."""
    nodes = [node.op for node in graph.node]
    nodes += [node.op for function in graph.library.function for node in function.node_def]
    others = sorted(set(nodes) - COMPUTING)
    drawn = [name for name in others if "Random" in name]
    if drawn:
        raise Refused(
            f"draws random numbers to answer (`{drawn[0]}`): it was exported with its augmentation of images on",
            "import the `.keras` file, or export the model without its augmenting layers",
        )
    if others:
        listed = ", ".join(f"`{name}`" for name in others[:3]) + (f" and {len(others) - 3} more" if others[3:] else "")
        raise Refused(
            f"runs {listed}; taken are operations that only compute",
            "where it is yours, `python -m tf2onnx.convert --saved-model FOLDER --output model.onnx`, "
            "then `linne import model.onnx`",
        )


if __name__ == "__main__":
    main(sys.argv[1:])
