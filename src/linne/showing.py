"""Images as PNG files for people: examples of a source with their labels, or a bundle's answers to images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from linne import metrics
from linne.bundle_format import replace_file
from linne.data.images.decode import decode, read_file
from linne.data.names import counted, printable
from linne.data.source import Source
from linne.errors import ImageError, LinneError, SourceError
from linne.evaluation import Outcomes, split_of
from linne.figure_style import MADE_BY, png
from linne.inference.inputs import NamedImage
from linne.inference.predictor import Prediction, Predictor
from linne.inference.seen import SeenImages
from linne.plotting_images import Answer, plot_answers, plot_examples
from linne.report import EvalReport, percent, shorten
from linne.reporting import evenly_chosen

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_IMAGES = 200
"""In one figure; more would take minutes to draw and nobody would look at them."""
ALL_BARS_UP_TO = 10
"""Classes that all get a bar, in their order; of more, the most probable ones do."""
NUM_BARS = 5


def require_count(count: int) -> None:
    """Raise LinneError unless a figure can hold `count` images."""
    if not 1 <= count <= MOST_IMAGES:
        raise LinneError(f"{count} images cannot be shown in a figure, expected 1 to {MOST_IMAGES}")


def require_place(path: Path) -> None:
    """Raise LinneError unless a figure can be written to `path`: nothing is there, or a figure of linne's."""
    shown = printable(path)
    if path.suffix.lower() != ".png":
        raise LinneError(f"`{shown}` is to be a figure, expected a name that ends in `.png`")
    if not path.parent.is_dir():
        raise LinneError(f"no folder `{printable(path.parent)}` to write `{shown}` to")
    if not path.exists():
        return
    try:
        with Image.open(path) as image:
            mine = image.info.get("Software") == MADE_BY
    except (OSError, ValueError):
        mine = False
    if not mine:
        raise LinneError(f"`{shown}` is there and not a figure of linne's, so it stays", hint="name another file")


def write_figure(path: Path, figure: Figure) -> None:
    """Write `figure` to `path`, where `require_place` found a place for it.

    Raises:
        LinneError: the disk refuses.
    """
    try:
        replace_file(path, png(figure))
    except OSError as error:
        raise LinneError(f"`{printable(path)}` cannot be written: {(error.strerror or str(error)).lower()}") from error


def draw_examples(source: Source, split: str, count: int, seed: int) -> tuple[Figure, list[str]]:
    """Return `count` images of a split with their labels, drawn by `seed`, and a line for each that cannot be read.

    Raises:
        SourceError: no such split, or none of its images that were drawn can be read.
    """
    examples = split_of(source, split)
    drawn_N = np.random.default_rng(seed).permutation(len(examples))[:count]
    images, labels, unread = [], [], []
    for position in drawn_N.tolist():
        try:
            images.append(examples.pixels(position, source.channels))
        except ImageError as error:
            unread.append(error.message)
            continue
        labels.append(source.labels[examples.labels_N[position]])
    if not images:
        raise SourceError(f"none of the {len(unread)} images that were drawn can be read; the first: {unread[0]}")
    title = f"{len(images)} of {len(examples):,} {split} images of {shorten(source.name, 24)}"
    subtitle = f"drawn with seed {seed}; {counted(source.num_classes, 'class', 'classes')}"
    return plot_examples(images, labels, title=title, subtitle=subtitle), unread


def draw_evaluation(report: EvalReport, outcomes: Outcomes, source: Source, count: int) -> Figure:
    """Return `count` images of an evaluation, evenly chosen, with the probabilities that they got."""
    split = source.splits[report.split]
    chosen = evenly_chosen(len(outcomes.labels_N), count)
    probabilities_NK = metrics.softmax(outcomes.logits_NK[chosen])
    answers = []
    for n, probabilities_K in zip(chosen.tolist(), probabilities_NK, strict=True):
        position = int(outcomes.positions_N[n])
        found = dict(zip(report.labels, probabilities_K.tolist(), strict=True))
        best = max(found, key=lambda label: found[label])
        truth = report.labels[outcomes.labels_N[n]]
        answers.append(
            Answer(
                pixels=split.pixels(position, source.channels),
                predicted=best,
                probability=found[best],
                truth=truth,
                caption=split.example_name(position),
                bars=_bars(report.labels, found, truth),
            )
        )
    num_right = sum(answer.predicted == answer.truth for answer in answers)
    title = f"{percent(report.accuracy)} right of {report.num_examples:,} {report.split} images"
    subtitle = f"{len(answers)} of them, evenly chosen: {num_right} right, {len(answers) - num_right} wrong"
    return plot_answers(answers, title=title, subtitle=subtitle)


def predict_and_draw(
    predictor: Predictor,
    images: Iterable[NamedImage],
    path: Path,
    *,
    top: int,
    count: int,
    seen: SeenImages | None = None,
) -> Iterator[Prediction]:
    """Yield what `predictor.predict_files` does, and at the end write a figure of the first `count` to `path`.

    Raises:
        LinneError: no image could be read.
    """
    kept: list[NamedImage] = []
    answered: list[Prediction] = []

    def passing() -> Iterator[NamedImage]:
        for image in images:
            if len(kept) < count:
                kept.append(image)
            yield image

    num_images = 0
    for prediction in predictor.predict_files(passing(), top=max(top, ALL_BARS_UP_TO), seen=seen):
        num_images += 1
        if len(answered) < count:
            answered.append(prediction)
        yield prediction.first(top)
    answers = [
        _answer(predictor.labels, image, prediction)
        for image, prediction in zip(kept, answered, strict=True)
        if prediction.error is None
    ]
    if not answers:
        raise LinneError(f"no image could be predicted, so `{printable(path)}` is not written")
    title = counted(num_images, "image")
    if num_images > len(answers):
        title = f"{len(answers)} of {title}"
    subtitle = f"answers of {shorten(str(predictor.bundle.path), 50)}"
    write_figure(path, plot_answers(answers, title=title, subtitle=subtitle))


def _answer(labels: Sequence[str], image: NamedImage, prediction: Prediction) -> Answer:
    found = dict(zip(prediction.labels, prediction.probabilities, strict=True))
    data = image[1] if isinstance(image, tuple) else read_file(image)
    return Answer(
        pixels=decode(data, 3, name=prediction.file),
        predicted=prediction.labels[0],
        probability=prediction.probabilities[0],
        truth=None,
        caption="stdin" if prediction.file == "-" else Path(prediction.file).name,
        bars=_bars(labels, found, None),
    )


def _bars(labels: Sequence[str], found: Mapping[str, float], truth: str | None) -> tuple[tuple[str, float], ...]:
    """Return which labels get a bar: few classes all, in their order; of many the most probable, and the true one."""
    if len(labels) <= ALL_BARS_UP_TO:
        return tuple((label, found[label]) for label in labels)
    falling = sorted(found, key=lambda label: -found[label])
    chosen = falling[:NUM_BARS]
    if truth is not None and truth not in chosen:
        chosen[-1] = truth
    return tuple((label, found[label]) for label in chosen)
