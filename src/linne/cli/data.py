"""`linne data list`: what can be given as SOURCE."""

from __future__ import annotations

import click

from linne.cli import VerbGroup
from linne.cli.settings import output_format


@click.group("data", cls=VerbGroup)
def command() -> None:
    """List the sources and where their files are looked for."""


@command.command("list")
@output_format("text", "json")
def list_command(style: str) -> None:
    """List the sources, and whether their files are there."""
    from linne.verbs import list_sources

    listings = list_sources()
