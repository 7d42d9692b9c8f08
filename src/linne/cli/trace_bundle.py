"""`linne trace evaluate` and `linne trace predict`: a bundle in, where the time of its answers goes out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from linne.cli import complete, console
from linne.cli.settings import trace_options, where_to_run

if TYPE_CHECKING:
    from linne.profiling.trace import TraceResult


@click.command("evaluate")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("source", shell_complete=complete.sources)
@click.option("--split", default="test", show_default=True, metavar="NAME", help="`train`, `val` or `test`.")
@click.option("--splits-file", type=click.Path(path_type=Path), metavar="FILE", help="A run's splits.json.")
@where_to_run
@trace_options
def evaluate(bundle: Path, source: str, as_json: bool, table: bool, **options: Any) -> None:
    """Say where the time of evaluating BUNDLE on SOURCE goes.

    \b
    linne trace evaluate runs/photos-small-1/bundle photos/
    """
    from linne.profiling import trace_evaluate

    show(trace_evaluate(bundle, source, **options), as_json=as_json, table=table, quiet=options["quiet"])


@click.command("predict")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@where_to_run
@trace_options
def predict(bundle: Path, inputs: tuple[str, ...], as_json: bool, table: bool, **options: Any) -> None:
    """Say where the time from the files of INPUT to their labels goes.

    One file shows what one answer takes, a folder what answers take in batches.

    \b
    linne trace predict runs/photos-small-1/bundle photo.jpg
    linne trace predict runs/photos-small-1/bundle holiday/
    """
    from linne.profiling import trace_predict

    show(trace_predict(bundle, inputs, **options), as_json=as_json, table=table, quiet=options["quiet"])


def show(result: TraceResult, *, as_json: bool, table: bool, quiet: bool) -> None:
    """Print a trace: for people, with torch's own table if asked to, or as JSON; say where the rest is."""
    if as_json:
        console.data_json(result.to_dict())
    else:
        console.data(result.to_text())
        if table:
            console.data(f"\n{result.table}")
    if not quiet:
        console.note(f"\n{result.where_to_look()}")
