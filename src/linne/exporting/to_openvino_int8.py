"""A bundle in int8 in OpenVINO's own format, `model.xml` and `model.bin`: quantised by NNCF, the accuracy held."""

from __future__ import annotations

import fnmatch
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from linne.bundle import Bundle, canary_batch
from linne.errors import CheckFailed, LinneError, RecipeError, suggest
from linne.exporting.agreement import Agreement, compare, require_agreement, trial_of
from linne.exporting.answers import answers_of
from linne.exporting.quantise import INT8_SHARE, Images, calibration_facts, images_for
from linne.exporting.to_onnx import graph_in_fp32
from linne.exporting.torch_talk import first_line, quietly
from linne.exporting.wish import Int8, Made, Wish
from linne.graphs.openvino_model import INSTALL, MAIN, WEIGHTS, OpenVinoModel
from linne.inference.backends.base import RunOptions
from linne.inference.backends.openvino import OpenVinoBackend
from linne.inference.predictor import Predictor
from linne.report_parity import ParityReport
from linne.verifying import Reference, reference_of
from linne.verifying import compare as compare_answers

HEAVY = ("Convolution", "GroupConvolution", "MatMul")
WITHOUT_BIAS = "/WithoutBiases"
"""What OpenVINO adds to the name of an operator whose bias it made one of its own."""
WAYS = {"fast bias correction": True, "exact bias correction": False}
"""How NNCF makes up for what rounding does to means, cheapest first."""
Say = Callable[[str], None]


def make_int8(bundle: Bundle, wish: Wish, say: Say) -> Made:
    """Return the two files of `bundle`, verified.

    Raises:
        LinneError: something that it needs is not installed, or there are no images.
        CheckFailed: int8 costs more than it may.
    """
    try:
        _nncf()
    except ImportError as error:
        raise LinneError(f"int8 for OpenVINO needs the package nncf ({error})", hint=INSTALL) from error
    asked = wish.for_int8
    images = images_for(bundle, asked, say)
    trial = trial_of(bundle)
    say(f"answering {len(trial.images_NHWC)} images with the bundle: {trial.what}")
    expected_NK = answers_of(bundle, trial, trust_code=wish.trust_code)
    graph = graph_in_fp32(bundle, wish, trial, expected_NK, say)
    say(f"measuring ranges on {images.calibration.name}; verifying on {images.examples.name}")
    reference = Reference(reference_of(bundle, trust_code=wish.trust_code), images.examples)
    tried: list[str] = []
    for way, fast in WAYS.items():
        started = time.perf_counter()
        files, kept = _quantised(graph.content, images, asked, fast=fast)
        model = _opened(files)
        report = _verified(bundle, model, reference, asked.max_drop)
        lost = report.drop if report.drop is not None else 1 - report.agreement
        tried.append(f"{way}: {100 * lost:+.2f} points")
        say(f"{tried[-1]} lost, in {time.perf_counter() - started:.0f} s")
        if report.passed:
            facts = {
                "scheme": "NNCF, mixed preset",
                "nncf": _version(),
                "method": way,
                "in_float": kept,
                "calibration": calibration_facts(images, asked),
                "verified": dict(report.kept()),
            }
            for line in report.details():
                say(line)
            return _made(bundle, files, model, compare(trial, expected_NK, model.run, share=INT8_SHARE), facts, say)
    raise CheckFailed(
        f"int8 by OpenVINO does not hold {100 * asked.max_drop:g} points on {images.examples.name} "
        f"({'; '.join(tried)}); nothing is written",
        hint="--to onnx searches for layers to keep in float; --keep-float names them here; or --max-drop POINTS",
    )


def _made(
    bundle: Bundle,
    files: Mapping[str, bytes],
    model: OpenVinoModel,
    agreement: Agreement,
    facts: Mapping[str, Any],
    say: Say,
) -> Made:
    """Return what is written; raises CheckFailed where even that many batches and images are not answered."""
    require_agreement(agreement, "the model in int8")
    say(agreement.line())
    return Made(
        files=files,
        main=MAIN,
        canary_logits_NK=model.run(canary_batch(bundle.input)),
        agreement=agreement,
        facts={"quantisation": facts},
    )


def _nncf() -> Any:
    # It reports its use to its makers unless it is told before it is imported that nobody is there to ask.
    os.environ.setdefault("NNCF_CI", "1")
    with quietly():
        import nncf
    return nncf


def _version() -> str:
    return str(_nncf().__version__)


def _quantised(content: bytes, images: Images, asked: Int8, *, fast: bool) -> tuple[dict[str, bytes], list[str]]:
    """Return the two files of the graph in int8, and the layers that stay in float.

    Raises:
        LinneError: NNCF cannot quantise it.
    """
    import openvino

    nncf = _nncf()
    network = openvino.Core().read_model(content)
    kept = _named([op.get_friendly_name() for op in network.get_ordered_ops() if op.get_type_name() in HEAVY], asked)
    calibration = images.calibration
    # One image at a time is made ready, when it is its turn.
    dataset = nncf.Dataset(range(len(calibration)), lambda n: calibration.normalised(slice(n, n + 1)))
    try:
        with quietly(), tempfile.TemporaryDirectory() as folder:
            quantised = nncf.quantize(
                network,
                dataset,
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(calibration),
                fast_bias_correction=fast,
                ignored_scope=nncf.IgnoredScope(names=kept),
            )
            openvino.save_model(quantised, Path(folder) / MAIN, compress_to_fp16=False)
            return {name: (Path(folder) / name).read_bytes() for name in (MAIN, WEIGHTS)}, kept
    except Exception as error:  # of many kinds
        raise LinneError(f"the graph cannot be quantised by NNCF: {first_line(error)}") from error


def _named(names: Sequence[str], asked: Int8) -> list[str]:
    """Return OpenVINO's names of the layers that are to stay in float, which are the graph's but for an ending."""
    plain = {name.removesuffix(WITHOUT_BIAS): name for name in names}
    kept: list[str] = []
    for pattern in asked.keep_float:
        matching = fnmatch.filter(plain, pattern)
        if not matching:
            raise RecipeError(f"no layer `{pattern}` in the graph", hint=suggest(pattern, plain))
        kept += [plain[name] for name in matching]
    return list(dict.fromkeys(kept))


def _opened(files: Mapping[str, bytes]) -> OpenVinoModel:
    """Return the model, opened from the very bytes that are kept."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        return OpenVinoModel(Path(folder) / MAIN, MAIN, device="cpu", precision="int8")


def _verified(bundle: Bundle, model: OpenVinoModel, reference: Reference, max_drop: float) -> ParityReport:
    backend = OpenVinoBackend(model, model.run(canary_batch(bundle.input)))
    how = RunOptions(device="cpu", precision="int8")
    return compare_answers(reference, Predictor(bundle, backend, "openvino", "asked for", how=how), max_drop=max_drop)
