"""int8 within a budget of accuracy: how ranges are measured, and which layers stay in float, until it holds.

All layers in int8 first, with each way to measure ranges, cheapest first. Where none holds, each layer is quantised
alone, which shows what it costs without the others hiding it, and the costliest stay in float: as few as hold the
budget, with half of the multiplications at most.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from linne.bundle import canary_batch
from linne.errors import CheckFailed, RecipeError, suggest
from linne.exporting.calibration import Calibration
from linne.exporting.ranges import NARROWING, Counts, Ranges, Tensors, histograms, min_max
from linne.exporting.to_int8 import Layer, layers_of, prepared, quantised, share_of_work
from linne.graphs.session import GraphSession
from linne.inference.backends.base import RunOptions
from linne.inference.backends.onnx_runtime import OnnxRuntimeBackend
from linne.inference.predictor import Predictor
from linne.preprocess import Floats
from linne.report_parity import ParityReport
from linne.verifying import Reference, compare
from linne.verifying.examples import spread

if TYPE_CHECKING:
    from onnx import ModelProto

MOST_IN_FLOAT = 0.5
"""Of the multiplications: with more in float, int8 is not worth what it costs."""
NUM_SENSITIVITY = 200
"""Images of the calibration with which layers are compared."""
NUM_LISTED = 10
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Try:
    """One way to quantise that was verified."""

    method: str
    in_float: tuple[str, ...]
    work_in_float: float
    """Share of the multiplications."""
    report: ParityReport

    @property
    def lost(self) -> float:
        """The accuracy that is lost, or without labels the share of answers that changed."""
        return self.report.drop if self.report.drop is not None else 1 - self.report.agreement

    def line(self) -> str:
        """Return what came out, in one line."""
        what = "points lost" if self.report.drop is not None else "% of answers changed"
        verdict = "holds" if self.report.passed else "too much"
        kept = f"{len(self.in_float)} in float ({100 * self.work_in_float:.0f} % of the work)"
        return f"{self.method:<10}  {kept:<32}  {100 * self.lost:+.2f} {what}: {verdict}"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "method": self.method,
            "in_float": list(self.in_float),
            "work_in_float": self.work_in_float,
            "lost": self.lost,
            "passed": self.report.passed,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantised:
    """An int8 graph within its budget."""

    content: bytes
    outcome: Try
    tried: tuple[Try, ...]
    layers: tuple[Layer, ...]
    gaps: Mapping[str, float]
    """Of each layer: by how much the logits move when it alone is in int8. Empty where that was not needed."""


class Search:
    """A graph, images and a budget; what is measured on the way is kept."""

    def __init__(
        self,
        content: bytes,
        calibration: Calibration,
        reference: Reference,
        *,
        max_drop: float,
        reduce_range: bool,
        say: Say,
    ) -> None:
        """Prepare to quantise the fp32 graph `content`, verified against `reference` on its examples."""
        self.model: ModelProto = prepared(content)
        self.layers = layers_of(self.model)
        self.tried: list[Try] = []
        self._content = content
        self._calibration = calibration
        self._reference = reference
        self._max_drop = max_drop
        self._reduce_range = reduce_range
        self._say = say
        self._ranges: dict[str, Ranges] = {}

    def run(self, keep_float: Sequence[str] = ()) -> Quantised:
        """Return the first int8 graph that holds the budget.

        Args:
            keep_float: names of layers, or patterns, that stay in float in any case.

        Raises:
            RecipeError: there is no such layer, or nothing to quantise.
            CheckFailed: none holds it.
        """
        if not self.layers:
            raise RecipeError("the graph has no convolution and no matrix product to quantise")
        asked = named(self.layers, keep_float)
        for method in NARROWING:
            found = self._attempt(method, asked)
            if found is not None:
                return self._done(found, {})
        best = min(self.tried, key=lambda item: item.lost).method
        self._say(f"how ranges are measured is not enough; each of {len(self.layers)} layers is quantised alone")
        gaps = self._gaps(best)
        for name, gap in sorted(gaps.items(), key=lambda item: -item[1])[:NUM_LISTED]:
            self._say(f"  {name:<40}  logits move by {gap:.3g}")
        found = self._fewest(best, asked, self._order(gaps, asked))
        if found is None:
            raise CheckFailed(self._failure(), hint=self._hint())
        return self._done(found, gaps)

    def _attempt(self, method: str, in_float: Collection[str]) -> bytes | None:
        """Return the int8 graph with some layers in float, or None where it loses too much; it is listed either way."""
        content = quantised(
            self.model, self.layers, self.ranges(method), in_float=in_float, reduce_range=self._reduce_range
        )
        bundle = self._reference.predictor.bundle
        session = GraphSession(content, "the graph in int8")
        backend = OnnxRuntimeBackend(session, session.run(canary_batch(bundle.input)))
        how = RunOptions(device="cpu", precision="int8")
        report = compare(
            self._reference,
            Predictor(bundle, backend, "onnxruntime", "asked for", how=how),
            max_drop=self._max_drop,
            say=self._say,
        )
        tried = Try(
            method=method,
            in_float=tuple(layer.name for layer in self.layers if layer.name in in_float),
            work_in_float=share_of_work(self.layers, in_float),
            report=report,
        )
        self.tried.append(tried)
        self._say(tried.line())
        return content if report.passed else None

    def ranges(self, method: str) -> Ranges:
        """Return the range of each tensor by a method of `NARROWING`."""
        if method not in self._ranges:
            narrow = NARROWING[method]
            self._ranges[method] = (
                self._whole
                if narrow is None
                else {name: narrow(self._whole[name], counts) for name, counts in self._counts.items()}
            )
        return self._ranges[method]

    @cached_property
    def _tensors(self) -> Tensors:
        return Tensors(self.model, self._calibration)

    @cached_property
    def _whole(self) -> Ranges:
        return min_max(self._tensors)

    @cached_property
    def _counts(self) -> Counts:
        return histograms(self._tensors, self._whole)

    def _gaps(self, method: str) -> dict[str, float]:
        """Return by how much the logits move, on the mean over images, when one layer alone is in int8."""
        images_NCHW = self._calibration.normalised(spread(len(self._calibration), NUM_SENSITIVITY))
        expected_NK = _answers(self._content, images_NCHW)
        names = {layer.name for layer in self.layers}
        gaps = {}
        for layer in self.layers:
            content = quantised(
                self.model,
                self.layers,
                self.ranges(method),
                in_float=names - {layer.name},
                reduce_range=self._reduce_range,
            )
            apart_N = np.abs(_answers(content, images_NCHW) - expected_NK).max(axis=1)
            gaps[layer.name] = float(np.where(np.isfinite(apart_N), apart_N, np.finfo(np.float32).max).mean())
        return gaps

    def _order(self, gaps: Mapping[str, float], asked: Collection[str]) -> list[str]:
        """Return which layers to keep in float, costliest first, as far as half of the work allows."""
        kept = list(asked)
        order = []
        for name in sorted(gaps, key=lambda name: -gaps[name]):
            if name not in kept and share_of_work(self.layers, [*kept, name]) <= MOST_IN_FLOAT:
                kept.append(name)
                order.append(name)
        return order

    def _fewest(self, method: str, asked: Collection[str], order: Sequence[str]) -> bytes | None:
        """Return the graph with the fewest of `order` in float that holds the budget: doubled, then halved between."""
        failed, count, found = 0, 1, None
        while found is None and failed < len(order):
            count = min(count, len(order))
            found = self._attempt(method, {*asked, *order[:count]})
            if found is None:
                failed, count = count, 2 * count
        if found is None:
            return None
        while count - failed > 1:
            middle = (failed + count) // 2
            better = self._attempt(method, {*asked, *order[:middle]})
            if better is None:
                failed = middle
            else:
                count, found = middle, better
        return found

    def _done(self, content: bytes, gaps: Mapping[str, float]) -> Quantised:
        passed = [item for item in self.tried if item.report.passed]
        outcome = min(passed, key=lambda item: len(item.in_float))
        return Quantised(content=content, outcome=outcome, tried=tuple(self.tried), layers=self.layers, gaps=gaps)

    def _failure(self) -> str:
        examples = self._reference.examples.name
        if self._max_drop * self.tried[0].report.num_images < 1:
            examples += " (of so few not one may be lost)"
        table = "\n".join(f"  {item.line()}" for item in self.tried)
        return (
            f"int8 does not hold {100 * self._max_drop:g} points on {examples}, with at most "
            f"{100 * MOST_IN_FLOAT:.0f} % of the work in float; nothing is written\n{table}"
        )

    def _hint(self) -> str:
        least = math.ceil(1e4 * min(item.lost for item in self.tried)) / 100
        return f"--max-drop {least:g} would hold; or --keep-float NAME for layers you know; or --precision fp16"


def named(layers: Sequence[Layer], patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the layers that `patterns` name.

    Raises:
        RecipeError: one of them names none.
    """
    names = [layer.name for layer in layers]
    found = []
    for pattern in patterns:
        matching = fnmatch.filter(names, pattern)
        if not matching:
            listed = ", ".join(f"`{name}`" for name in names[:NUM_LISTED]) + (
                ", ..." if len(names) > NUM_LISTED else ""
            )
            raise RecipeError(f"no layer `{pattern}` in the graph", hint=suggest(pattern, names) or f"it has {listed}")
        found += matching
    return tuple(dict.fromkeys(found))


def _answers(content: bytes, images_NCHW: Floats) -> Floats:
    session = GraphSession(content, "the graph with one layer in int8")
    rows = [session.run(images_NCHW[start : start + 32]) for start in range(0, len(images_NCHW), 32)]
    return np.concatenate(rows)
