"""Where the time of a training step, an evaluation or a prediction goes, and what would change it."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linne.errors import LinneError
from linne.host import prepare_for_torch
from linne.log import Narrator, new_folder

if TYPE_CHECKING:
    from torch.profiler import profile

    from linne.data.source import Source
    from linne.inference.predictor import Predictor
    from linne.profiling.summary import TraceSummary
    from linne.profiling.trace import TraceResult
    from linne.recipe import Views

TRACES_FOLDER = "traces"


def trace_train(
    source: str | Source | None = None,
    *,
    model: str | None = None,
    weights: str | None = None,
    recipe: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    device: str | None = None,
    seed: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    steps: int | None = None,
    output: str | Path | None = None,
    require_accelerator: bool = False,
    trust_code: bool = False,
    quiet: bool = False,
) -> TraceResult:
    """Trace steps of what `linne.train` would train with these arguments, and return where their time goes.

    No run folder is made and no weights are kept. Pretrained `weights` decide what is chosen for a step, such as the
    size of images; their numbers do not change its time, and are not read.

    Args:
        steps: How many are timed; without it as many as fit into a few seconds.
        output: The folder of the trace; `traces/NAME-k` without it.

    Raises:
        LinneError: something given cannot be used.
    """
    start = time.perf_counter()
    _prepare(steps)
    from linne.planning import default_output_name, plan_anew
    from linne.profiling.training import trace_steps

    narrator = Narrator(quiet=quiet)
    flags = {
        "model.name": model,
        "model.weights": weights,
        "optim.epochs": epochs,
        "data.batch_size": batch_size,
        "optim.lr": lr,
        "device.name": device,
        "seed": seed,
    }
    guards = {"require_accelerator": require_accelerator, "trust_code": trust_code}
    name, opened = (source, None) if source is None or isinstance(source, str) else (source.name, source)
    plan = plan_anew(
        name,
        recipe,
        flags,
        {"optim.minutes": None, **(overrides or {})},
        opened,
        **guards,
        fetch_weights=False,
        say=narrator.line,
    )
    with _folder(output, f"train-{default_output_name(plan.recipe)}") as folder:
        found = trace_steps(plan, narrator, steps, start, **guards)
        return _keep(
            folder, *found, {"recipe": plan.recipe.to_dict(), "device_record": plan.device.to_dict()}, narrator
        )


def trace_evaluate(
    bundle: str | Path,
    source: str | Source,
    *,
    split: str = "test",
    splits_file: str | Path | None = None,
    tta: Views | None = None,
    device: str = "auto",
    steps: int | None = None,
    output: str | Path | None = None,
    require_accelerator: bool = False,
    trust_code: bool = False,
    quiet: bool = False,
) -> TraceResult:
    """Trace batches of what `linne.evaluate` would measure, and return where their time goes.

    `steps` and `output` are as in `linne.trace_train`; the other arguments as in `linne.evaluate`.

    Raises:
        LinneError: the bundle, the source or the split cannot be used.
    """
    start = time.perf_counter()
    _prepare(steps)
    from linne.evaluation import split_of
    from linne.profiling.inference import trace_evaluation

    predictor = _open(bundle, device, tta, require_accelerator, trust_code)
    if isinstance(source, str):
        from linne.trained_on import as_in_training

        source = as_in_training(predictor.bundle, source, splits_file)
    narrator, examples = Narrator(quiet=quiet), split_of(source, split)
    with _folder(output, f"evaluate-{predictor.bundle.path.parent.name}") as folder:
        narrator.line("timing batches")
        return _keep(folder, *trace_evaluation(predictor, examples, steps, start), _facts_of(predictor), narrator)


def trace_predict(
    bundle: str | Path,
    inputs: str | Path | Iterable[str | Path],
    *,
    tta: Views | None = None,
    device: str = "auto",
    steps: int | None = None,
    output: str | Path | None = None,
    require_accelerator: bool = False,
    trust_code: bool = False,
    quiet: bool = False,
) -> TraceResult:
    """Trace batches of what `linne.predict` would answer, from the bytes of files to labels.

    The images are predicted again and again, so that their files are read from memory and not from a disk. `steps` and
    `output` are as in `linne.trace_train`; the other arguments as in `linne.predict`.

    Raises:
        LinneError: the bundle cannot be used, an input names nothing, or no image can be read.
    """
    start = time.perf_counter()
    _prepare(steps)
    from linne.inference.inputs import find_images
    from linne.profiling.inference import MOST_IMAGES, trace_prediction

    named = find_images([inputs] if isinstance(inputs, (str, Path)) else list(inputs))
    images, narrator = list(itertools.islice(named, MOST_IMAGES)), Narrator(quiet=quiet)
    predictor = _open(bundle, device, tta, require_accelerator, trust_code)
    with _folder(output, f"predict-{predictor.bundle.path.parent.name}") as folder:
        narrator.line("timing batches")
        return _keep(folder, *trace_prediction(predictor, images, steps, start), _facts_of(predictor), narrator)


def _prepare(steps: int | None) -> None:
    """Make ready for torch; raise LinneError where there is none, or nothing is to be timed."""
    if steps is not None and steps < 1:
        raise LinneError(f"steps is {steps}, expected 1 or more", hint="leave it out to time a few seconds' worth")
    if find_spec("torch") is None:
        raise LinneError("tracing needs `torch`, which is not installed", hint="pip install 'linne[train]'")
    prepare_for_torch()
    # What lies below torch's profiler writes its own doings to stderr, and warns of each block that is older than it.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def _open(bundle: str | Path, device: str, tta: Views | None, require_accelerator: bool, trust_code: bool) -> Predictor:
    from linne.inference.backends.base import RunOptions
    from linne.inference.predictor import Predictor

    how = RunOptions(device=device, require_accelerator=require_accelerator, trust_code=trust_code)
    return Predictor.open(bundle, backend="torch", how=how, tta=tta)


def _facts_of(predictor: Predictor) -> dict[str, Any]:
    """Return what a bundle's trace is a trace of."""
    from linne.inference.backends.pytorch import TorchBackend

    assert isinstance(predictor.backend, TorchBackend)
    return {"bundle": str(predictor.bundle.path), "device_record": predictor.backend.device.to_dict()}


@contextlib.contextmanager
def _folder(output: str | Path | None, name: str) -> Iterator[Path]:
    """Make the folder of a trace, which is gone again if nothing came to lie in it."""
    folder = new_folder(output, name, TRACES_FOLDER)
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _keep(
    folder: Path, summary: TraceSummary, recorded: profile, facts: Mapping[str, Any], narrator: Narrator
) -> TraceResult:
    """Write a trace and say where it is."""
    from linne.device.record import describe_versions
    from linne.profiling.trace import save_trace

    narrator.line("writing what the profiler recorded")
    return save_trace(folder, summary, recorded, {**facts, "versions": describe_versions()})
