"""`linne data show`: a source in, a figure of some of its images with their labels out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from linne.cli import complete, console


@click.command("show")
@click.argument("source", shell_complete=complete.sources)
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, metavar="FILE.png", help="Where to write the figure."
)
@click.option("--split", default="train", show_default=True, metavar="NAME", help="`train`, `val` or `test`.")
@click.option("--count", type=int, default=25, show_default=True, metavar="N", help="How many images.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Decides which images.")
@click.option("--quiet", is_flag=True, help="Say nothing on stderr.")
def command(source: str, output: Path, **options: Any) -> None:
    """Draw images of SOURCE with their labels.

    Look at it before you train: a wrong label, a folder too many and a channel too few are seen
    at once. Prints where the figure is.

    \b
    linne data show fashion-mnist --output clothes.png
    linne data show photos/ --output test.png --split test --count 49
    """
    from linne.data_verbs import show_data

    show_data(source, output, **options)
    console.data(str(output))
