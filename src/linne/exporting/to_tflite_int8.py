"""A TensorFlow Lite file in fp16 or int8, by Google's quantiser; of int8 the accuracy is held."""

from __future__ import annotations

import fnmatch
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np

from linne.bundle import Bundle, canary_batch
from linne.errors import CheckFailed, LinneError, RecipeError, suggest
from linne.exporting.convert_tflite import IMAGES
from linne.exporting.quantise import Images, calibration_facts
from linne.exporting.tflite_file import layers_of
from linne.exporting.torch_talk import first_line, quietly
from linne.exporting.wish import Wish
from linne.graphs.tflite_model import TfliteModel
from linne.host import usable_cores
from linne.inference.backends.base import RunOptions
from linne.inference.backends.tflite import TfliteBackend
from linne.inference.predictor import Predictor
from linne.preprocess import Floats, InputSpec, UInt8, scale_and_bias
from linne.report_parity import ParityReport
from linne.verifying import Reference, compare, reference_of

QUANTISER = "ai-edge-quantizer"
SIGNATURE = "serving_default"
"""What the converter calls the one way to call a network."""
AT_ONCE = 50
"""Images, in float, that ranges are measured on."""
BEFORE, AS_IT_RUNS = "ranges measured before", "ranges measured as it runs"
SCHEMES = {
    BEFORE: "int8 weights a channel, int8 between layers, a range a tensor",
    AS_IT_RUNS: "int8 weights a channel, float between layers, a range an image",
}
"""By how ranges of what goes between layers come about, quickest first."""
Say = Callable[[str], None]


def to_half(content: bytes) -> bytes:
    """Return the file with weights stored in fp16.

    Raises:
        LinneError: the quantiser cannot.
    """
    from ai_edge_quantizer import qtyping

    weights = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=weights, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
    )

    def tell(quantiser: Any) -> None:
        quantiser.update_quantization_recipe(
            ".*", qtyping.TFLOperationName.ALL_SUPPORTED, config, algorithm_key="float_casting"
        )

    return _made(content, tell)


def quantised(content: bytes, bundle: Bundle, wish: Wish, images: Images, say: Say) -> tuple[bytes, Mapping[str, Any]]:
    """Return the fp32 file `content` of `bundle` in int8, and how it was made.

    Raises:
        LinneError: the quantiser cannot.
        CheckFailed: int8 costs more than it may.
    """
    asked = wish.for_int8
    kept = _named(layers_of(content), asked.keep_float)
    say(f"measuring ranges on {images.calibration.name}; verifying on {images.examples.name}")
    reference = Reference(reference_of(bundle, trust_code=wish.trust_code), images.examples)
    tried: list[str] = []
    for way in SCHEMES:
        started = time.perf_counter()
        made = _in_int8(content, images, list(kept.values()), as_it_runs=way == AS_IT_RUNS, pixels=wish.pixels)
        report = _verified(bundle, made, reference, asked.max_drop, pixels=wish.pixels)
        lost = report.drop if report.drop is not None else 1 - report.agreement
        tried.append(f"{way}: {100 * lost:+.2f} points")
        say(f"{tried[-1]} lost, in {time.perf_counter() - started:.0f} s")
        if report.passed:
            for line in report.details():
                say(line)
            return made, {
                "scheme": SCHEMES[way],
                "quantiser": metadata.version(QUANTISER),
                "method": way,
                "in_float": list(kept),
                "calibration": calibration_facts(images, asked),
                "verified": dict(report.kept()),
            }
    raise CheckFailed(
        f"int8 by TensorFlow Lite does not hold {100 * asked.max_drop:g} points on {images.examples.name} "
        f"({'; '.join(tried)}); nothing is written",
        hint="--keep-float NAME keeps a layer in float; --precision fp16; or --max-drop POINTS",
    )


def _in_int8(content: bytes, images: Images, kept: Sequence[str], *, as_it_runs: bool, pixels: bool) -> bytes:
    """Return the file in int8, with float numbers going in and coming out as before."""
    from ai_edge_quantizer import qtyping

    names = qtyping.TFLOperationName
    calibration = images.calibration

    def tell(quantiser: Any) -> None:
        if as_it_runs:
            quantiser.add_dynamic_config(".*", names.ALL_SUPPORTED, 8)
        else:
            quantiser.add_static_config(".*", names.ALL_SUPPORTED, 8, 8)
            for end in (names.INPUT, names.OUTPUT):
                quantiser.update_quantization_recipe(".*", end, algorithm_key="no_quantize")
        for name in kept:
            quantiser.update_quantization_recipe(re.escape(name), names.ALL_SUPPORTED, algorithm_key="no_quantize")

    def shown() -> Iterator[list[dict[str, Any]]]:
        # The quantiser makes a list of what it is given, so it gets a part at a time.
        for start in range(0, len(calibration), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            batch = calibration.images_NHWC[part] if pixels else calibration.normalised(part)
            yield [{IMAGES: image[None]} for image in batch]

    return _made(content, tell, shown=None if as_it_runs else shown())


def _made(content: bytes, tell: Callable[[Any], None], *, shown: Iterator[list[dict[str, Any]]] | None = None) -> bytes:
    """Return the file as the quantiser writes it after `tell` told it how, with ranges on what it is `shown`."""
    from ai_edge_quantizer import quantizer

    try:
        with quietly():
            quantiser: Any = quantizer.Quantizer(bytearray(content))
            tell(quantiser)
            ranges = None
            for part in shown or ():
                ranges = quantiser.calibrate({SIGNATURE: part}, ranges, num_threads=usable_cores())
            result = quantiser.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
            return bytes(result.quantized_model)
    except Exception as error:  # of many kinds
        raise LinneError(f"the file cannot be quantised by {QUANTISER}: {first_line(error)}") from error


def _named(layers: Mapping[str, str], patterns: Sequence[str]) -> dict[str, str]:
    """Return the layers, by torch's name with the file's, that are to stay in float."""
    kept: dict[str, str] = {}
    for pattern in patterns:
        matching = fnmatch.filter(layers, pattern)
        if not matching:
            raise RecipeError(
                f"no layer `{pattern}` in the network",
                hint=suggest(pattern, layers) or f"it has {', '.join(layers)}"[:500],
            )
        kept |= {name: layers[name] for name in matching}
    return kept


def _verified(bundle: Bundle, content: bytes, reference: Reference, max_drop: float, *, pixels: bool) -> ParityReport:
    model = TfliteModel(content, "the file in int8")

    def answer(images_NCHW: Floats) -> Floats:
        return model.run(as_pixels(images_NCHW, bundle.input) if pixels else images_NCHW)

    backend = TfliteBackend(answer, model.description, "int8", answer(canary_batch(bundle.input)))
    how = RunOptions(device="cpu", precision="int8")
    return compare(reference, Predictor(bundle, backend, "tflite", "asked for", how=how), max_drop=max_drop)


def as_pixels(images_NCHW: Floats, spec: InputSpec) -> UInt8:
    """Return the pixels N x H x W x C that `images_NCHW` were normalised from: `preprocess.normalise` undone."""
    scale_C, bias_C = scale_and_bias(spec)
    pixels: UInt8 = np.rint((images_NCHW.transpose(0, 2, 3, 1) - bias_C) / scale_C).astype(np.uint8)
    return pixels
