"""`linne data list`: what can be given as SOURCE."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from linne.cli import console
from linne.cli.settings import output_format

if TYPE_CHECKING:
    from linne.data import SourceListing


@click.command("list")
@output_format("text", "json")
def command(style: str) -> None:
    """List the sources: where their files were found, and what they are.

    Files of published sets are looked for in $LINNE_DATA and in your data folder; `--json` names
    every place. `linne data get NAME` fetches one that is not here.
    """
    from linne.data_verbs import list_sources

    listings = list_sources()
    if style == "json":
        console.data_json([asdict(listing) for listing in listings])
        return
    console.data(console.aligned([(s.name, _where(s), s.about) for s in listings]))


def _where(listing: SourceListing) -> str:
    if listing.found is not None:
        return listing.found
    if listing.download_bytes is not None:
        return f"not here, {_size(listing.download_bytes)} to get"
    folder = listing.looked_in[0]
    return folder if listing.name.endswith(folder) else f"not in {folder}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:,.0f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:,.0f} MB"
