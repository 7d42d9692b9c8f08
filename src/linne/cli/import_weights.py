"""`linne import`: pretrained weights in, a bundle out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from linne.cli import complete, console
from linne.cli.settings import read_preparation, trust_code


@click.command("import")
@click.argument("weights", metavar="WEIGHTS")
@click.option("--model", metavar="NAME", shell_complete=complete.models, help="The network that the weights are of.")
@click.option(
    "--labels", metavar="FILE|imagenet", help="Names of the classes: one a line, or JSON; or ImageNet's 1,000."
)
@click.option(
    "--preprocess",
    multiple=True,
    callback=read_preparation,
    metavar="WORD|FIELD=VALUE",
    help="Scaling of pixels (`imagenet`, `half`, `unit`, `raw`, `caffe`), or a field as in `height=224`; repeatable.",
)
@click.option("--output-name", metavar="NAME", help="Which output of a graph or model that has several.")
@click.option("--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The new bundle.")
@click.option("--unproved", is_flag=True, help="Take them also when their answers to photographs are strange.")
@trust_code
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    weights: str, output: Path, preprocess: tuple[tuple[str, str], ...], *, as_json: bool, **options: Any
) -> None:
    """Make a bundle of WEIGHTS, which evaluate, predict and the other verbs take.

    WEIGHTS is an ONNX file, a .keras file or a SavedModel of TensorFlow, whose network is taken
    whole; a file of weights (.safetensors, .pth), a folder of timm or Hugging Face, or with --model
    `default` or the name of weights that the network's provider offers, which may download them. No
    code in a file is run, but with --trust-code that of a network of your own. Weights must fill the
    whole network, and answer to a few photographs as trained weights do.

    \b
    linne import mobilenet_v2-b0353104.pth --model torchvision/mobilenet_v2 --output mobilenet/
    linne import default --model timm/vit_tiny_patch16_224 --output vit/
    linne import my-hf-model/ --output mine/
    linne import classifier.onnx --preprocess imagenet --labels names.txt --output classifier/
    linne import resnet50.onnx --preprocess imagenet --labels imagenet --output resnet50/
    linne import model.keras --labels names.txt --output model/
    """
    from linne.model_verbs import import_weights
    from linne.preprocess import InputSpec
    from linne.recipe import parse_value

    known = {field.name for field in dataclasses.fields(InputSpec)}
    fields = {name: parse_value(f"data.{name}", value) if name in known else value for name, value in preprocess}
    result = import_weights(weights, output, preprocess=fields, **options)
    if as_json:
        console.data_json(result.to_dict())
        return
    for line in result.lines():
        console.note(line)
    console.data(str(result.bundle.path))
