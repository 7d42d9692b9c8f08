"""`linne models`: what can be given to `linne train --model`, and which weights were published for it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from linne.cli import complete, console
from linne.cli.settings import output_format
from linne.errors import LinneError

if TYPE_CHECKING:
    from linne.models.listing import ModelListing, WeightsListing


@click.command("models")
@click.argument("pattern", required=False, shell_complete=complete.models)
@click.option("--weights", is_flag=True, help="List the published weights instead, one set a line.")
@output_format("text", "json")
def command(pattern: str | None, weights: bool, style: str) -> None:
    """List the networks that can be trained, with what they cost.

    PATTERN is part of a name, or a quoted pattern with `*`. Parameters are counted with three
    channels and 1000 classes; GMACs are billions of multiply-adds for one image of the size that
    the network was designed for. Nothing is fetched.

    \b
    linne models resnet
    linne models 'timm/vit_*'
    linne models timm/resnet18 --weights
    """
    from linne.model_verbs import list_models, list_weights

    networks = [] if weights else list_models(pattern)
    published = list_weights(pattern) if weights else []
    if style == "json":
        console.data_json([*map(asdict, networks), *map(asdict, published)])
        return
    if not networks and not published:
        what = "no published weights fit" if weights else "no model fits"
        raise LinneError(f"{what} `{pattern}`", hint="`linne models` lists them all")
    head = WEIGHTS if weights else NETWORK
    console.data(console.aligned([head, *map(_network, networks), *map(_weights, published)]))


NETWORK = ("network", "parameters", "GMACs", "input")
WEIGHTS = ("weights", "input", "classes", "size", "licence", "where")


def _network(row: ModelListing) -> tuple[str, ...]:
    if row.unavailable:
        return (row.name, "", "", row.unavailable)
    parameters = "-" if row.parameters is None else f"{row.parameters / 1e6:,.2f} M"
    macs = "-" if row.macs is None else f"{row.macs / 1e9:,.3f}"
    return (row.name, parameters, macs, f"{row.height}x{row.width}" if row.height else "any size")


def _weights(row: WeightsListing) -> tuple[str, ...]:
    return (
        row.name,
        f"{row.height}x{row.width}" if row.height else "-",
        str(row.num_classes or "-"),
        "-" if row.size_bytes is None else f"{row.size_bytes / 1e6:,.1f} MB",
        row.licence or "not stated",
        f"here: {row.found}" if row.found else row.where,
    )
