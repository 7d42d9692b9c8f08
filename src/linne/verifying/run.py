"""One candidate opened and compared, and results kept with the bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from linne.bundle import Bundle, add_metrics, open_bundle
from linne.errors import DeviceError, LinneError
from linne.exports import NotMadeHereError
from linne.inference.backends import load_backend
from linne.inference.backends.base import RunOptions, require_known
from linne.inference.predictor import Predictor
from linne.preprocess import normalise
from linne.report_parity import ParityReport
from linne.verifying import Reference, compare
from linne.verifying.layers import where_they_part

SCORE = "verified"
"""Where results are kept among a bundle's metrics."""


def verify_each(
    reference: Reference,
    tried: Sequence[tuple[str, RunOptions]],
    *,
    max_drop: float | None = None,
    max_gap: float | None = None,
    say: Callable[[str], None],
) -> list[ParityReport]:
    """Return how each of `tried` compares with `reference`; one of several that cannot run on this device is said.

    Raises:
        LinneError: as `verify_one`; where there is but one, also that the device cannot run it; or it can run none.
    """
    reports = []
    for name, how in tried:
        say(f"verifying {name} in {how.precision} on {reference.examples.name}")
        try:
            reports.append(verify_one(reference, name, how, max_drop=max_drop, max_gap=max_gap, say=say))
        except (DeviceError, NotMadeHereError) as error:
            if len(tried) == 1:
                raise
            say(f"{name} in {how.precision} is not verified: {error.message}")
    if not reports:
        raise LinneError("nothing could be verified: none of the ways to run the bundle can be run here")
    return reports


def verify_one(
    reference: Reference,
    backend: str,
    how: RunOptions,
    *,
    max_drop: float | None = None,
    max_gap: float | None = None,
    say: Callable[[str], None] | None = None,
) -> ParityReport:
    """Return how `backend`, run as `how` says, compares with `reference` on its examples.

    Its canaries are not replayed before, as they are before a prediction: an answer that is off is what is looked for.

    Raises:
        LinneError: the backend cannot be opened so.
    """
    kind = load_backend(backend)
    require_known(backend, kind, how)
    bundle = reference.predictor.bundle
    candidate = Predictor(bundle, kind.open(bundle, how), backend, "asked for", how=how)
    try:
        report = compare(reference, candidate, max_drop=max_drop, max_gap=max_gap, say=say)
        worst = candidate.worst_canary()
        if not worst.gap <= candidate.canary_tolerance:
            problem = f"it answers canary `{worst.file}` otherwise than when it was written: off by {worst.gap:.2g}"
            report = replace(report, problems=(*report.problems, problem))
        if not report.passed:
            report = replace(report, diverges=_where(reference, candidate))
    finally:
        candidate.backend.close()
    return report


def _where(reference: Reference, candidate: Predictor) -> str | None:
    """Return where the two part on the first image; a runtime that cannot be looked into is no reason to fail."""
    predictor = reference.predictor
    batch = next(batch for batch in reference.examples.batches() if batch.names)
    images_NCHW = normalise(np.stack(list(batch.images[:1])), predictor.bundle.input)
    try:
        return where_they_part(predictor, candidate, images_NCHW)
    except LinneError as error:
        return f"where they part cannot be told: {error.message}"


def keep_results(bundle: Bundle, reports: Sequence[ParityReport]) -> Bundle:
    """Return `bundle` with the reports among its scores, each in the place of an older one of the same candidate."""
    before = open_bundle(bundle.path).metrics.get(SCORE)
    older = dict(before) if isinstance(before, dict) else {}
    return add_metrics(bundle, {SCORE: {**older, **{report.candidate: dict(report.kept()) for report in reports}}})
