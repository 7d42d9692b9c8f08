"""A bundle as one ONNX file, by whichever of torch's two writers gives a graph that answers as the network does."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linne.bundle import WEIGHTS, Bundle
from linne.bundle_format import GRAPH
from linne.errors import CheckFailed, DeviceError, LinneError, RecipeError
from linne.exporting.agreement import (
    BF16_SHARE,
    FP16_SHARE,
    FP32_SHARE,
    Agreement,
    Trial,
    compare,
    require_agreement,
    trial_of,
)
from linne.exporting.answers import answers_of, network_to_export
from linne.exporting.bfloat import OPSET as BF16_OPSET
from linne.exporting.bfloat import to_bfloat
from linne.exporting.graph_notes import describe, tidy
from linne.exporting.half import to_half
from linne.exporting.pixels import with_pixels
from linne.exporting.quantise import INT8_SHARE, Images, images_for, to_budget
from linne.exporting.torch_talk import first_line, quietly
from linne.exporting.wish import Made, Wish
from linne.exports import graph_of, has_graph
from linne.graphs.openvino_model import OpenVinoModel, why_no_openvino
from linne.graphs.session import INSTALL, GraphSession, why_no_runtime
from linne.graphs.wire import require_whole
from linne.preprocess import Floats, InputSpec, UInt8

if TYPE_CHECKING:
    from torch import nn

MAIN = "model.onnx"
IMAGES, LOGITS = "images", "logits"
OPSET = 18
"""The operator set in which torch's dynamo exporter writes its operators; others it converts. Every runtime of 2024 on
reads it."""
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph that answers as its bundle does, in memory."""

    content: bytes
    agreement: Agreement
    facts: Mapping[str, Any]


def make(bundle: Bundle, wish: Wish, say: Say) -> Made:
    """Return the ONNX file of `bundle`, verified.

    Raises:
        LinneError: something that it needs is not installed, or the bundle is such a graph already.
        CheckFailed: no graph answers as the bundle does.
    """
    _require_sense(bundle, wish)
    images = images_for(bundle, wish.for_int8, say) if wish.precision == "int8" else None
    trial = trial_of(bundle)
    if trial.note is not None:
        say(trial.note)
    say(f"answering {len(trial.images_NHWC)} images with the bundle: {trial.what}")
    expected_NK = answers_of(bundle, trial, trust_code=wish.trust_code)
    begin = fp32_graph if images is None else graph_in_fp32
    graph = begin(bundle, wish, trial, expected_NK, say)
    share = FP32_SHARE
    if wish.precision == "fp16":
        share = FP16_SHARE
        graph = _in_half(graph, trial, expected_NK, say)
    elif wish.precision == "bf16":
        share = BF16_SHARE
        graph = _in_bfloat(graph, bundle, trial, expected_NK, say)
    elif images is not None:
        share = INT8_SHARE
        graph = _in_int8(graph, bundle, wish, images, trial, expected_NK, say)
    if wish.pixels:
        content, taken = with_pixels(graph.content, trial)
        content = describe(content, bundle, taken)
        agreement = compare(trial, expected_NK, GraphSession(content, MAIN).run, share=share, pixels=True)
        graph = Graph(content, agreement, graph.facts)
    require_agreement(graph.agreement, f"the graph in {wish.precision}")
    say(graph.agreement.line())
    canaries = (trial.images_NHWC if wish.pixels else trial.images_NCHW)[: len(bundle.canaries)]
    return Made(
        files={MAIN: graph.content},
        main=MAIN,
        canary_logits_NK=_runner(graph.content, wish.precision)(canaries),
        agreement=graph.agreement,
        facts=graph.facts,
    )


def _require_sense(bundle: Bundle, wish: Wish) -> None:
    """Raise LinneError for what cannot be made, before anything is computed."""
    if wish.precision not in PRECISIONS:
        raise RecipeError(f"`onnx` is exported in fp32, fp16, bf16 and int8, not in {wish.precision}")
    if wish.precision == "bf16":
        _require_sense_in_bf16(wish)
    if (reason := why_no_runtime()) is not None:
        raise LinneError(f"an export cannot be verified: {reason}")
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise LinneError("an export needs the package onnx", hint=INSTALL) from error
    if wish.exporter == "dynamo" and (missing := _why_no_dynamo()) is not None:
        raise LinneError(missing, hint=INSTALL)
    if bundle.network_file == WEIGHTS:
        return
    if wish.precision == "fp32" and not wish.pixels:
        raise RecipeError(
            f"bundle `{bundle.path}` is a graph already: `{bundle.path / GRAPH}`",
            hint="use that file, or --precision fp16, or --bake-preprocessing",
        )
    if wish.exporter != "auto" or wish.opset is not None:
        raise RecipeError("`--exporter` and `--opset` are for torch's networks, and this bundle is a graph already")


def _require_sense_in_bf16(wish: Wish) -> None:
    """Raise LinneError where bf16 cannot be verified, or not together with something else that is asked for."""
    if (reason := why_no_openvino()) is not None:
        raise LinneError(f"ONNX Runtime has no operators for bf16 on a CPU, and to verify by OpenVINO: {reason}")
    if wish.pixels:
        raise RecipeError("`--bake-preprocessing` goes with fp32, fp16 and int8, not with bf16")
    if wish.opset is not None and wish.opset < BF16_OPSET:
        raise RecipeError(f"operator set {wish.opset} has no convolutions in bf16", hint=f"use --opset {BF16_OPSET}")


def graph_in_fp32(bundle: Bundle, wish: Wish, trial: Trial, expected_NK: Floats, say: Say) -> Graph:
    """Return the bundle's graph in fp32, verified: one that there is, unless it is to be written in a certain way."""
    if wish.exporter != "auto" or wish.opset is not None or not has_graph(bundle):
        return fp32_graph(bundle, wish, trial, expected_NK, say)
    found = graph_of(bundle)
    name = str(found.path.relative_to(bundle.path))
    say(f"taking `{name}`")
    try:
        content = found.path.read_bytes()
    except OSError as error:
        raise LinneError(f"`{name}` cannot be read: {error.strerror}") from error
    agreement = compare(trial, expected_NK, GraphSession(content, name).run, share=FP32_SHARE)
    require_agreement(agreement, f"`{name}`")
    return Graph(content, agreement, {"graph": name, "opset": _opset(content)})


def fp32_graph(bundle: Bundle, wish: Wish, trial: Trial, expected_NK: Floats, say: Say) -> Graph:
    """Return the bundle in fp32 as a graph: its own, or what an exporter of torch makes and is verified.

    Raises:
        CheckFailed: no exporter makes one that answers as the network does; it names what was wrong with each.
    """
    if bundle.network_file == GRAPH:
        content = describe((bundle.path / GRAPH).read_bytes(), bundle, bundle.input)
        agreement = compare(trial, expected_NK, GraphSession(content, GRAPH).run, share=FP32_SHARE)
        return Graph(content, agreement, {"exporter": None, "opset": _opset(content)})
    import torch

    opset = wish.opset or OPSET
    problems: list[str] = []
    for exporter in EXPORTERS if wish.exporter == "auto" else (wish.exporter,):
        say(f"exporting with torch {torch.__version__}'s `{exporter}` exporter, operator set {opset}")
        started = time.perf_counter()
        try:
            network = network_to_export(bundle, trust_code=wish.trust_code)
            content = describe(tidy(EXPORTERS[exporter](network, trial.images_NCHW[:2], opset)), bundle, bundle.input)
            seconds = time.perf_counter() - started
            _require_form(content, bundle.input, opset)
            agreement = compare(trial, expected_NK, GraphSession(content, MAIN).run, share=FP32_SHARE)
            problem = agreement.problem
        except Exception as error:  # an exporter has kinds of its own, and a graph that does not run is none either
            problem = first_line(error)
        if problem is None:
            say(f"exported in {seconds:.1f} s, {len(content) / 1e6:.1f} MB")
            return Graph(content, agreement, {"exporter": exporter, "opset": opset, "not_kept": problems})
        say(f"`{exporter}` is not kept: {problem}")
        problems.append(f"{exporter}: {problem}")
    raise CheckFailed(
        f"bundle `{bundle.path}` has no export to ONNX that answers as it does; {'; '.join(problems)}",
        hint=None if wish.exporter == "auto" else "--exporter auto tries the other one as well",
    )


def _in_int8(
    graph: Graph, bundle: Bundle, wish: Wish, images: Images, trial: Trial, expected_NK: Floats, say: Say
) -> Graph:
    """Return the graph in int8, within its budget."""
    content, facts = to_budget(bundle, graph.content, wish.for_int8, images, trust_code=wish.trust_code, say=say)
    content = describe(content, bundle, bundle.input)
    agreement = compare(trial, expected_NK, GraphSession(content, MAIN).run, share=INT8_SHARE)
    return Graph(content, agreement, {**graph.facts, **facts})


def _in_bfloat(graph: Graph, bundle: Bundle, trial: Trial, expected_NK: Floats, say: Say) -> Graph:
    """Return the graph in bf16, run by OpenVINO: in bf16 where the processor has instructions for it."""
    content = describe(to_bfloat(graph.content), bundle, bundle.input)
    agreement = compare(trial, expected_NK, _runner(content, "bf16", say), share=BF16_SHARE)
    say(f"bf16: {len(content) / 1e6:.1f} MB")
    return Graph(content, agreement, {**graph.facts, "opset": _opset(content)})


def _runner(content: bytes, precision: str, say: Say | None = None) -> Callable[[Floats | UInt8], Floats]:
    """Return what answers images with a graph on the CPU: ONNX Runtime, which has no bf16, or OpenVINO for that."""
    if precision != "bf16":
        return GraphSession(content, MAIN).run
    try:
        return OpenVinoModel(content, MAIN, device="cpu", precision="bf16").run
    except DeviceError as error:
        if say is not None:
            say(f"verified in fp32 with rounded weights: {error.message}")
        return OpenVinoModel(content, MAIN, device="cpu").run


def _why_no_dynamo() -> str | None:
    """Return why torch's dynamo exporter cannot be used, or None."""
    return None if importlib.util.find_spec("onnxscript") else "it needs the package onnxscript, which is not installed"


def _dynamo(network: nn.Module, images_NCHW: Floats, opset: int) -> bytes:
    """Return the graph that torch.export's program becomes; it needs the package onnxscript."""
    import torch

    if (missing := _why_no_dynamo()) is not None:
        raise LinneError(f"{missing}; {INSTALL}")
    with quietly():
        program: Any = torch.onnx.export(
            network,
            (torch.from_numpy(images_NCHW),),
            dynamo=True,
            input_names=[IMAGES],
            output_names=[LOGITS],
            dynamic_shapes=({0: torch.export.Dim("N")},),
            opset_version=opset,
            external_data=False,
            verbose=False,
        )
    return bytes(program.model_proto.SerializeToString())


def _script(network: nn.Module, images_NCHW: Floats, opset: int) -> bytes:
    """Return the graph of one run, recorded by TorchScript: older, and right for some networks that dynamo is not."""
    import torch

    def silence(_network: nn.Module, _given: Any) -> None:
        torch._C._jit_set_onnx_log_enabled(False)

    with quietly(), tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / MAIN
        # The writer turns on its log, which passes Python by and shows the whole graph of what it cannot write. It is
        # turned off as soon as the writer runs the network, before there is anything to show.
        network.register_forward_pre_hook(silence)
        torch.onnx.export(
            network,
            (torch.from_numpy(images_NCHW),),
            file,
            dynamo=False,
            input_names=[IMAGES],
            output_names=[LOGITS],
            dynamic_axes={IMAGES: {0: "N"}, LOGITS: {0: "N"}},
            opset_version=opset,
        )
        return file.read_bytes()


EXPORTERS: Mapping[str, Callable[[nn.Module, Floats, int], bytes]] = {"dynamo": _dynamo, "script": _script}
"""In the order in which they are tried."""


def _require_form(content: bytes, spec: InputSpec, opset: int) -> None:
    """Raise LinneError unless the graph has the form that bundles' graphs have (docs/concepts/bundle.md)."""
    import onnx

    from linne.graphs.editing import image_input

    require_whole(content, MAIN)
    model = onnx.load_model_from_string(content)
    onnx.checker.check_model(model)
    written = _opset(content)
    if written != opset:
        raise LinneError(f"it wrote operator set {written} instead of {opset}")
    taken = image_input(model, MAIN, layout="NCHW")
    if taken.batch is not None:
        raise LinneError(f"it takes {taken.batch} images at a time, as many as it was shown, expected any number")
    sizes = (taken.type, taken.channels, taken.height, taken.width)
    if sizes != ("FLOAT", spec.channels, spec.height, spec.width):
        raise LinneError(
            f"it takes images of {sizes}, expected float of {spec.channels} x {spec.height} x {spec.width}"
        )
    if [item.name for item in model.graph.output] != [LOGITS]:
        raise LinneError(f"it gives {len(model.graph.output)} outputs, expected one")


def _opset(content: bytes) -> int:
    """Return the version of ONNX's own operators that a graph is written in."""
    import onnx

    model = onnx.load_model_from_string(content)
    return max(int(item.version) for item in model.opset_import if item.domain in ("", "ai.onnx"))


def _in_half(graph: Graph, trial: Trial, expected_NK: Floats, say: Say) -> Graph:
    """Return the graph in fp16, with what does not fit left in fp32."""
    content, kept = to_half(graph.content, trial)
    for name, largest in kept.items():
        say(f"`{name}` stays in fp32: it handles numbers of up to {largest:.3g}, and fp16 ends at 65,504")
    agreement = compare(trial, expected_NK, GraphSession(content, MAIN).run, share=FP16_SHARE)
    say(f"fp16: {len(content) / 1e6:.1f} MB")
    return Graph(content, agreement, {**graph.facts, "kept_in_fp32": dict(kept)})
