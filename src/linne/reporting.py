"""A run folder in; its plots, `evaluation.json`, `report.md` and one self-contained `report.html` out."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from linne import metrics, plotting, plotting_images
from linne.bundle import Bundle
from linne.bundle_format import replace_file
from linne.data.source import Split
from linne.errors import ImageError
from linne.evaluation import Outcomes
from linne.figure_style import DARK, LIGHT, png
from linne.report import EvalReport, Mistake, code_markdown, escape_markdown, percent
from linne.report_page import Page, Picture, Tile, render_page
from linne.run_facts import RunRecord, curves_note, duration, environment, facts, headline, read_run, recipe_rows, usage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UInt8 = NDArray[np.uint8]

PLOTS = ("curves", "confusion", "predictions", "worst", "reliability")
NUM_PREDICTIONS = 32
NUM_MISTAKES = 16
THUMBNAIL_PIXELS = 224
LOSSLESS_UP_TO = 64
"""Images up to this many pixels are kept without loss; a JPEG would be no smaller."""


def write_run_report(
    run_folder: Path,
    *,
    bundle: Bundle | None,
    report: EvalReport | None,
    outcomes: Outcomes | None,
    split: Split | None,
) -> Path:
    """Write everything a person wants to see about the run, and return the path of `report.html`.

    Works with what there is: without a report (no split was held out, training was interrupted) the page says so.
    What an earlier call wrote is replaced. `report`, `outcomes` and `split` belong together, as from `evaluate`.

    Raises:
        LinneError: `run_folder` has no readable recipe.json.
    """
    run = read_run(run_folder)
    plots = run_folder / "plots"
    plots.mkdir(exist_ok=True)
    for stale in (run_folder / "evaluation.json", *(plots / f"{name}.png" for name in PLOTS)):
        stale.unlink(missing_ok=True)
    predictions: list[_Example] = []
    mistakes: list[_Example] = []
    if report is not None:
        _write_json(run_folder / "evaluation.json", report.to_dict())
        if outcomes is not None and split is not None:
            channels = 3 if bundle is None else bundle.input.channels
            predictions, mistakes = _examples(report, outcomes, split, channels)
            _write_grids(plots, report, predictions, mistakes)
    page = Page(
        title=run_folder.resolve().name,
        subtitle=_subtitle(run),
        headline=headline(run, report),
        numbers=_numbers(run, report),
        facts=facts(run, bundle),
        curves_note=curves_note(run),
        pictures=dict(_pictures(plots, run, report)),
        predictions=[example.tile() for example in predictions],
        mistakes=[example.tile() for example in mistakes],
        report=report,
        recipe=recipe_rows(run),
        environment=environment(run, bundle),
        usage=usage(run, bundle),
    )
    (run_folder / "report.md").write_text(_markdown(page, plots), encoding="utf-8")
    path = run_folder / "report.html"
    replace_file(path, render_page(page).encode())  # last: a run that has one is done
    return path


@dataclass(frozen=True, eq=False, slots=True)
class _Example:
    """One image of the evaluation, read once for the figures and the page."""

    pixels: UInt8
    name: str
    label: str
    predicted: str
    probability: float

    def tile(self) -> Tile:
        """Return it for the page: small images as they are, larger ones as a thumbnail."""
        height, width, channels = self.pixels.shape
        image = Image.fromarray(self.pixels[..., 0] if channels == 1 else self.pixels)
        pixelated = max(height, width) <= plotting_images.BLOCKS_UP_TO
        image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        kind, content = "png" if max(height, width) <= LOSSLESS_UP_TO else "jpeg", io.BytesIO()
        image.save(content, kind, quality=85)
        return Tile(content.getvalue(), kind, pixelated, self.name, self.label, self.predicted, self.probability)


def _examples(
    report: EvalReport, outcomes: Outcomes, split: Split, channels: int
) -> tuple[list[_Example], list[_Example]]:
    """Return evenly chosen examples, and the surest mistakes."""
    predicted_N = metrics.predict(outcomes.logits_NK)
    sure_N = metrics.confidences(outcomes.logits_NK)
    even = evenly_chosen(len(predicted_N), NUM_PREDICTIONS)
    worst = metrics.worst_mistakes(predicted_N, outcomes.labels_N, sure_N, NUM_MISTAKES)

    def read(chosen: NDArray[np.int64]) -> Iterator[_Example]:
        for n in chosen.tolist():
            position = int(outcomes.positions_N[n])
            try:
                pixels = split.pixels(position, channels)
            except ImageError:  # it was there when it was evaluated
                continue
            label, answer = report.labels[outcomes.labels_N[n]], report.labels[predicted_N[n]]
            yield _Example(pixels, split.example_name(position), label, answer, float(sure_N[n]))

    return list(read(even)), list(read(worst))


def evenly_chosen(num: int, most: int) -> NDArray[np.int64]:
    """Return up to `most` of `num` positions, the first and the last among them."""
    return np.unique(np.linspace(0, num - 1, min(num, most)).round().astype(np.int64))


def _write_grids(
    plots: Path, report: EvalReport, predictions: Sequence[_Example], mistakes: Sequence[_Example]
) -> None:
    if predictions:
        num_right = sum(each.label == each.predicted for each in predictions)
        num_wrong = len(predictions) - num_right
        figure = plotting_images.plot_predictions(
            [each.pixels for each in predictions],
            [each.label for each in predictions],
            [each.predicted for each in predictions],
            [each.probability for each in predictions],
            title=f"{percent(report.accuracy)} right of {report.num_examples:,} {report.split} images",
            subtitle=f"{len(predictions)} of them, evenly chosen: {num_right} right, {num_wrong} wrong",
        )
        (plots / "predictions.png").write_bytes(png(figure))
    if mistakes:
        described = [
            Mistake(name=each.name, label=each.label, predicted=each.predicted, probability=each.probability)
            for each in mistakes
        ]
        (plots / "worst.png").write_bytes(
            png(plotting_images.plot_worst([each.pixels for each in mistakes], described))
        )


def _pictures(plots: Path, run: RunRecord, report: EvalReport | None) -> Iterator[tuple[str, Picture]]:
    """Yield the figures of the page by name, writing the light one of each to `plots`."""
    alts = {"curves": ("loss and accuracy over epochs", "wide")}
    if report is not None:
        alts |= {"confusion": ("confusion matrix", "square"), "reliability": ("reliability diagram", "square")}
    for name, (alt, shape) in alts.items():
        figures: list[Figure | None] = []
        for theme in (LIGHT, DARK):
            if report is None or name == "curves":
                figures.append(plotting.plot_curves(run.rows, theme=theme))
            else:
                draw = plotting.plot_confusion if name == "confusion" else plotting.plot_reliability
                figures.append(draw(report, theme=theme))
        light, dark = figures
        if light is not None and dark is not None:
            picture = Picture(png(light), png(dark), alt, shape)
            (plots / f"{name}.png").write_bytes(picture.light)
            yield name, picture


def _write_json(path: Path, values: dict[str, Any]) -> None:
    """Write `values` with one line a key: indented, a confusion matrix of 1,000 classes would take a million lines."""
    texts = {key: json.dumps(value, ensure_ascii=False, allow_nan=False) for key, value in values.items()}
    lines = ",\n".join(f"  {json.dumps(key)}: {text}" for key, text in texts.items())
    path.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


def _subtitle(run: RunRecord) -> str:
    model, source = run.recipe.get("model", {}).get("name", "?"), run.source.get("name", "?")
    return f"{model} trained on {source} by linne {run.linne}"


def _numbers(run: RunRecord, report: EvalReport | None) -> list[tuple[str, str]]:
    numbers = [] if report is None else report.summary()
    if run.seconds is not None:
        numbers.append(("training time", duration(run.seconds)))
    if run.images_per_second:
        numbers.append(("images/s", f"{run.images_per_second:,.0f}"))
    return numbers


def _markdown(page: Page, plots: Path) -> str:
    """Return the page's content as Markdown beside its plots."""
    head = page.headline
    result = head.what if head.fraction is None else f"**{percent(head.fraction)}** {head.what}."
    blocks = [f"# {escape_markdown(page.title)}", escape_markdown(page.subtitle)]
    blocks += [f"> {escape_markdown(head.warning)}"] if head.warning else []
    blocks.append(" ".join([result, *map(escape_markdown, head.sentences)]))
    blocks.append("\n".join(f"- {escape_markdown(name)}: {escape_markdown(value)}" for name, value in page.facts))
    blocks += [_image(plots, "curves", "Loss and accuracy over epochs"), page.curves_note]
    if page.report is not None:
        blocks.append(page.report.to_markdown().rstrip())
        for name, alt in (
            ("confusion", "Confusion matrix"),
            ("predictions", "Test images with their answers"),
            ("worst", "The surest mistakes"),
            ("reliability", "Reliability diagram"),
        ):
            blocks.append(_image(plots, name, alt))
    lines = [f"| `{field}` | {code_markdown(value)} | {escape_markdown(why)} |" for field, value, why in page.recipe]
    blocks.append("\n".join(["## The recipe, and why", "", "| field | value | why |", "|---|---|---|", *lines]))
    lines = [f"- {escape_markdown(name)}: {code_markdown(value)}" for name, value in page.environment]
    blocks.append("\n".join(["## Environment", "", *lines]))
    blocks.append("## Use it")
    blocks += [f"{escape_markdown(what)}:\n\n```\n{code}\n```" for what, code in page.usage]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _image(plots: Path, name: str, alt: str) -> str:
    return f"![{alt}](plots/{name}.png)" if (plots / f"{name}.png").is_file() else ""
