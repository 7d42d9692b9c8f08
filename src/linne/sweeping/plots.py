"""A sweep as figures: how the best came down the trials, and where in each field the good ones lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from linne.figure_style import LIGHT, Theme, drawn, locator, new_axes, new_figure, write_title
from linne.sweeping.results import SweepReport, Trial
from linne.sweeping.space import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUM_COLUMNS = 3


def plot_history(report: SweepReport, *, theme: Theme = LIGHT) -> Figure | None:
    """Return each trial's objective by its number, with the best so far; None before one has finished."""
    points = [(trial.number, _value(report, trial)) for trial in report.trials if trial.state == "finished"]
    ended = [(t.number, t.latest) for t in report.trials if t.state == "pruned" and t.latest is not None]
    best = report.best
    if not points or best is None:
        return None
    figure = new_figure(9.6, 3.4, theme)
    axes = new_axes(figure, 0.75, 0.6, 8.2, 2.25, theme)
    better = min if report.objective == "val_loss" else max
    so_far = [(number, better(v for n, v in points if n <= number)) for number, _ in points]
    low, high = _limit(axes, report, [value for _, value in points])
    axes.step(*_xy(so_far), where="post", color=theme.right, linewidth=1.6, label="best so far")
    axes.plot(*_xy(points, low, high), "o", color=theme.right, markersize=6, alpha=0.75, label="finished")
    if ended:
        axes.plot(*_xy(ended, low, high), "x", color=theme.muted, markersize=6, label="ended early")
    axes.xaxis.set_major_locator(locator(10, integer=True))
    axes.set_xlabel("trial", color=theme.muted, fontsize=9)
    above = (1.0, 1.02)
    axes.legend(
        *axes.get_legend_handles_labels(),
        frameon=False,
        labelcolor=theme.muted,
        fontsize=9,
        ncols=3,
        loc="lower right",
        bbox_to_anchor=above,
        borderaxespad=0,
    )
    first = report.ranked[0]
    write_title(axes, f"Trial {first.number} reached most: {_text(report, _value(report, first))}", theme)
    return figure


def plot_slices(report: SweepReport, *, theme: Theme = LIGHT) -> Figure | None:
    """Return a panel a field: its value in each finished trial, and what that trial reached; None before there is one.

    The best trial is filled; the recipe as it was is a ring.
    """
    trials = [trial for trial in report.trials if trial.state == "finished"]
    if not trials:
        return None
    rows = math.ceil(len(report.space) / NUM_COLUMNS)
    figure = new_figure(9.6, 0.3 + 2.75 * rows, theme)
    for k, path in enumerate(report.space):
        left = 0.75 + 3.0 * (k % NUM_COLUMNS)
        bottom = 0.55 + 2.75 * (rows - 1 - k // NUM_COLUMNS)
        _slice(new_axes(figure, left, bottom, 2.35, 1.85, theme), report, trials, path, theme)
    return figure


def _slice(axes: Axes, report: SweepReport, trials: Sequence[Trial], path: str, theme: Theme) -> None:
    values = [trial.settings[path] for trial in trials]
    is_range = ".." in report.space[path]
    names = sorted({shown(value) for value in values}, key=_order)
    places: list[float] = values if is_range else [_spread(names.index(shown(v)), n) for n, v in enumerate(values)]
    low, high = _limit(axes, report, [_value(report, trial) for trial in trials])
    reached = [min(max(_value(report, trial), low), high) for trial in trials]
    axes.plot(places, reached, "o", color=theme.right, markersize=5.5, alpha=0.5, markeredgewidth=0)
    for place, value, trial in zip(places, reached, trials, strict=True):
        if trial is report.best:
            axes.plot([place], [value], "o", color=theme.right, markersize=9, markeredgecolor=theme.paper, zorder=5)
        elif trial.number == report.automatic:
            axes.plot([place], [value], "o", color=theme.wrong, markersize=9, markerfacecolor="none", zorder=5)
    if is_range and report.space[path].endswith(":log"):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    elif is_range:
        axes.xaxis.set_major_locator(locator(4, integer=all(isinstance(v, int) for v in values)))
    else:
        axes.set_xticks(range(len(names)), [drawn(name, 14) for name in names])
        axes.set_xlim(-0.5, len(names) - 0.5)
    axes.yaxis.set_major_locator(locator(4))
    axes.minorticks_off()
    write_title(axes, drawn(path, 32), theme)


def _limit(axes: Axes, report: SweepReport, values: Sequence[float]) -> tuple[float, float]:
    """Show where the good trials are, and return from where to where.

    What fell far behind is drawn on the edge, rather than press the rest together.
    """
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    middle = ordered[len(ordered) // 2]
    if report.objective == "val_loss":
        high = min(high, middle + 3 * max(middle - low, 1e-3))
    else:
        low = max(low, middle - 3 * max(high - middle, 1e-3))
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
    margin = 0.08 * max(high - low, 1e-3)
    axes.set_ylim(low - margin, high + margin)
    return low, high


def _spread(place: int, number: int) -> float:
    """Return a choice's place with a little to the side, so that equal points are seen beside each other."""
    return place + 0.06 * (number % 5 - 2)


def _order(name: str) -> tuple[bool, float, str]:
    try:
        return True, float(name), name
    except ValueError:
        return name not in ("none", "false"), -math.inf, name


def _value(report: SweepReport, trial: Trial) -> float:
    value = trial.val_loss if report.objective == "val_loss" else trial.val_accuracy
    return math.nan if value is None else value


def _text(report: SweepReport, value: float) -> str:
    return f"{value:.4f}" if report.objective == "val_loss" else f"{100 * value:.2f} %"


def _xy(
    points: Sequence[tuple[int, Any]], low: float = -math.inf, high: float = math.inf
) -> tuple[list[int], list[float]]:
    return [x for x, _ in points], [min(max(y, low), high) for _, y in points]
