"""`linne data split`: which examples train, validate and test, as a file."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path

import click

from linne.cli import complete, console

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("split")
@click.argument("source", shell_complete=complete.sources)
@click.argument("file", type=FILE)
@click.option("--val", "val", metavar="F|none", help="Share of train for val. [default: 0.1]")
@click.option("--test", "test", metavar="F", help="Share of train for test. [default: 0.15]")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides, with the names, what is held out.")
@click.option("--group-by", metavar="COLUMN|REGEX", help="What this gives alike stays in one split.")
@click.option("--folds", type=int, metavar="K", help="Write K files, each with another fold for val.")
@click.option("--quarantine", type=FILE, metavar="FILE", help="Leave these images out.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def command(
    source: str,
    file: Path,
    val: str | None,
    test: str | None,
    seed: int,
    group_by: str | None,
    folds: int | None,
    quarantine: Path | None,
    as_json: bool,
) -> None:
    """Write which examples of SOURCE train, validate and test to FILE.

    Every verb that reads SOURCE takes the file. Splits that the source itself defines are kept as they are.

    \b
    linne data split photos/ splits.json --test 0.2
    linne data split photos/ splits.json --group-by 'patient(\\d+)_'   no patient in two splits
    linne data split list.csv splits.json --group-by patient          by a column of the list
    linne data split photos/ cv.json --folds 5                        cv-fold1.json to cv-fold5.json
    """
    from linne.data_verbs import split_data
    from linne.recipe import parse_value

    fractions = {
        f"{name}_fraction": parse_value(f"data.{name}_fraction", text)
        for name, text in (("val", val), ("test", test))
        if text is not None
    }
    written = split_data(
        source, file, folds=folds, split_seed=seed, group_by=group_by, quarantine=quarantine, **fractions
    )
    if as_json:
        console.data_json([asdict(one) for one in written])
        return
    for note in dict.fromkeys(note for one in written for note in one.notes):
        console.note(note)
    rows = [[one.path, *(f"{name} {count:,}" for name, count in one.counts.items())] for one in written]
    console.data(console.aligned(rows))
    words = shlex.join(["linne", "train", source, "--splits-file", written[0].path])
    console.note(f"\nuse it: `{words}`")
