"""Whether a bundle answers the same in another way of running it: from the bytes of images to labels.

Two predictors see the same pixels. The reference is the network as it was trained, in fp32 on the CPU. The candidate is
what would be deployed: its backend, its precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from linne import metrics
from linne.bundle import Bundle
from linne.bundle_format import GRAPH
from linne.errors import LinneError, SourceError
from linne.exports import Precision, has_export
from linne.inference.backends import BACKENDS, NEVER_AUTO, choose_backend, load_backend
from linne.inference.backends.base import RunOptions
from linne.inference.predictor import Predictor
from linne.preprocess import Floats
from linne.report_parity import Changed, ParityReport
from linne.verifying.examples import Batch, Examples
from linne.verifying.pace import Pace

FP32_GAP = 1e-4
"""Of logits in fp32, as a share of the largest, or of 1 where that is larger.

Networks with other kernels and folded batch norms stay within 4e-5 of torch on ImageNet's logits, which reach 20."""
MAX_DROP = {"fp32": 0.0, "fp16": 0.001, "bf16": 0.005, "int8": 0.005}
"""Of the accuracy, by precision."""
NO_NUMBER = float(np.finfo(np.float32).max)
"""The gap of an answer that is not a number; JSON has no infinity."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """What one predictor made of the examples; N counts images that could be read."""

    logits_NK: Floats
    names: tuple[str, ...]
    labels_N: NDArray[np.int64] | None
    num_skipped: int


def reference_of(bundle: Bundle, *, trust_code: bool = False) -> Predictor:
    """Return the network as it was trained: by torch where it holds weights, or its own graph as it was written.

    Raises:
        LinneError: what runs it is not installed, or it does not answer its canaries as it did.
    """
    own = "onnxruntime" if bundle.network_file == GRAPH else "torch"
    name = next(name for name in (*NEVER_AUTO, own) if load_backend(name).why_not(bundle) is None)
    # A graph is run as it was written: a rewriting that is wrong would be wrong in both.
    options = {"optimise": "none"} if name == "onnxruntime" else {}
    how = RunOptions(device="cpu", options=options, trust_code=trust_code)
    return Predictor.open(bundle, backend=name, how=how)


def candidates(
    bundle: Bundle, backend: str, how: RunOptions, precision: Precision | None
) -> list[tuple[str, RunOptions]]:
    """Return what there is to verify: what was asked for, or else every backend in every precision that it can run.

    Raises:
        LinneError: what was asked for cannot be run here, or there is nothing but the reference.
    """
    if backend != "auto" or precision is not None:
        asked = replace(how, precision=precision or "fp32")
        return [(choose_backend(backend, bundle, asked.precision, asked.device)[0], asked)]
    found = []
    for name in BACKENDS:
        kind = load_backend(name)
        if name in ("torch", *NEVER_AUTO) or kind.why_unavailable() is not None:
            continue
        found += [
            (name, replace(how, precision=each))
            for each in kind.PRECISIONS
            if kind.why_not(bundle, each) is None and _is_made(bundle, name, each)
        ]
    if not found:
        raise LinneError(
            f"there is nothing to verify: bundle `{bundle.path}` has no export that a backend here could run",
            hint=f"linne export {bundle.path} --to onnx; or name a --backend or a --precision",
        )
    return found


def _is_made(bundle: Bundle, backend: str, precision: Precision) -> bool:
    """Return whether somebody made the bundle in `precision`: half precision may also be a runtime's own doing."""
    kind = "onnx" if backend in ("onnxruntime", "tensorrt") else backend
    return precision in ("fp32", "int8") or has_export(bundle, kind, precision)


class Reference:
    """A bundle's reference with its answers to examples: given once, and kept for the next candidate."""

    def __init__(self, predictor: Predictor, examples: Examples) -> None:
        self.predictor = predictor
        self.examples = examples
        self._logits: list[Floats] = []

    def logits(self, place: int, batch: Batch) -> Floats:
        """Return logits N x K of the batch at `place` among the examples."""
        if place == len(self._logits):
            self._logits.append(self.predictor.logits_of_cropped(batch.images))
        return self._logits[place]


def compare(
    reference: Reference,
    candidate: Predictor,
    *,
    max_drop: float | None = None,
    max_gap: float | None = None,
    say: Callable[[str], None] | None = None,
) -> ParityReport:
    """Return how `candidate` compares with `reference` on its examples; both are of one bundle.

    Args:
        max_drop: of the accuracy, as a fraction; None takes that of `MAX_DROP`.
        max_gap: of logits; None takes `FP32_GAP` in fp32, and sets no limit in other precisions.
        say: is told how far it is, where it takes long.

    Raises:
        SourceError: no image can be read.
    """
    precision = candidate.how.precision
    max_drop = MAX_DROP[precision] if max_drop is None else max_drop
    first, answers_NK = _answers(reference, candidate, say)
    largest = float(np.abs(first.logits_NK).max())
    if max_gap is None and precision == "fp32":
        max_gap = FP32_GAP * max(largest, 1.0)
    gaps_N = np.abs(answers_NK.astype(np.float64) - first.logits_NK).max(axis=1)
    gaps_N = np.where(np.isfinite(gaps_N), gaps_N, NO_NUMBER)
    theirs_N, ours_N = metrics.predict(first.logits_NK), metrics.predict(np.nan_to_num(answers_NK, nan=-np.inf))
    bundle = reference.predictor.bundle
    before, after, interval = _accuracies(theirs_N, ours_N, first.labels_N)
    report = ParityReport(
        bundle=str(bundle.path),
        candidate=name_of(candidate),
        description=candidate.backend.description,
        reference=reference.predictor.backend.description,
        examples=reference.examples.name,
        num_images=len(first.names),
        num_skipped=first.num_skipped,
        canary_gap=min(_canary_gap(bundle, candidate), NO_NUMBER),
        worst_gap=float(gaps_N.max()),
        mean_gap=float(gaps_N.mean()),
        largest_logit=largest,
        num_agree=int((theirs_N == ours_N).sum()),
        reference_accuracy=before,
        accuracy=after,
        drop_interval=interval,
        max_gap=max_gap,
        max_drop=max_drop,
        changed=_changed(bundle.labels, first, theirs_N, ours_N, gaps_N),
        problems=(),
    )
    return replace(report, problems=tuple(problems_of(report, all_finite=bool(np.isfinite(answers_NK).all()))))


def name_of(candidate: Predictor) -> str:
    """Return by what name a candidate's results are kept: `onnxruntime int8 on cpu`."""
    options = "".join(f" {key}={value}" for key, value in sorted(candidate.how.options.items()))
    device = "cpu" if candidate.how.device == "auto" else candidate.how.device
    return f"{candidate.backend_name} {candidate.how.precision} on {device}{options}"


def problems_of(report: ParityReport, *, all_finite: bool = True) -> list[str]:
    """Return what is wrong, worst first, a sentence each."""
    problems = []
    if not all_finite:
        problems.append("some of its answers are not numbers")
    if report.max_gap is not None and not report.worst_gap <= report.max_gap:
        problems.append(f"logits differ by up to {report.worst_gap:.2g}, {report.max_gap:.2g} allowed")
    if report.drop is not None and report.drop > report.max_drop + 1e-12:
        allowed = f"{100 * report.max_drop:g} allowed"
        problems.append(f"it loses {100 * report.drop:.2f} points of accuracy, {allowed}")
    if report.drop is None and 1 - report.agreement > report.max_drop + 1e-12:
        num_changed = report.num_images - report.num_agree
        allowed = f"{100 * report.max_drop:g} % allowed"
        problems.append(f"{num_changed:,} of {report.num_images:,} images get another label, {allowed}")
    return problems


def _answers(reference: Reference, candidate: Predictor, say: Callable[[str], None] | None) -> tuple[Answers, Floats]:
    """Return the reference's answers, and the candidate's logits N x K of the same images."""
    pace = Pace(say, name_of(candidate), reference.examples.num_images)
    run, size = candidate.logits_of_cropped, candidate.backend.batch_size
    logits: list[Floats] = []
    theirs: list[Floats] = []
    names: list[str] = []
    labels: list[NDArray[np.int64] | None] = []
    skipped = 0
    for batch in reference.examples.batches():
        skipped += batch.num_skipped
        if not batch.names:
            continue
        logits.append(reference.logits(len(logits), batch))
        theirs.append(pace.through(run, batch.images, size))
        names += batch.names
        labels.append(batch.labels_N)
    if not names:
        raise SourceError(f"none of the {skipped:,} images of {reference.examples.name} can be read")
    known = [part for part in labels if part is not None]
    answers = Answers(
        logits_NK=np.concatenate(logits),
        names=tuple(names),
        labels_N=np.concatenate(known) if len(known) == len(labels) else None,
        num_skipped=skipped,
    )
    return answers, np.concatenate(theirs)


def _accuracies(
    theirs_N: metrics.Ints, ours_N: metrics.Ints, labels_N: metrics.Ints | None
) -> tuple[float | None, float | None, tuple[float, float] | None]:
    """Return the accuracy of the reference, of the candidate, and the interval of what is lost."""
    if labels_N is None:
        return None, None, None
    before_N, after_N = theirs_N == labels_N, ours_N == labels_N
    lost, won = int((before_N & ~after_N).sum()), int((after_N & ~before_N).sum())
    return float(before_N.mean()), float(after_N.mean()), metrics.paired_interval(lost, won, len(labels_N))


def _changed(
    labels: Sequence[str], first: Answers, theirs_N: metrics.Ints, ours_N: metrics.Ints, gaps_N: NDArray[np.float64]
) -> tuple[Changed, ...]:
    positions = np.flatnonzero(theirs_N != ours_N)
    order = positions[np.argsort(-gaps_N[positions], kind="stable")]
    return tuple(
        Changed(
            name=first.names[n],
            reference=labels[theirs_N[n]],
            answer=labels[ours_N[n]],
            gap=float(gaps_N[n]),
        )
        for n in order
    )


def _canary_gap(bundle: Bundle, candidate: Predictor) -> float:
    """Return how far the candidate's answers to the canaries are from the bundle's own."""
    recorded = candidate.backend.canary_logits_NK
    if recorded is None:
        return candidate.worst_canary().gap
    expected_NK = np.array([canary.logits for canary in bundle.canaries])
    scale = max(float(np.abs(expected_NK).max()), float(np.finfo(np.float32).tiny))
    return float(np.abs(recorded - expected_NK).max() / scale)
