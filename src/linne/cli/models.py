"""`linne models`: what can be given to `linne train --model`."""

from __future__ import annotations

import click

from linne.cli import complete
from linne.cli.settings import output_format


@click.command("models")
@click.argument("pattern", required=False, shell_complete=complete.models)
@output_format("text", "json")
def command(pattern: str | None, style: str) -> None:
    """List the networks that can be trained.

    PATTERN is part of a name, or a pattern with `*`.

    \b
    linne models
    linne models resnet
    linne models 'timm/vit_*'
    """
    from linne.verbs import list_models

    listings = list_models(pattern)
