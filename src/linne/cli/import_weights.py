"""`linne import`: pretrained weights in, a bundle out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from linne.cli import complete, console
from linne.cli.settings import read_settings


@click.command("import")
@click.argument("weights", metavar="WEIGHTS")
@click.option("--model", metavar="NAME", shell_complete=complete.models, help="The network that the weights are of.")
@click.option(
    "--labels", type=click.Path(path_type=Path), metavar="FILE", help="Names of the classes: one a line, or JSON."
)
@click.option(
    "--preprocess",
    multiple=True,
    callback=read_settings,
    metavar="FIELD=VALUE",
    help="How images are prepared, as in `mean=0.5,0.5,0.5` or `height=224`, where nobody says it; repeatable.",
)
@click.option("--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The new bundle.")
@click.option("--unproved", is_flag=True, help="Take them also when their answers to photographs are strange.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    weights: str, output: Path, preprocess: tuple[tuple[str, str], ...], *, as_json: bool, **options: Any
) -> None:
    """Make a bundle of WEIGHTS, which evaluate, predict and the other verbs take.

    WEIGHTS is a file (.safetensors, .pth, .onnx), a folder of timm or Hugging Face, or with --model
    `default` or the name of weights that the network's provider offers, which may download them.
    Nothing in a file is run. The weights must fill the whole network, and answer to a few
    photographs as trained weights do.

    \b
    linne import mobilenet_v2-b0353104.pth --model torchvision/mobilenet_v2 --output mobilenet/
    linne import default --model timm/vit_tiny_patch16_224 --output vit/
    linne import my-hf-model/ --output mine/
    """
    from linne.model_verbs import import_weights
    from linne.recipe import parse_value

    fields = {name: parse_value(f"data.{name}", value) for name, value in preprocess}
    result = import_weights(weights, output, preprocess=fields, **options)
    if as_json:
        console.data_json(result.to_dict())
        return
    for line in result.lines():
        console.note(line)
    console.data(str(result.bundle.path))
