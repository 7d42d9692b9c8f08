"""`linne evaluate`: a bundle and a source in, a report out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from linne.cli import complete, console
from linne.cli.settings import figure_of_answers, how_to_run, output_format, pretrained, where_to_run


@click.command("evaluate")
@click.argument("bundle", metavar="BUNDLE|MODEL")
@click.argument("source", shell_complete=complete.sources)
@click.option("--split", default="test", show_default=True, metavar="NAME", help="`train`, `val` or `test`.")
@click.option("--splits-file", type=click.Path(path_type=Path), metavar="FILE", help="A run's splits.json.")
@pretrained
@figure_of_answers
@where_to_run
@how_to_run
@output_format("text", "markdown", "json")
def command(bundle: str, source: str, split: str, splits_file: Path | None, style: str, **options: Any) -> None:
    """Measure BUNDLE on a split of SOURCE.

    Accuracy with its 95 % interval, top-k, loss, calibration, what is confused with what, and a
    line for each class, whose recall is the share of its images that are right. Classes are
    matched by name. MODEL is a network with pretrained weights, which are downloaded where they
    are not here yet.

    \b
    linne evaluate runs/digits-small-1/bundle digits
    linne evaluate runs/photos-small-1/bundle photos/ --split val --json
    linne evaluate torchvision/mobilenet_v2 photos/ --weights mobilenet_v2-b0353104.pth
    linne evaluate runs/photos-small-1/bundle photos/ --plot answers.png
    """
    from linne.bundle_verbs import evaluate

    report = evaluate(bundle, source, split=split, splits_file=splits_file, **options)
    if style == "json":
        console.data_json(report.to_dict())
    else:
        console.data(report.to_markdown() if style == "markdown" else report.to_text())
