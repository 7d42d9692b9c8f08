"""A bundle as one TensorFlow Lite file, for phones and small boards: by litert-torch, without TensorFlow."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from linne.bundle import WEIGHTS, Bundle
from linne.child import first_event, listen
from linne.data.names import printable
from linne.errors import CheckFailed, LinneError, RecipeError
from linne.exporting.agreement import FP16_SHARE, FP32_SHARE, Agreement, Trial, compare, require_agreement, trial_of
from linne.exporting.answers import answers_of
from linne.exporting.quantise import INT8_SHARE, images_for
from linne.exporting.tflite_file import of_any_batch, with_texts
from linne.exporting.to_tflite_int8 import quantised, to_half
from linne.exporting.torch_files import INPUT, LABELS
from linne.exporting.wish import Made, Wish
from linne.graphs.tflite_model import TfliteModel, why_no_tflite
from linne.preprocess import Floats
from linne.weights.answers import SCALINGS

MAIN = "model.tflite"
PRECISIONS = ("fp32", "fp16", "int8")
INSTALL = "pip install 'linne[tflite-export]'"
CHILD = "linne.exporting.convert_tflite"
LIMIT_S = 1800.0
"""Inception v3 is converted in 20 seconds; a busy machine and a network many times as large take their time."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Flat:
    """A TensorFlow Lite file that answers as its bundle does, in memory."""

    content: bytes
    agreement: Agreement
    facts: Mapping[str, Any]


def make(bundle: Bundle, wish: Wish, say: Say) -> Made:
    """Return the file of `bundle`, verified by LiteRT on the CPU.

    In fp16 it is the weights that are stored so: on a CPU LiteRT computes in fp32.

    Raises:
        LinneError: something that it needs is not installed, or it is no wish that can be met.
        CheckFailed: it cannot be converted, does not answer as the bundle does, or int8 costs more than it may.
    """
    _require_sense(bundle, wish)
    images = images_for(bundle, wish.for_int8, say) if wish.precision == "int8" else None
    trial = trial_of(bundle)
    if trial.note is not None:
        say(trial.note)
    say(f"answering {len(trial.images_NHWC)} images with the bundle: {trial.what}")
    expected_NK = answers_of(bundle, trial, trust_code=wish.trust_code)
    flat = _in_fp32(bundle, wish, trial, expected_NK, say)
    if wish.precision == "fp16":
        flat = replace(flat, content=to_half(flat.content))
    elif images is not None:
        content, facts = quantised(flat.content, bundle, wish, images, say)
        flat = replace(flat, content=content, facts={**flat.facts, "quantisation": facts})
    content = with_texts(flat.content, _texts(bundle, wish))
    share = {"fp32": FP32_SHARE, "fp16": FP16_SHARE}.get(wish.precision, INT8_SHARE)
    model = TfliteModel(content, MAIN)
    agreement = compare(trial, expected_NK, model.run, share=share, pixels=wish.pixels)
    require_agreement(agreement, f"the TensorFlow Lite file in {wish.precision}")
    say(agreement.line())
    canaries = (trial.images_NHWC if wish.pixels else trial.images_NCHW)[: len(bundle.canaries)]
    return Made(
        files={MAIN: content},
        main=MAIN,
        canary_logits_NK=model.run(canaries),
        agreement=agreement,
        facts={**flat.facts, "runtime": model.description},
    )


def why_no_converter() -> str | None:
    """Return why no TensorFlow Lite file can be made here, or None; the converter is not imported."""
    if any(importlib.util.find_spec(name) is None for name in ("litert_torch", "ai_edge_quantizer")):
        return f"litert-torch is not installed; {INSTALL}"
    return why_no_tflite()


def _require_sense(bundle: Bundle, wish: Wish) -> None:
    """Raise LinneError for what cannot be made, before anything is computed."""
    if wish.precision not in PRECISIONS:
        raise RecipeError(f"`tflite` is exported in fp32, fp16 and int8, not in {wish.precision}")
    for option, said in {"--exporter": wish.exporter != "auto", "--opset": wish.opset is not None}.items():
        if said:
            raise RecipeError(f"`{option}` goes with `--to onnx`, not with `tflite`")
    if bundle.network_file != WEIGHTS:
        raise RecipeError(
            f"bundle `{bundle.path}` holds a graph, `{bundle.network_file}`, and `tflite` is made of torch's networks",
            hint="use its graph, or --to onnx --precision int8",
        )
    if (reason := why_no_converter()) is not None:
        raise LinneError(f"an export to TensorFlow Lite cannot be made: {reason}")


def _texts(bundle: Bundle, wish: Wish) -> dict[str, str]:
    """Return what goes with the network: its labels, and how images are prepared for it."""
    spec = bundle.input
    if wish.pixels:
        raw = SCALINGS["raw"]
        spec = replace(spec, mean=raw.mean[: spec.channels], std=raw.std[: spec.channels])
    return {LABELS: json.dumps(list(bundle.labels)), INPUT: json.dumps(spec.to_dict())}


def _in_fp32(bundle: Bundle, wish: Wish, trial: Trial, expected_NK: Floats, say: Say) -> Flat:
    """Return the network in fp32, verified: for any number of images where its operators bear that, or for one.

    The converter knows fixed sizes alone. Of most convolutional networks the number of images can be left open
    afterwards, and every batch answers as each image does; of transformers and ConvNeXt it cannot.
    """
    started = time.perf_counter()
    say("exporting with litert-torch, in a process of its own")
    fixed, versions = _converted(bundle, wish)
    say(f"exported in {time.perf_counter() - started:.1f} s, {len(fixed) / 1e6:.1f} MB")
    why = ""
    for batch in ("any", 1):
        try:
            content = fixed if batch == 1 else of_any_batch(fixed)
            agreement = compare(
                trial, expected_NK, TfliteModel(content, MAIN).run, share=FP32_SHARE, pixels=wish.pixels
            )
        except LinneError as error:
            if batch == 1:
                raise CheckFailed(f"bundle `{bundle.path}` cannot be exported to tflite: {error.message}") from error
            why = error.message
            continue
        if agreement.problem is None or batch == 1:
            break
        why = agreement.problem
    require_agreement(agreement, "the TensorFlow Lite file")
    if batch == 1:
        say(f"it takes one image at a time: for more, {why}")
    facts = {"converter": dict(versions), "batch": batch, **({"one_because": why} if batch == 1 else {})}
    return Flat(content, agreement, facts)


def _converted(bundle: Bundle, wish: Wish) -> tuple[bytes, Mapping[str, str]]:
    """Return the file for one image as the converter writes it, and which versions did.

    Raises:
        CheckFailed: it cannot.
    """
    environ = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2"}
    with tempfile.TemporaryDirectory(prefix="linne-tflite-") as folder:
        file = Path(folder) / MAIN
        words = [
            str(bundle.path),
            str(file),
            "pixels" if wish.pixels else "planes",
            "trust" if wish.trust_code else "-",
        ]
        heard = listen([sys.executable, "-P", "-m", CHILD, *words], environ=environ, limit_s=LIMIT_S)
        if (refused := first_event(heard, "refused")) is not None:
            hint = refused.get("hint")
            raise LinneError(printable(str(refused.get("why"))), hint=None if hint is None else printable(str(hint)))
        done = first_event(heard, "converted")
        if done is not None and heard.end == "done":
            return file.read_bytes(), dict(done["versions"])
    failed = first_event(heard, "failed")
    why = f"{heard.how}; {heard.said}" if failed is None else str(failed.get("error"))
    raise CheckFailed(f"bundle `{bundle.path}` cannot be exported to tflite: litert-torch: {printable(why)}")
