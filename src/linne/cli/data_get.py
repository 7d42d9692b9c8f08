"""`linne data get`: a published set, fetched, checked and unpacked."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from linne.cli import console

if TYPE_CHECKING:
    from linne.data.sources.get import Got


def _complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from linne.data.sources.published import PUBLISHED

    return [CompletionItem(name) for name in PUBLISHED if name.startswith(incomplete)]


@click.command("get")
@click.argument("name", shell_complete=_complete)
@click.option("--root", type=click.Path(path_type=Path), metavar="DIR", help="Where to keep it.")
@click.option("--offline", is_flag=True, help="Open no connection; so does LINNE_OFFLINE=1.")
@click.option("--force", is_flag=True, help="Fetch and unpack it again.")
@click.option("--quiet", is_flag=True, help="Say nothing while fetching.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(name: str, root: Path | None, offline: bool, force: bool, quiet: bool, as_json: bool) -> None:
    """Fetch the published set NAME, check it against its published hashes and unpack it.

    It is kept in DIR/NAME; without --root in $LINNE_DATA, or else in your data folder. Interrupted and
    typed again, it goes on where it stopped. `linne data list` shows the names.

    \b
    linne data get cifar10
    linne data get imagenette --root /data
    """
    from linne.data_verbs import get_data

    got = get_data(name, root=root, offline=offline, force=force, quiet=quiet)
    if as_json:
        console.data_json({**asdict(got), "folder": str(got.folder)})
    else:
        console.data(_text(got))


def _text(got: Got) -> str:
    counts = ", ".join(f"{number:,} {split}" for split, number in got.counts.items())
    return f"{got.name}: {counts}; {got.num_classes:,} classes, in {got.folder}\nnext: linne train {got.typed}"
