"""`linne sweep`: options in, `linne.sweep`, and the best trials out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from linne.cli import complete, console
from linne.cli.settings import read_settings, settle, train_options, trust_code


@click.command("sweep")
@click.argument("source", metavar="SOURCE|FOLDER", shell_complete=complete.sources)
@click.option("--trials", type=int, metavar="N", help="Trainings in all; 20 for a new sweep.")
@click.option("--budget", "budget_minutes", type=float, metavar="MINUTES", help="How long this call may take.")
@click.option("--workers", type=int, default=1, show_default=True, metavar="N", help="Trainings at a time.")
@click.option(
    "--search",
    multiple=True,
    metavar="section.field=RANGE|VALUES",
    callback=read_settings,
    shell_complete=complete.fields,
    help="A field to search: `1e-4..1e-1:log`, `0..0.2` or `sgd,adamw`; repeatable.",
)
@click.option("--space", type=click.Path(path_type=Path), metavar="FILE", help="The same from a .json or .toml file.")
@click.option("--objective", metavar="NAME", help="`val_accuracy` (when not said) or `val_loss`.")
@click.option("--seeds", type=int, metavar="K", help="Repeat the best three with K other seeds.")
@click.option("--output", type=click.Path(path_type=Path), metavar="DIR", help="Folder; default sweeps/SOURCE-MODEL.")
@click.option("--status", is_flag=True, help="Print what the sweep in FOLDER has found so far.")
@click.option("--ray", "ray_address", metavar="ADDRESS", help="Run the workers on the nodes of a Ray cluster.")
@train_options
@trust_code
@click.option("--quiet", is_flag=True, help="Say nothing while it runs.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(source: str, search: tuple[tuple[str, str], ...], status: bool, as_json: bool, **options: Any) -> None:
    """Search for a better recipe for SOURCE: many trainings, of which hopeless ones are ended early.

    The same command continues a sweep that was stopped. Another process, here or on a machine that
    shares the folder, joins with `linne sweep FOLDER`.

    \b
    linne sweep digits --trials 20 --budget 10
    linne sweep photos/ --workers 2 --search optim.lr=1e-4..1e-1:log --search optim.optimizer=sgd,adamw
    linne sweep sweeps/digits-small --seeds 5
    linne sweep sweeps/digits-small --status
    """
    from linne.sweeping import sweep, sweep_status
    from linne.sweeping.words import to_text

    if status:
        report = sweep_status(source)
    else:
        overrides = settle(options.pop("settings"), options)
        report = sweep(source, search=dict(search), overrides=overrides, **options)
    if as_json:
        console.data_json(report.to_dict())
    else:
        console.data(to_text(report))
    if report.signal_number is not None:
        raise SystemExit(128 + report.signal_number)
    if not status and report.best is None:
        from linne.errors import CheckFailed

        raise CheckFailed("no trial has finished", hint=f"what each said is in {report.folder / 'logs'}")
