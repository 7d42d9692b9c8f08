"""A bundle in OpenVINO's own format, model.xml and model.bin, by way of its ONNX graph."""

from __future__ import annotations

import tempfile
from pathlib import Path

from linne.bundle import Bundle
from linne.errors import LinneError, RecipeError
from linne.exporting.agreement import FP16_SHARE, FP32_SHARE, compare, require_agreement, trial_of
from linne.exporting.answers import answers_of
from linne.exporting.to_onnx import Say, graph_in_fp32
from linne.exporting.to_openvino_int8 import make_int8
from linne.exporting.wish import Made, Wish
from linne.graphs.openvino_model import OpenVinoModel, to_ir, why_no_openvino

PRECISIONS = ("fp32", "fp16", "int8")


def make(bundle: Bundle, wish: Wish, say: Say) -> Made:
    """Return the two files of `bundle`, read again and verified in fp32 on the CPU.

    In fp16 it is the weights that are stored so. OpenVINO computes in fp16 where the device does, which few CPUs do, so
    that what is verified is the network with rounded weights.

    Raises:
        LinneError: it is no wish that can be met.
        CheckFailed: they do not answer as the bundle does.
    """
    if wish.precision not in PRECISIONS:
        raise RecipeError(
            f"`openvino` is exported in fp32, fp16 and int8, not in {wish.precision}",
            hint="OpenVINO computes in bf16 what is stored in fp32: `--backend openvino --precision bf16`",
        )
    if wish.pixels:
        raise RecipeError("`--bake-preprocessing` goes with `--to onnx`, not with `openvino`")
    if (reason := why_no_openvino()) is not None:
        raise LinneError(f"an export to OpenVINO cannot be made: {reason}")
    if wish.precision == "int8":
        return make_int8(bundle, wish, say)
    import openvino

    trial = trial_of(bundle)
    if trial.note is not None:
        say(trial.note)
    say(f"answering {len(trial.images_NHWC)} images with the bundle: {trial.what}")
    expected_NK = answers_of(bundle, trial, trust_code=wish.trust_code)
    graph = graph_in_fp32(bundle, wish, trial, expected_NK, say)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        main = to_ir(graph.content, "the graph", folder, fp16=wish.precision == "fp16")
        model = OpenVinoModel(folder / main, main, device="cpu")
        share = FP32_SHARE if wish.precision == "fp32" else FP16_SHARE
        agreement = compare(trial, expected_NK, model.run, share=share)
        require_agreement(agreement, f"the network in OpenVINO's format in {wish.precision}")
        say(agreement.line())
        canary_logits_NK = model.run(trial.images_NCHW[: len(bundle.canaries)])
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    return Made(
        files=files,
        main=main,
        canary_logits_NK=canary_logits_NK,
        agreement=agreement,
        facts={**graph.facts, "openvino": str(openvino.__version__), "weights": wish.precision},
    )
