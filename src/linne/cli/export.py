"""`linne export`: a bundle in, the same network for another runtime out, verified."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from linne.cli import complete, console
from linne.cli.settings import read_backend_options


@click.command("export")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--to",
    required=True,
    metavar="KIND",
    help="`onnx`, `openvino`, `tensorrt`, `migraphx`, `tflite`, `torch-export` or `torchscript`.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16", "int8"]),
    default="fp32",
    show_default=True,
    help="Of the numbers.",
)
@click.option(
    "--bake-preprocessing", is_flag=True, help="Of onnx and tflite: take pixels, uint8 N x H x W x C, and scale them."
)
@click.option(
    "--exporter",
    type=click.Choice(["auto", "dynamo", "script"]),
    default="auto",
    show_default=True,
    help="Of onnx: which of torch's writers; `auto` keeps the first that verifies.",
)
@click.option(
    "--dynamic-batch", is_flag=True, help="Has no effect: an export takes any number of images where its runtime does."
)
@click.option("--opset", type=click.IntRange(min=1), metavar="N", help="Of onnx: its operator set; else 18.")
@click.option(
    "--calibrate",
    metavar="SOURCE",
    shell_complete=complete.sources,
    help="Of int8: whose images ranges and accuracy are measured on; else what it was trained on.",
)
@click.option(
    "--calibration-images", type=click.IntRange(min=1), metavar="N", help="Of int8: to measure ranges on; else 500."
)
@click.option(
    "--max-drop", type=click.FloatRange(0, 100), metavar="POINTS", help="Of int8: accuracy that may be lost; else 0.5."
)
@click.option("--keep-float", multiple=True, metavar="NODE", help="Of int8: a layer that stays in float; repeatable.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="Of migraphx and tensorrt: for what.",
)
@click.option(
    *("--backend-option", "backend_options"),
    multiple=True,
    callback=read_backend_options,
    metavar="NAME=VALUE",
    help="Of migraphx and tensorrt: what its backend can be told, such as batch_size=1; repeatable.",
)
@click.option("--replace", is_flag=True, help="Put it in the place of an export of the same name.")
@click.option("--trust-code", is_flag=True, help="Run the Python that a bundle of your own network names.")
@click.option("--quiet", is_flag=True, help="Say nothing on stderr.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(bundle: Path, *, as_json: bool, dynamic_batch: bool, max_drop: float | None, **options: Any) -> None:
    """Write BUNDLE for another runtime, into its folder `exports/`.

    What was written is opened again and compared with the bundle on 64 images, in batches of 1, 3
    and 64. Where logits or labels differ, nothing is kept, and the exit code is 3.

    In int8 the ranges of numbers are measured on training images, and the accuracy that is lost on
    validation images. Where it is too much, the layers that cost most stay in float.

    \b
    linne export runs/photos-small-1/bundle --to onnx
    linne export runs/photos-small-1/bundle --to onnx --precision fp16
    linne export runs/photos-small-1/bundle --to onnx --precision int8
    linne export runs/photos-small-1/bundle --to onnx --bake-preprocessing
    linne export runs/photos-small-1/bundle --to torch-export
    linne export runs/photos-small-1/bundle --to migraphx --backend-option batch_size=1
    """
    from linne.deploy_verbs import export

    if dynamic_batch and not options["quiet"]:
        console.note(
            "`--dynamic-batch` has no effect: an export takes any number of images at a time where its runtime does"
        )
    result = export(bundle, max_drop=None if max_drop is None else max_drop / 100, **options)
    if as_json:
        console.data_json(result.to_dict())
        return
    if not options["quiet"]:
        console.note(result.line())
    console.data(str(result.export.main_file))
