"""Verbs that bring a bundle to where it is used, as functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linne.errors import LinneError, RecipeError
from linne.host import prepare_for_torch
from linne.log import Narrator

if TYPE_CHECKING:
    from linne.bundle import Bundle
    from linne.data import Source
    from linne.exporting.wish import Exported, Exporter
    from linne.exports import Precision
    from linne.report_parity import ParityReport
    from linne.report_tuning import TuningReport
    from linne.tuned import Goal
    from linne.verifying.examples import Examples


def export(
    bundle: str | Path,
    to: str,
    *,
    precision: Precision = "fp32",
    bake_preprocessing: bool = False,
    exporter: Exporter = "auto",
    opset: int | None = None,
    calibrate: str | Source | None = None,
    calibration_images: int | None = None,
    max_drop: float | None = None,
    keep_float: Sequence[str] = (),
    device: str = "auto",
    backend_options: Mapping[str, str] | None = None,
    replace: bool = False,
    trust_code: bool = False,
    quiet: bool = False,
) -> Exported:
    """Return what was made of `bundle` for another runtime, verified, in the bundle's `exports/`.

    Args:
        to: "onnx", "openvino", "tensorrt", "migraphx", "tflite", "torch-export" or "torchscript".
        precision: "fp32"; also "fp16", but of "torchscript"; "bf16" of "onnx", "tensorrt" and "torch-export"; "int8"
            of "onnx", "openvino", "tensorrt" and "tflite".
        bake_preprocessing: Of "onnx" and "tflite": take uint8 N x H x W x C of the bundle's input size, and scale it
            in the graph.
        exporter: Which of torch's two writers of ONNX, "dynamo" or "script"; "auto" keeps the first that verifies.
        opset: ONNX's operator set; None for 18.
        calibrate: Of int8: the source on whose training split ranges are measured, and on whose validation split the
            accuracy is; None for what the bundle was trained on.
        calibration_images: Of int8: how many ranges are measured on; None for 500, as many of each class.
        max_drop: Of int8: what of the accuracy may be lost, as a fraction; None for 0.005.
        keep_float: Of int8: names of layers that stay in float, or patterns.
        device: Of "migraphx" and "tensorrt": what it is compiled for, as `predict` takes it.
        backend_options: Of "migraphx" and "tensorrt": what the backend can be told of how it compiles, by name.
        replace: Put it in the place of an export of the same name.
        trust_code: Whether the Python file may be run that a bundle of your own network names.
        quiet: Say nothing on stderr.

    Raises:
        LinneError: the bundle cannot be exported like this, or there is such an export.
        CheckFailed: what was made does not answer as the bundle does; nothing is written.
    """
    prepare_for_torch()
    from linne.bundle import open_bundle
    from linne.exporting import IN_INT8, export_bundle, require_kind
    from linne.exporting.wish import Int8, Wish, require_int8
    from linne.trained_on import to_calibrate

    opened = open_bundle(bundle)
    int8: dict[str, Any] = {
        "num_images": calibration_images,
        "max_drop": max_drop,
        "keep_float": tuple(keep_float) or None,
    }
    given = {name: value for name, value in int8.items() if value is not None}
    require_int8(precision, [*given, *(["source"] if calibrate is not None else [])])
    quantises = precision == "int8" and to in IN_INT8
    if (given or calibrate is not None) and not quantises:
        require_kind(to)
        first = "make `--to onnx --precision int8` first, which takes them, and then `--to tensorrt`"
        hint = first if to == "tensorrt" else f"they go with --to {' or '.join(IN_INT8)}"
        raise RecipeError(f"`{to}` is not quantised by itself", hint=hint)
    wish = Wish(
        precision=precision,
        pixels=bake_preprocessing,
        exporter=exporter,
        opset=opset,
        trust_code=trust_code,
        device=device,
        options=backend_options or {},
        int8=Int8(source=to_calibrate(opened, calibrate), **given) if quantises else None,
    )
    return export_bundle(opened, to, wish, replace=replace, say=Narrator(quiet=quiet).line)


def verify(
    bundle: str | Path,
    source: str | Source | None = None,
    *,
    split: str = "test",
    splits_file: str | Path | None = None,
    unlabelled: Sequence[str | Path] = (),
    max_images: int | None = 1000,
    backend: str = "auto",
    precision: Precision | None = None,
    device: str = "auto",
    num_threads: int | None = None,
    backend_options: Mapping[str, str] | None = None,
    max_drop: float | None = None,
    max_gap: float | None = None,
    require_accelerator: bool = False,
    trust_code: bool = False,
    keep: bool = True,
    quiet: bool = False,
) -> list[ParityReport]:
    """Return how each way to run `bundle` compares with its reference, from the bytes of images to labels.

    The reference is the network as it was trained, in fp32 on the CPU. Without `backend` and `precision` every export
    is compared, on each backend that is installed and runs it.

    Args:
        source: Labelled images; None for those of `unlabelled` or, without these, the bundle's own canaries.
        split: Of the source.
        splits_file: Which example is in which split, as `linne evaluate` takes it.
        unlabelled: Images without labels: files, folders, patterns.
        max_images: Evenly spaced ones where there are more; None for all.
        backend: What runs the candidate.
        precision: Of the candidate's numbers.
        device: Where the candidate runs.
        num_threads: Of the CPU, for the candidate.
        backend_options: What the backend alone can be told, by name.
        max_drop: What of the accuracy may be lost, as a fraction: by default nothing in fp32, 0.001 in fp16, 0.005 in
            bf16 and int8. Without labels, what share of the answers may change.
        max_gap: How far logits may be off: by default 1e-4 of the largest in fp32, and anything else.
        require_accelerator: Whether the candidate may not run on the CPU.
        trust_code: Whether the Python file may be run that a bundle of your own network names.
        keep: Whether the results are added to the bundle's scores and its card.
        quiet: Say nothing on stderr.

    Raises:
        LinneError: the bundle, the images or what was asked for cannot be used. A candidate that does not pass is no
            error: see `ParityReport.passed`.
    """
    prepare_for_torch()
    from linne.bundle import open_bundle
    from linne.inference.backends.base import RunOptions
    from linne.verifying import Reference, candidates, reference_of
    from linne.verifying.run import keep_results, verify_each

    if max_images is not None and max_images < 1:
        raise LinneError(f"max_images is {max_images}, expected 1 or more")
    narrator = Narrator(quiet=quiet)
    opened = open_bundle(bundle)
    how = RunOptions(
        device=device,
        num_threads=num_threads,
        options=backend_options or {},
        require_accelerator=require_accelerator,
        trust_code=trust_code,
    )
    tried = candidates(opened, backend, how, precision)
    examples = _examples(opened, source, split, splits_file, unlabelled, max_images, narrator)
    reference = Reference(reference_of(opened, trust_code=trust_code), examples)
    reports = verify_each(reference, tried, max_drop=max_drop, max_gap=max_gap, say=narrator.line)
    if keep:
        keep_results(opened, reports)
    return reports


def tune(
    bundle: str | Path,
    source: str | Source | None = None,
    *,
    goal: Goal = "latency",
    batch: int | None = None,
    minutes: float = 10.0,
    max_drop: float | None = None,
    split: str = "val",
    splits_file: str | Path | None = None,
    unlabelled: Sequence[str | Path] = (),
    max_images: int | None = 500,
    device: str = "auto",
    require_accelerator: bool = False,
    trust_code: bool = False,
    quiet: bool = False,
) -> TuningReport:
    """Find the fastest way to run `bundle` on this machine that answers as it should, and keep it beside the bundle.

    Backends, precisions, numbers of threads, batch sizes and each backend's options are tried, each in a process of its
    own; the fastest are verified; the best that passes is measured in turns with what is used without tuning. `auto`
    takes it from then on, on this machine, with these versions. What was measured is kept: called again after an
    interruption, it goes on.

    Args:
        source: Labelled images to verify answers on; None for `unlabelled` or, without these, the bundle's own
            canaries, which are too few for any precision but fp32.
        goal: "latency" for the time of one batch, of one image by default; "throughput" for images a second.
        batch: How many images at once; None for 1, or for throughput for whatever is fastest.
        minutes: After which no further candidate is begun.
        max_drop: What of the accuracy may be lost, as a fraction; None as `verify` has it.
        split: Of the source; not the one that the bundle is measured by in the end.
        splits_file: Which example is in which split, as `linne evaluate` takes it.
        unlabelled: Images without labels: files, folders, patterns.
        max_images: Evenly spaced ones where there are more; None for all.
        device: Where to run.
        require_accelerator: Whether nothing may run on the CPU.
        trust_code: Whether the Python file may be run that a bundle of your own network names.
        quiet: Say nothing on stderr.

    Raises:
        LinneError: the bundle, the images or the device cannot be used.
    """
    prepare_for_torch()
    from linne.bundle import open_bundle
    from linne.inference.backends.base import RunOptions
    from linne.tuning import tune_bundle
    from linne.verifying import Reference, reference_of

    if minutes <= 0:
        raise LinneError(f"minutes is {minutes:g}, expected more than 0")
    if batch is not None and batch < 1:
        raise LinneError(f"batch is {batch}, expected 1 or more")
    narrator = Narrator(quiet=quiet)
    opened = open_bundle(bundle)
    examples = _examples(opened, source, split, splits_file, unlabelled, max_images, narrator)
    reference = Reference(reference_of(opened, trust_code=trust_code), examples)
    how = RunOptions(device=device, require_accelerator=require_accelerator, trust_code=trust_code)
    return tune_bundle(
        reference,
        how,
        goal=goal,
        batch=batch,
        minutes=minutes,
        max_drop=max_drop,
        only_fp32=source is None and not unlabelled,
        say=narrator.line,
    )


def _examples(
    bundle: Bundle,
    source: str | Source | None,
    split: str,
    splits_file: str | Path | None,
    unlabelled: Sequence[str | Path],
    max_images: int | None,
    narrator: Narrator,
) -> Examples:
    """Return what to compare on: labelled images, images without labels, or the bundle's own."""
    from linne.verifying import examples

    if source is not None and unlabelled:
        raise LinneError("a source with labels and images without are two things to verify on", hint="give one of them")
    if source is None:
        return examples.of_files(bundle, unlabelled, max_images) if unlabelled else examples.of_bundle(bundle)
    if isinstance(source, str):
        from linne.trained_on import as_in_training

        source = as_in_training(bundle, source, splits_file)
    for note in source.notes:
        narrator.line(note)
    return examples.of_source(bundle, source, split, max_images)
