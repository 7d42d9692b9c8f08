"""`linne tune`: a bundle in, the fastest way to run it here that still answers as it should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from linne.cli import complete, console
from linne.cli.settings import trust_code


@click.command("tune")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("source", required=False, shell_complete=complete.sources)
@click.option(
    "--for",
    "goal",
    type=click.Choice(["latency", "throughput"]),
    default="latency",
    show_default=True,
    help="The time of one batch, or images a second.",
)
@click.option("--batch", type=click.IntRange(min=1), metavar="N", help="Images at once; 1, or what is fastest.")
@click.option(
    "--budget",
    "minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    metavar="MINUTES",
    help="After which no further candidate is begun.",
)
@click.option("--max-drop", type=click.FloatRange(0, 100), metavar="POINTS", help="Of accuracy that may be lost.")
@click.option("--split", default="val", show_default=True, metavar="NAME", help="Of SOURCE.")
@click.option("--splits-file", type=click.Path(path_type=Path), metavar="FILE", help="A run's splits.json.")
@click.option(
    "--unlabelled", multiple=True, metavar="INPUT", help="In the place of SOURCE: images without labels; repeatable."
)
@click.option(
    "--max-images", type=click.IntRange(min=1), default=500, show_default=True, metavar="N", help="Evenly spaced ones."
)
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="Where to run.")
@click.option("--require-accelerator", is_flag=True, help="Refuse the CPU, for any operator.")
@trust_code
@click.option("--quiet", is_flag=True, help="Say nothing on stderr but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print what was measured as JSON.")
def command(bundle: Path, *, as_json: bool, max_drop: float | None, **options: Any) -> None:
    """Find the fastest way to run BUNDLE on this machine, and use it from now on.

    Backends, precisions, threads, batch sizes and each backend's own options are tried. Candidates
    that lose more accuracy on SOURCE than allowed are not used. The best is measured in turns with
    what is used now; where the gain is noise, nothing changes. Exports are what gives a choice:
    `linne export` first. Called again, it goes on with what it has measured.

    \b
    linne tune runs/photos-small-1/bundle photos/
    linne tune runs/photos-small-1/bundle photos/ --for throughput --budget 30
    linne tune runs/photos-small-1/bundle photos/ --max-drop 1
    """
    from linne.deploy_verbs import tune

    report = tune(bundle, max_drop=None if max_drop is None else max_drop / 100, **options)
    if as_json:
        console.data_json(report.to_dict())
        return
    console.data(console.aligned(report.rows()) + "\n")
    for line in report.lines():
        console.data(line)
