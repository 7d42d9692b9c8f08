"""`linne models`: what can be given to `linne train --model`."""

from __future__ import annotations

from dataclasses import asdict

import click

from linne.cli import complete, console
from linne.cli.settings import output_format
from linne.errors import LinneError


@click.command("models")
@click.argument("pattern", required=False, shell_complete=complete.models)
@output_format("text", "json")
def command(pattern: str | None, style: str) -> None:
    """List the networks that can be trained, with the size of image they were designed for.

    PATTERN is part of a name, or a quoted pattern with `*`.

    \b
    linne models resnet
    linne models 'timm/vit_*'
    """
    from linne.model_verbs import list_models

    listings = list_models(pattern)
    if style == "json":
        console.data_json([asdict(listing) for listing in listings])
        return
    if not listings:
        raise LinneError(f"no model fits `{pattern}`", hint="`linne models` lists them all")
    rows = [(m.name, m.unavailable or (f"{m.height}x{m.width}" if m.height else "any size")) for m in listings]
    console.data(console.aligned(rows))
