"""A bundle as a program compiled by MIGraphX, for one kind of GPU or for its reference, by way of its ONNX graph."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from linne.bundle import Bundle
from linne.errors import LinneError, RecipeError
from linne.exporting.agreement import FP16_SHARE, FP32_SHARE, Agreement, Trial, compare, require_agreement, trial_of
from linne.exporting.answers import answers_of
from linne.exporting.to_onnx import Say, graph_in_fp32
from linne.exporting.wish import Made, Wish
from linne.graphs.migraphx_compiled import CompiledFor, architecture_of
from linne.graphs.migraphx_program import (
    UNKNOWN,
    MigraphxProgram,
    Target,
    find_binding,
    installed_version,
    require_gpu,
    target_for,
)
from linne.inference.backends.base import RunOptions, require_known
from linne.inference.backends.migraphx import FACT, KIND, MigraphxBackend, batch_size_of
from linne.preprocess import Floats
from linne.verifying.pace import Pace

MAIN = "model.mxr"
PRECISIONS = ("fp32", "fp16")


def make(bundle: Bundle, wish: Wish, say: Say) -> Made:
    """Return the compiled program of `bundle`, loaded again from its file's content and verified where it is to run.

    What `linne predict --backend migraphx` can be told of device and batch size is told in the same words.

    Raises:
        LinneError: it is no wish that can be met.
        DeviceError: MIGraphX finds no GPU.
        CheckFailed: it does not answer as the bundle does.
    """
    how = RunOptions(device=wish.device, precision=wish.precision, options=wish.options)
    target = _target(wish, how)
    exhaustive = how.options.get("exhaustive_tune") == "true"
    trial = trial_of(bundle)
    if trial.note is not None:
        say(trial.note)
    say(f"answering {len(trial.images_NHWC)} images with the bundle: {trial.what}")
    expected_NK = answers_of(bundle, trial, trust_code=wish.trust_code)
    graph = graph_in_fp32(bundle, wish, trial, expected_NK, say)
    compiled = MigraphxProgram.open(
        graph.content,
        "the graph",
        target=target,
        batch_size=batch_size_of(how, target),
        precision=wish.precision,
        exhaustive_tune=exhaustive,
    )
    say(f"compiled for {compiled.batch_size} images at once by {compiled.description}")
    content = compiled.save()
    compiled.close()
    program = MigraphxProgram.load(content, MAIN, target=target)
    agreement = _agreement(program, trial, expected_NK, wish, say)
    require_agreement(agreement, f"the network compiled by MIGraphX in {wish.precision}")
    say(agreement.line())
    compiled_for = CompiledFor(
        migraphx=program.version,
        target=target,
        architecture=architecture_of(target),
        shape=program.shape,
        exhaustive_tune=exhaustive,
    )
    canary_logits_NK = program.run(trial.images_NCHW[: len(bundle.canaries)])
    program.close()
    return Made(
        files={MAIN: content},
        main=MAIN,
        canary_logits_NK=canary_logits_NK,
        agreement=agreement,
        facts={**graph.facts, FACT: compiled_for.to_dict()},
    )


def _agreement(program: MigraphxProgram, trial: Trial, expected_NK: Floats, wish: Wish, say: Say) -> Agreement:
    """Return how the program's answers compare with `expected_NK`."""
    if program.batch_size == 1:
        trial = replace(trial, batches=(1,))  # whatever it is given it computes image by image
    pace = Pace(say, "verifying", sum(map(trial.num_tried, trial.batches)))

    def run(images_NCHW: Any) -> Floats:
        return pace.through(program.run, images_NCHW, program.batch_size)

    return compare(trial, expected_NK, run, share=FP32_SHARE if wish.precision == "fp32" else FP16_SHARE)


def _target(wish: Wish, how: RunOptions) -> Target:
    """Return for what is to be compiled; raise LinneError for what cannot be, before anything is computed."""
    if wish.precision not in PRECISIONS:
        raise RecipeError(
            f"`{KIND}` is exported in fp32 and fp16, not in {wish.precision}",
            hint="--backend migraphx compiles the export `--to onnx --precision int8` as it opens it",
        )
    if wish.pixels:
        raise RecipeError(f"`--bake-preprocessing` goes with `--to onnx`, not with `{KIND}`")
    require_known(KIND, MigraphxBackend, how)
    target = target_for(wish.device)
    try:
        binding = find_binding()
    except LinneError as error:
        raise LinneError(f"an export to MIGraphX cannot be made: {error.message}", hint=error.hint) from error
    if target == "gpu":
        require_gpu(binding)
    version, architecture = installed_version() or UNKNOWN, architecture_of(target)
    if UNKNOWN in version or UNKNOWN in architecture:
        raise LinneError(
            f"an export to MIGraphX cannot be made: MIGraphX {version} on {architecture} could not be told apart",
            hint="`--backend migraphx` compiles the graph each time",
        )
    return target
