"""A bundle as an engine of TensorRT's, `model.plan`, for this GPU and this TensorRT alone, by way of its ONNX graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing

from linne.bundle import Bundle
from linne.errors import LinneError, RecipeError
from linne.exporting.agreement import SHARES, compare, require_agreement, trial_of
from linne.exporting.answers import answers_of
from linne.exporting.quantise import INT8_SHARE
from linne.exporting.wish import Made, Wish
from linne.graphs.tensorrt_engine import TensorRtEngine
from linne.inference.backends.base import RunOptions, require_known
from linne.inference.backends.tensorrt import KIND, TensorRtBackend, compiled, made_with, open_gpu, settings
from linne.tuned import choices_of, machine_name

MAIN = "model.plan"


def make(bundle: Bundle, wish: Wish, say: Callable[[str], None]) -> Made:
    """Return the engine of `bundle`, opened again on the GPU and verified.

    The graph is the bundle's own, or its export to ONNX in this precision. For how many images kernels are chosen, and
    how long they are looked for, is what is asked for, or else what `linne tune` found for this machine.

    Raises:
        LinneError: there is no such graph, TensorRT or GPU.
        CheckFailed: it does not answer as the bundle does.
    """
    for option, said in {
        "--bake-preprocessing": wish.pixels,
        "--exporter": wish.exporter != "auto",
        "--opset": wish.opset is not None,
    }.items():
        if said:
            raise RecipeError(f"`{option}` goes with `--to onnx`, not with `{KIND}`")
    reason = TensorRtBackend.why_unavailable() or TensorRtBackend.why_not(bundle, wish.precision)
    if reason is not None:
        raise LinneError(f"an export to TensorRT cannot be made: {reason}")
    options = {**_tuned_options(bundle, wish), **wish.options}
    how = RunOptions(device=wish.device, precision=wish.precision, options=options)
    require_known(KIND, TensorRtBackend, how)
    size, level = settings(how)
    trial = trial_of(bundle)
    if trial.note is not None:
        say(trial.note)
    say(f"answering {len(trial.images_NHWC)} images with the bundle: {trial.what}")
    expected_NK = answers_of(bundle, trial, trust_code=wish.trust_code)
    tensorrt, gpu = open_gpu(how.device, how.precision)
    try:
        facts = made_with(tensorrt, gpu)
        say(f"compiling with TensorRT {facts['tensorrt']} for {facts['gpu']}, up to {size} images, level {level}")
        plan, graph, _ = compiled(bundle, how, tensorrt, gpu)
        with closing(TensorRtEngine(tensorrt, gpu, plan, MAIN)) as engine:
            agreement = compare(trial, expected_NK, engine.run, share=SHARES.get(wish.precision, INT8_SHARE))
            require_agreement(agreement, f"the engine in {wish.precision}")
            say(agreement.line())
            canary_logits_NK = engine.run(trial.images_NCHW[: len(bundle.canaries)])
            layers = engine.num_layers
    finally:
        gpu.close()
    return Made(
        files={MAIN: plan},
        main=MAIN,
        canary_logits_NK=canary_logits_NK,
        agreement=agreement,
        facts={**facts, "graph": graph, "batch_size": size, "level": level, "layers": layers},
    )


def _tuned_options(bundle: Bundle, wish: Wish) -> Mapping[str, str]:
    """Return the options of what was tuned for TensorRT in this precision on this machine; none where nothing was."""
    here = machine_name()
    kept = [each for each in choices_of(bundle) if each.backend == KIND and each.machine == here]
    return next((dict(each.options) for each in kept if each.precision == wish.precision), {})
