"""`linne data pack`: a source as shards of resized images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from linne.cli import complete, console


def _read_size(context: click.Context, parameter: click.Parameter, text: str) -> int | None:
    if text.lower() == "none":
        return None
    if not text.isdigit():
        raise click.BadParameter(f"`{text}` is not a number of pixels or `none`", context, parameter)
    return int(text)


@click.command("pack")
@click.argument("source", shell_complete=complete.sources)
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    *("--size", "size"),
    default="256",
    show_default=True,
    metavar="N|none",
    callback=_read_size,
    help="Pixels of the shorter edge; smaller images stay as they are.",
)
@click.option("--format", "image_format", type=click.Choice(("jpg", "png", "raw")), help="Default jpg; pixels png.")
@click.option("--quality", type=int, default=90, show_default=True, metavar="N", help="Of jpg.")
@click.option("--shard-size-mb", type=click.IntRange(1), default=256, show_default=True, metavar="N")
@click.option("--max-unreadable", type=click.IntRange(0), metavar="N", help="Default a thousandth, or 10 if more.")
@click.option(
    "--splits-file", type=click.Path(path_type=Path), metavar="FILE", help="Splits to keep, from `linne data split`."
)
@click.option("--quarantine", type=click.Path(path_type=Path), metavar="FILE", help="Leave these images out.")
@click.option("--quiet", is_flag=True, help="Say nothing while packing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(source: str, out: Path, as_json: bool, **options: Any) -> None:
    """Write SOURCE to the folder OUT as WebDataset shards that train faster.

    Images are resized once, splits and labels kept. OUT is a source like any other, for linne and for
    whoever reads WebDataset. Killed and typed again, it goes on where it stopped; typed once more, it
    verifies every shard.

    \b
    linne data pack photos/ packed/
    linne data pack photos/ packed/ --format raw         no decoding at all, ten times the space
    linne train packed/
    """
    from linne.data_verbs import pack_data

    result = pack_data(source, out, **options)
    if as_json:
        console.data_json(result.to_dict())
    else:
        console.data(result.to_text())
