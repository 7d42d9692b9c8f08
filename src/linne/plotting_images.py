"""Images with their labels and answers as figures: examples of a set, a grid of answers, answers with their bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from linne.figure_style import LIGHT, Theme, drawn, new_figure, write_headings
from linne.report import Mistake, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UInt8 = NDArray[np.uint8]

BLOCKS_UP_TO = 40
"""Images up to this many pixels are drawn with each pixel as a crisp block; larger ones are smoothed."""
TILE_PIXELS = 200
"""Larger photographs are shrunk to this before they are drawn."""
LEAST_WIDTH = 5.2
"""Inches; headings need them."""
NAME_LETTERS = 15
"""Of a class beside its bar."""
LEAST_TOLD = 0.01
"""Probabilities below are not written, but those of the truth and of the answer."""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Answer:
    """One image and what was said about it."""

    pixels: UInt8
    predicted: str
    probability: float
    truth: str | None
    """Its label; None when nobody knows it."""
    caption: str
    """What to call it where there is no truth to tell."""
    bars: tuple[tuple[str, float], ...]
    """Labels with their probabilities, in the order in which they are drawn."""


def plot_examples(
    images: Sequence[UInt8], labels: Sequence[str], *, title: str, subtitle: str = "", theme: Theme = LIGHT
) -> Figure:
    """Return a grid, as near to a square as it gets, of images with their labels."""
    tile, gap, caption, head = 1.2, 0.16, 0.36, 0.85 if subtitle else 0.6
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    width = max(LEAST_WIDTH, 0.4 - gap + columns * (tile + gap))
    figure, axes = _sheet(width, head + rows * (tile + caption), theme)
    for k, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        x, y = 0.2 + (k % columns) * (tile + gap), head + (k // columns) * (tile + caption)
        _draw_image(axes, pixels, x, y, tile)
        axes.text(x, y + tile + 0.06, drawn(label, 17), color=theme.ink, fontsize=8.2, va="top")
    write_headings(figure, [title, subtitle] if subtitle else [title], theme)
    return figure


def plot_predictions(
    images: Sequence[UInt8],
    labels: Sequence[str],
    predicted: Sequence[str],
    probability: Sequence[float],
    *,
    title: str,
    subtitle: str = "",
    theme: Theme = LIGHT,
) -> Figure:
    """Return a grid of images with what each was taken for: blue when right, vermilion with its true name when not."""
    columns, tile, gap, caption = 8, 1.04, 0.12, 0.5
    rows = math.ceil(len(images) / columns)
    head = 0.85 if subtitle else 0.6
    figure, axes = _sheet(9.6, head + rows * (tile + caption), theme)
    for k, pixels in enumerate(images):
        x, y = 0.2 + (k % columns) * (tile + gap), head + (k // columns) * (tile + caption)
        right = predicted[k] == labels[k]
        _draw_image(axes, pixels, x, y, tile)
        colour = theme.right if right else theme.wrong
        axes.plot([x, x + tile], [y + tile + 0.04] * 2, color=colour, linewidth=2.2, solid_capstyle="butt")
        answer, truth = drawn(predicted[k], 10), f"is {drawn(labels[k], 13)}"
        axes.text(x, y + tile + 0.09, answer, color=colour, fontsize=8.2, va="top", fontweight="bold")
        share = percent(probability[k], 0)
        axes.text(x + tile, y + tile + 0.1, share, color=theme.muted, fontsize=7.6, va="top", ha="right")
        if not right:
            axes.text(x, y + tile + 0.26, truth, color=theme.ink, fontsize=8.2, va="top")
    write_headings(figure, [title, subtitle] if subtitle else [title], theme)
    return figure


def plot_worst(images: Sequence[UInt8], mistakes: Sequence[Mistake], *, theme: Theme = LIGHT) -> Figure:
    """Return the images of `mistakes`, the surest first."""
    return plot_predictions(
        images,
        [mistake.label for mistake in mistakes],
        [mistake.predicted for mistake in mistakes],
        [mistake.probability for mistake in mistakes],
        title="The surest mistakes" if len(mistakes) > 1 else "The one mistake",
        subtitle="wrong answers with the highest probability: hard images, or wrong labels",
        theme=theme,
    )


def plot_answers(answers: Sequence[Answer], *, title: str, subtitle: str = "", theme: Theme = LIGHT) -> Figure:
    """Return images with their answers, and a bar for the probability of each label beside them.

    The true label's bar is blue, that of a wrong answer vermilion, all others are grey; where the truth is not known
    the answer's bar is dark.
    """
    tile, cell, head = 1.3, 3.6, 0.95 if subtitle else 0.7
    columns = min(3, len(answers))
    rows, height = math.ceil(len(answers) / columns), tile + 0.62
    letters = max(len(drawn(label, NAME_LETTERS)) for answer in answers for label, _ in answer.bars)
    figure, axes = _sheet(max(LEAST_WIDTH, 0.2 + columns * cell), head + rows * height, theme)
    for k, answer in enumerate(answers):
        x, y = 0.2 + (k % columns) * cell, head + (k // columns) * height
        _draw_image(axes, answer.pixels, x, y, tile)
        right = answer.predicted == answer.truth
        colour = theme.ink if answer.truth is None else theme.right if right else theme.wrong
        said = f"{drawn(answer.predicted, 15)} {percent(answer.probability, 0)}"
        axes.text(x, y + tile + 0.07, said, color=colour, fontsize=8.6, va="top", fontweight="bold")
        below = answer.caption if answer.truth is None else "" if right else f"is {answer.truth}"
        axes.text(x, y + tile + 0.26, drawn(below, 22), color=theme.muted, fontsize=8.2, va="top")
        _draw_bars(axes, answer, letters, (x + tile + 0.1, y), (cell - tile - 0.3, tile), theme)
    write_headings(figure, [title, subtitle] if subtitle else [title], theme)
    return figure


def _draw_bars(
    axes: Axes, answer: Answer, letters: int, place: tuple[float, float], size: tuple[float, float], theme: Theme
) -> None:
    """Draw the bars at a `place` in a `size` of inches: names of up to `letters`, a line, bars, their shares."""
    (x, y), (width, height) = place, size
    step = min(height / len(answer.bars), 0.24)
    font = min(8.0, 56 * step)
    names = 0.0083 * font * letters + 0.05
    start, longest = x + names, width - names - 0.4
    axes.plot([start, start], [y, y + step * len(answer.bars)], color=theme.grid, linewidth=0.9)
    for k, (label, probability) in enumerate(answer.bars):
        middle, colour = y + (k + 0.5) * step, theme.muted
        if label == answer.truth:
            colour = theme.right
        elif label == answer.predicted:
            colour = theme.ink if answer.truth is None else theme.wrong
        axes.barh(middle, longest * probability, height=0.66 * step, left=start, color=colour)
        style: dict[str, Any] = {"fontsize": font, "va": "center", "color": colour}
        axes.text(start - 0.05, middle, drawn(label, NAME_LETTERS), ha="right", **style)
        if colour != theme.muted or probability >= LEAST_TOLD:
            axes.text(start + longest * probability + 0.05, middle, percent(probability, 0), **style)


def _sheet(width: float, height: float, theme: Theme) -> tuple[Figure, Axes]:
    """Return a figure and axes over all of it, in inches from its upper left corner."""
    figure = new_figure(width, height, theme)
    axes = figure.add_axes((0, 0, 1, 1), facecolor=theme.paper)
    axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    axes.set_axis_off()
    return figure, axes


def _draw_image(axes: Axes, pixels: UInt8, x: float, y: float, tile: float) -> None:
    """Draw `pixels` centred in a square."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((TILE_PIXELS, TILE_PIXELS))
    width, height = (tile * extent / max(image.size) for extent in image.size)
    left, top = x + (tile - width) / 2, y + (tile - height) / 2
    shown = np.asarray(image.convert("RGB"))
    blocks = "nearest" if max(image.size) <= BLOCKS_UP_TO else "bilinear"
    axes.imshow(shown, extent=(left, left + width, top + height, top), interpolation=blocks, aspect="auto")
