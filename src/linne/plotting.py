"""Reports and metrics to figures whose titles say what is to be seen; `linne.figure_style` decides how they look."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from linne.figure_style import (
    LIGHT,
    Theme,
    drawn,
    inches,
    locator,
    luminance,
    new_axes,
    new_figure,
    rgb,
    write_headings,
    write_title,
)
from linne.metrics import wilson_interval
from linne.report import EvalReport, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

COUNTS_UP_TO = 20
"""Classes whose confusions are written as numbers; more would not be legible."""
LABELS_UP_TO = 40
"""Classes that are all named along the axes; of more, every n-th."""


def plot_curves(rows: Sequence[Row], *, theme: Theme = LIGHT) -> Figure | None:
    """Return loss and, where there is a validation split, accuracy over epochs; None when nothing was measured.

    `rows` are those of a run's `metrics.jsonl`. The kept epoch is marked. The loss axis is logarithmic once the
    loss has fallen to a fifteenth.
    """
    steps = _finite(rows, "step", "loss")
    train, val, accuracy = (_finite(rows, "epoch", key) for key in ("train_loss", "val_loss", "val_accuracy"))
    if not steps and not train:
        return None
    best = next((row for row in reversed(rows) if row.get("best") and row.get("val_accuracy") is not None), None)
    figure = new_figure(9.6, 3.7, theme)
    axes = new_axes(figure, 0.65, 0.6, 3.05 if accuracy else 7.9, 2.6, theme)
    axes.plot(*_xy(steps[:: 1 + len(steps) // 2000]), color=theme.muted, linewidth=0.8, alpha=0.4)
    lines = [("train", train or steps, theme.muted), ("val", val, theme.right)]
    _draw_lines(axes, lines, _plain_number, theme)
    final = (val or train or steps)[-1][1]
    title = f"Loss falls to {_plain_number(final)}"
    if val:
        lowest = min(val, key=lambda point: point[1])
        title = f"Val loss is lowest, {_plain_number(lowest[1])}, at epoch {lowest[0]:g}"
    write_title(axes, title, theme)
    if accuracy:
        axes = new_axes(figure, 5.45, 0.6, 3.05, 2.6, theme)
        _draw_lines(axes, [("val", accuracy, theme.right)], percent, theme)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        epoch, value = (best["epoch"], best["val_accuracy"]) if best else max(accuracy, key=lambda point: point[1])
        axes.plot([epoch], [value], "o", color=theme.right, markersize=8, markeredgecolor=theme.paper, zorder=5)
        write_title(axes, f"{percent(value)} of val images right at epoch {epoch}{', kept' if best else ''}", theme)
    return figure


def plot_confusion(report: EvalReport, *, theme: Theme = LIGHT) -> Figure:
    """Return the confusion matrix, rows = what the image is, shaded by the share of its row.

    Right answers are blue; wrong ones vermilion and shaded by the square root, so that a rare confusion is seen.
    """
    counts_KK = np.array(report.confusion)
    num_classes = len(counts_KK)
    side = min(max(0.56 * num_classes, min(1.3 * num_classes, 3.4)), 7.0)
    names = _AxisNames.fit(report.labels, side)
    lines = [f"{report.num_right:,} of {report.num_examples:,} {report.split} images right"]
    if report.most_confused:
        pair = report.most_confused[0]
        times = "once" if pair.count == 1 else f"{pair.count:,} times"
        lines.append(f"most often {drawn(pair.label, 24)} is taken for {drawn(pair.predicted, 24)}: {times}")
    widest = max(0.105 * len(lines[0]), *(0.087 * len(line) for line in lines))
    figure = new_figure(max(names.left + side, widest) + 0.5, names.below + side + 0.85, theme)
    axes = figure.add_axes(inches(figure, names.left, names.below, side, side))
    axes.imshow(_confusion_colours(counts_KK, theme), interpolation="nearest" if num_classes <= 200 else "auto")
    ticks = np.arange(0, num_classes, names.every)
    style: dict[str, Any] = {"fontsize": names.font, "color": theme.ink}
    axes.set_xticks(ticks, names.across[:: names.every], rotation=90 if names.upright else 0, **style)
    axes.set_yticks(ticks, names.down[:: names.every], **style)
    axes.tick_params(length=0 if names.every == 1 else 2, color=theme.muted)
    axes.set_xlabel("predicted class", color=theme.muted, fontsize=9.5, labelpad=7)
    axes.set_ylabel("true class", color=theme.muted, fontsize=9.5, labelpad=7)
    axes.spines[:].set_visible(False)
    if num_classes <= COUNTS_UP_TO:
        _write_counts(axes, counts_KK, side / num_classes, theme)
    write_headings(figure, lines, theme)
    return figure


def plot_reliability(report: EvalReport, *, theme: Theme = LIGHT) -> Figure:
    """Return how often answers given with some probability were right, with 95 % intervals, and how many there were."""
    bins = [b for b in report.calibration.bins if b.count]
    figure = new_figure(6.6, 5.6, theme)
    axes = new_axes(figure, 0.8, 1.75, 5.3, 3.05, theme)
    axes.plot([0, 1], [0, 1], color=theme.muted, linewidth=1, dashes=(4, 3))
    for b in bins:
        confidence, right = b.confidence or 0.0, b.accuracy or 0.0
        low, high = wilson_interval(round(right * b.count), b.count)
        axes.plot([confidence, confidence], [low, high], color=theme.right, linewidth=1.6, alpha=0.45)
        axes.plot(
            [confidence], [right], "o", color=theme.right, markersize=6, markeredgecolor=theme.paper, clip_on=False
        )
    axes.set(xlim=(0, 1.01), ylim=(0, 1.03))
    axes.text(0.03, 0.95, "right more often\nthan it says", color=theme.muted, fontsize=8.5, va="top")
    axes.text(0.98, 0.05, "right less often\nthan it says", color=theme.muted, fontsize=8.5, ha="right")
    axes.set_ylabel("share right", color=theme.muted, fontsize=9.5)
    axes.tick_params(labelbottom=False)
    below = new_axes(figure, 0.8, 0.6, 5.3, 0.95, theme)
    below.bar(
        [b.low for b in report.calibration.bins],
        [b.count for b in report.calibration.bins],
        width=[0.92 * (b.high - b.low) for b in report.calibration.bins],
        align="edge",
        color=theme.right,
        alpha=0.55,
    )
    below.set_xlim(0, 1.01)
    below.yaxis.set_major_locator(locator(3))
    below.set_ylabel("images", color=theme.muted, fontsize=9.5)
    below.set_xlabel("probability of the answer", color=theme.muted, fontsize=9.5)
    for each, axis in ((axes, axes.yaxis), (axes, axes.xaxis), (below, below.xaxis)):
        axis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        each.xaxis.set_major_locator(locator(6))
    says, ece = report.calibration.mean_confidence, report.calibration.ece
    lines = [f"{percent(says)} sure on average, {percent(report.accuracy)} right", f"calibration error {percent(ece)}"]
    write_headings(figure, lines, theme)
    return figure


def _finite(rows: Sequence[Row], event: str, key: str) -> list[tuple[float, float]]:
    """Return (epoch, value) of each row of `event` that has a finite `key`."""
    values = [(row.get("epoch"), row.get(key)) for row in rows if row.get("event") == event]
    return [(float(x), float(y)) for x, y in values if x is not None and y is not None and math.isfinite(y)]


def _xy(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _plain_number(value: float) -> str:
    return f"{value:.3g}" if value >= 0.001 else f"{value:.0e}"


def _draw_lines(
    axes: Axes,
    lines: Sequence[tuple[str, Sequence[tuple[float, float]], str]],
    text: Callable[[float], str],
    theme: Theme,
) -> None:
    """Draw (name, points, colour) with the name and last value at the right end of each line instead of a legend."""
    shown = [line for line in lines if line[1]]
    for _, points, colour in shown:
        marker = "o" if len(points) <= 20 else ""
        axes.plot(*_xy(points), color=colour, linewidth=1.9, marker=marker, markersize=3.5)
    (first, low), (last, high) = axes.dataLim.get_points()
    if low > 0 and high / low > 15:
        from matplotlib.ticker import LogLocator, NullLocator

        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if high / low < 300 else (1,)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlim(0 if last < 2 else first - 0.02 * last, 1.02 * last)
    axes.xaxis.set_major_locator(locator(7, integer=last >= 2))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("epoch", color=theme.muted, fontsize=9.5)
    to_share = axes.transData + axes.transAxes.inverted()
    ends = sorted(
        (float(to_share.transform(points[-1])[1]), name, points[-1][1], colour) for name, points, colour in shown
    )
    height = -1.0
    for share, name, value, colour in ends:
        height = max(share, height + 0.085)  # labels of lines that end together are kept apart
        axes.text(
            1.02, height, f"{name} {text(value)}", color=colour, fontsize=9, va="center", transform=axes.transAxes
        )


@dataclass(frozen=True, slots=True)
class _AxisNames:
    """Class names as they fit along a square of cells, and the room they take in inches."""

    down: list[str]
    across: list[str]
    upright: bool
    every: int
    font: float
    left: float
    below: float

    @classmethod
    def fit(cls, labels: Sequence[str], side: float) -> _AxisNames:
        from rich.cells import cell_len  # knows that some letters are twice as wide

        num_classes = len(labels)
        every = 1 if num_classes <= LABELS_UP_TO else math.ceil(num_classes / 25)
        font = min(9.5, max(6.5, 54 * side / num_classes)) if every == 1 else 7.5
        letter = 0.0088 * font  # inches, on average
        names = [drawn(label, 22) for label in labels]
        longest, fitting = max(map(cell_len, names[::every])), int(0.95 * side / num_classes / letter)
        left = 0.5 + letter * longest
        if longest <= fitting:
            return cls(names, names, False, every, font, left, 0.75)
        if num_classes > 6:
            return cls(names, names, True, every, font, left, 0.75 + letter * longest)
        folded = [textwrap.fill(name, max(fitting, 6), max_lines=3, placeholder="…") for name in names]
        num_lines = 1 + max(name.count("\n") for name in folded)
        return cls(names, folded, False, every, font, left, 0.6 + 0.019 * font * num_lines)


def _confusion_colours(counts_KK: NDArray[np.int64], theme: Theme) -> NDArray[np.float64]:
    """Return an RGB colour for each cell."""
    panel, right, wrong = (rgb(colour) for colour in (theme.panel, theme.right, theme.wrong))
    share_KK = counts_KK / np.maximum(counts_KK.sum(axis=1, keepdims=True), 1)
    faintest = 0.15 if len(counts_KK) <= COUNTS_UP_TO else 0.35
    depth_KK = np.where(counts_KK > 0, faintest + (1 - faintest) * np.sqrt(share_KK), 0.0)
    hue_KK3 = np.where(np.eye(len(counts_KK), dtype=bool)[..., None], right, wrong)
    np.fill_diagonal(depth_KK, np.where(np.diag(counts_KK) > 0, 0.12 + 0.88 * np.diag(share_KK), 0.0))
    return panel + depth_KK[..., None] * (hue_KK3 - panel)


def _write_counts(axes: Axes, counts_KK: NDArray[np.int64], cell: float, theme: Theme) -> None:
    num_classes = len(counts_KK)
    colours = _confusion_colours(counts_KK, theme)
    size = min(11.0, 72 * cell * 0.85 / (0.62 * max(2, len(f"{counts_KK.max()}"))))
    edges = np.arange(num_classes + 1) - 0.5
    axes.hlines(edges, -0.5, num_classes - 0.5, color=theme.paper, linewidth=1.6)
    axes.vlines(edges, -0.5, num_classes - 0.5, color=theme.paper, linewidth=1.6)
    sums = counts_KK.sum(axis=1)
    for row, column in zip(*np.nonzero(counts_KK), strict=True):
        count = counts_KK[row, column]
        text = f"{count}\n{percent(count / sums[row])}" if num_classes <= 5 else f"{count}"
        colour = "#ffffff" if luminance(colours[row, column]) < 0.24 else "#101418"  # at least 3.6 : 1
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour, linespacing=1.5)
