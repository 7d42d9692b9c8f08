"""`linne predict`: a bundle and images in, labels and probabilities out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from linne.cli import console, rows
from linne.cli.settings import figure_of_answers, how_to_run, output_format, pretrained, where_to_run
from linne.errors import LinneError

if TYPE_CHECKING:
    from linne.inference.predictor import Prediction


@click.command("predict")
@click.argument("bundle", metavar="BUNDLE|MODEL")
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, metavar="K", help="Labels an image.")
@click.option("--model", metavar="MODEL", help="In the place of the first argument, which then is an INPUT.")
@click.option(
    "--save-inputs",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write what the network sees of each image to a new folder.",
)
@pretrained
@figure_of_answers
@where_to_run
@how_to_run
@output_format("text", "json", "jsonl", "csv")
def command(bundle: str, inputs: tuple[str, ...], top: int, style: str, **options: Any) -> None:
    """Name what is on images, with probabilities.

    INPUT is an image file, a folder (searched with its sub-folders), a quoted pattern, an https
    address, or `-` for one image on stdin. An image that cannot be read becomes a row that says so, and exit code 1.
    MODEL is a network with pretrained weights, which are downloaded where they are not here yet.

    \b
    linne predict runs/digits-small-1/bundle scan.png
    linne predict runs/photos-small-1/bundle 'holiday/*.jpg' --top 1
    linne predict runs/photos-small-1/bundle holiday/ --format csv > labels.csv
    linne predict timm/mobilenetv2_100 photo.jpg
    linne predict --model torchvision/mobilenet_v2 --weights mobilenet_v2-b0353104.pth photo.jpg
    linne predict runs/photos-small-1/bundle scan.png --plot answer.png
    """
    from linne.bundle_verbs import predict

    model = options.pop("model")
    named, images = (bundle, inputs) if model is None else (model, (bundle, *inputs))
    if not images:
        raise click.MissingParameter(ctx=click.get_current_context(), param=command.params[1])
    tally = Counter[str]()
    for line in rows.FORMATS[style](_counted(predict(named, images, top=top, **options), tally)):
        console.data(line)
    if tally["failed"]:
        raise LinneError(f"{tally['failed']} of {tally['images']} images could not be predicted")


def _counted(predictions: Iterable[Prediction], tally: Counter[str]) -> Iterator[Prediction]:
    """Return `predictions`, counting in `tally` as they pass."""
    for prediction in predictions:
        tally["images"] += 1
        tally["failed"] += prediction.error is not None
        yield prediction
