"""Between which numbers each tensor of a graph lies, measured on images: all of them, or all but what is rare.

Whatever the number of images, memory holds the tensors of a few at a time, two numbers a tensor, and for what looks at
distributions `NUM_BINS` counts a tensor, in a range that is known before: no histogram grows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from linne.exporting.calibration import Calibration
from linne.graphs.session import GraphSession

if TYPE_CHECKING:
    from onnx import ModelProto

AT_ONCE_BYTES = 256_000_000
"""Of tensors that are looked at together, those of one image at least."""
MOST_AT_ONCE = 64
NUM_BINS = 2048
LEVELS = 256
"""Of a uint8 tensor."""
RARE = 1e-4
"""The share of a tensor's numbers that may be cut off on each side, by `percentile`."""

Range = tuple[float, float]
Ranges = Mapping[str, Range]
Counts = Mapping[str, NDArray[np.int64]]


class Tensors:
    """Every fp32 tensor that a graph computes for the images of a calibration."""

    def __init__(self, model: ModelProto, calibration: Calibration, at_once_bytes: int = AT_ONCE_BYTES) -> None:
        """Open `model`; tensors of up to `at_once_bytes` are in memory together, or those of one image."""
        import onnx
        from onnx import TensorProto

        probe = onnx.ModelProto()
        probe.CopyFrom(model)
        typed = onnx.shape_inference.infer_shapes(probe)
        known = {item.name: item.type.tensor_type.elem_type for item in (*typed.graph.value_info, *typed.graph.output)}
        shown = {item.name for item in probe.graph.output}
        names = [name for node in probe.graph.node for name in node.output if known.get(name) == TensorProto.FLOAT]
        probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in shown)
        stored = {item.name for item in probe.graph.initializer}
        (self._input,) = (item.name for item in probe.graph.input if item.name not in stored)
        self._session = GraphSession(probe.SerializeToString(), "the graph with all its tensors")
        self._calibration = calibration
        self._at_once_bytes = at_once_bytes
        self._at_once = self._session.batch_size or 0

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield all tensors by name, of a few images after the other."""
        if not self._at_once:
            one = self._all(self._calibration.normalised(slice(1)))
            each = sum(tensor.nbytes for tensor in one.values())
            self._at_once = min(max(self._at_once_bytes // each, 1), MOST_AT_ONCE, len(self._calibration))
        for images_NCHW in self._calibration.batches(self._at_once):
            yield self._all(images_NCHW)

    def _all(self, images_NCHW: Any) -> dict[str, NDArray[Any]]:
        return {self._input: images_NCHW, **self._session.run_all(images_NCHW)}


def min_max(tensors: Tensors) -> dict[str, Range]:
    """Return the smallest and the largest number of each tensor."""
    found: dict[str, Range] = {}
    for batch in tensors:
        for name, tensor in batch.items():
            low, high = found.get(name, (0.0, 0.0))  # 0 is in every range: paddings are exactly that
            found[name] = (min(low, float(tensor.min())), max(high, float(tensor.max())))
    return found


def histograms(tensors: Tensors, whole: Ranges) -> Counts:
    """Return how many of each tensor's numbers lie in each of `NUM_BINS` parts of its range in `whole`."""
    counts = {name: np.zeros(NUM_BINS, np.int64) for name in whole}
    for batch in tensors:
        for name, tensor in batch.items():
            counts[name] += np.histogram(tensor, NUM_BINS, whole[name])[0]
    return counts


def percentile(whole: Range, counts: NDArray[np.int64]) -> Range:
    """Return `whole` without the rarest numbers: a share of `RARE` on each side, in steps of a bin."""
    low, high = whole
    edges = np.linspace(low, high, NUM_BINS + 1)
    share = np.cumsum(counts) / max(int(counts.sum()), 1)
    first = int(np.searchsorted(share, RARE))
    last = int(np.searchsorted(share, 1 - RARE))
    return float(edges[first]), float(edges[min(last + 1, NUM_BINS)])


def entropy(whole: Range, counts: NDArray[np.int64]) -> Range:
    """Return the part of `whole` in which `LEVELS` levels keep most of the distribution (Kullback-Leibler).

    What is cut off counts for the outermost bins, as it is rounded to them (Migacz 2017, 8-bit inference with
    TensorRT); both ends come nearer to 0 together, to an eighth of where they were.
    """
    low, high = whole
    edges = np.linspace(low, high, NUM_BINS + 1)
    zero = int(np.clip(np.searchsorted(edges, 0.0), 0, NUM_BINS))
    counts = counts.copy()
    # What a ReLU sets to 0 is exact at any scale, and would outweigh all else.
    at_zero = slice(max(zero - 1, 0), zero + 1)
    counts[at_zero] = counts[min(zero + 1, NUM_BINS - 1)]
    best, least = whole, np.inf
    for share in np.linspace(1.0, 0.125, 113):
        first, last = round(zero * (1 - share)), round(zero + (NUM_BINS - zero) * share)
        lost = _divergence(counts, first, max(last, first + 1))
        if lost < least:
            best, least = (float(edges[first]), float(edges[max(last, first + 1)])), lost
    return best


def _divergence(counts: NDArray[np.int64], first: int, last: int) -> float:
    """Return the information that is lost where bins `first` ... `last` - 1 share `LEVELS` levels."""
    kept = counts[first:last].astype(np.float64)
    before = kept.copy()
    before[0] += counts[:first].sum()
    before[-1] += counts[last:].sum()
    level = np.arange(len(kept)) * LEVELS // len(kept)
    filled = before > 0
    in_level = np.bincount(level, kept)
    spread_over = np.maximum(np.bincount(level, filled), 1)
    after = np.where(filled, (in_level / spread_over)[level], 0.0)
    p, q = before / before.sum(), after / max(float(after.sum()), 1.0)
    # A bin that only holds what was cut off has nothing after; a tiny share stands for it.
    return float((p[filled] * np.log(p[filled] / np.maximum(q[filled], 1e-12))).sum())


NARROWING: Mapping[str, Callable[[Range, NDArray[np.int64]], Range] | None] = {
    "minmax": None,
    "percentile": percentile,
    "entropy": entropy,
}
"""How ranges can be measured, cheapest first; None takes them whole."""
