"""Batches of an evaluation or a prediction, traced from file bytes to labels."""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Sequence
from typing import Any

from torch.profiler import profile

from linne.data.source import Split
from linne.errors import LinneError
from linne.evaluation import CHUNK_IMAGES, chunks
from linne.inference.backends.pytorch import TorchBackend
from linne.inference.inputs import NamedImage
from linne.inference.predictor import Predictor
from linne.profiling.measured import summarise
from linne.profiling.parts import Parts, announce
from linne.profiling.passes import Steps, run_passes
from linne.profiling.summary import Traced, TraceSummary

BATCH_IMAGES = 64
"""Images that `linne predict` takes at once."""
MOST_IMAGES = 16 * BATCH_IMAGES
"""Of those named; they are predicted again and again."""
FLOAT_BYTES = 4


def trace_evaluation(
    predictor: Predictor, split: Split, num_steps: int | None, start: float
) -> tuple[TraceSummary, profile]:
    """Return what was found of an evaluation's batches, and torch's record; mutates `predictor`.

    `start` is when opening began, by `time.perf_counter`.

    Raises:
        DeviceError: an operator ran on the CPU that was not allowed to.
    """
    parts = Parts(_backend(predictor).device)
    batch = min(CHUNK_IMAGES, len(split))
    subject = f"evaluating {predictor.bundle.path} on split {split.name}, {batch} images a batch"
    return _trace(predictor, parts, lambda: _evaluation(predictor, split, parts), num_steps, start, "evaluate", subject)


def trace_prediction(
    predictor: Predictor, images: Sequence[NamedImage], num_steps: int | None, start: float
) -> tuple[TraceSummary, profile]:
    """Return what was found of a prediction's batches, and torch's record; mutates `predictor`.

    `start` is when opening began, by `time.perf_counter`.

    Raises:
        LinneError: no image can be read.
        DeviceError: an operator ran on the CPU that was not allowed to.
    """
    parts = Parts(_backend(predictor).device)
    batch = min(BATCH_IMAGES, len(images))
    subject = f"predicting with {predictor.bundle.path}, {batch} image{'s' * (batch != 1)} a batch"
    announce(parts, predictor, "logits_of_cropped", "prepare", then="other")
    return _trace(predictor, parts, lambda: _prediction(predictor, images, parts), num_steps, start, "predict", subject)


def _trace(
    predictor: Predictor,
    parts: Parts,
    steps: Steps,
    num_steps: int | None,
    start: float,
    traced: Traced,
    subject: str,
) -> tuple[TraceSummary, profile]:
    backend, spec = _backend(predictor), predictor.bundle.input
    announce(parts, backend, "run", "copy", then="prepare" if predictor.tta else None)
    announce(parts, backend, "network", "forward", then="back")
    setup_seconds = time.perf_counter() - start
    measured = run_passes(steps, parts, backend.device, backend.fallbacks, num_steps)
    copied = measured.whole.images * spec.height * spec.width * spec.channels * FLOAT_BYTES
    facts: dict[str, Any] = {
        "traced": traced,
        "setup_seconds": setup_seconds,
        "subject": f"{subject}, fp32" + (f", views by {predictor.tta}" if predictor.tta else ""),
        "copied_bytes": copied,
        "size": (spec.height, spec.width),
    }
    return summarise(measured, parts, backend.device, backend.fallbacks, **facts), measured.recorded


def _backend(predictor: Predictor) -> TorchBackend:
    """Return the torch backend, which has a network to watch."""
    assert isinstance(predictor.backend, TorchBackend)
    return predictor.backend


def _evaluation(predictor: Predictor, split: Split, parts: Parts) -> Generator[int]:
    """Yield the number of images of each batch when it is answered, pass after pass."""
    for _ in itertools.count():
        done = 0
        parts.begin("decode")
        for images, positions, _unread in chunks(split, predictor.bundle.input):
            if not positions:
                continue
            parts.begin("prepare")
            predictor.logits_of_cropped(images)
            parts.end_step()
            done += len(positions)
            yield len(positions)
            parts.begin("decode")
        if not done:
            raise LinneError(f"none of the {len(split)} images of split `{split.name}` can be read")


def _prediction(predictor: Predictor, images: Sequence[NamedImage], parts: Parts) -> Generator[int]:
    """Yield the number of images of each batch when its labels are known, pass after pass."""
    for _ in itertools.count():
        done, problem = 0, None
        parts.begin("decode")
        rows = predictor.predict_files(images, batch_size=BATCH_IMAGES)
        while batch := list(itertools.islice(rows, BATCH_IMAGES)):
            readable = sum(row.error is None for row in batch)
            problem = next((row.error for row in batch if row.error is not None), problem)
            if not readable:
                continue
            parts.begin("other")
            parts.end_step()
            done += readable
            yield readable
            parts.begin("decode")
        if not done:
            raise LinneError(f"none of the {len(images)} images can be read: {problem}")
