"""`linne data VERB`: what is done to data before the first step."""

from __future__ import annotations

import click

from linne.cli import LazyGroup, help_when_alone

DATA_VERBS = {
    "list": ("linne.cli.data_list:command", "List the sources: where their files were found, and what they are"),
    "get": ("linne.cli.data_get:command", "Fetch a published set, checked, and unpack it"),
    "show": ("linne.cli.data_show:command", "Draw images of a source with their labels"),
    "check": ("linne.cli.data_check:command", "Find what is wrong with a source before it is learned from"),
    "split": ("linne.cli.data_split:command", "Write which examples train, validate and test, for every later verb"),
    "pack": ("linne.cli.data_pack:command", "Write a source as resized shards that load fast"),
}


@click.group("data", cls=LazyGroup, verbs=DATA_VERBS, invoke_without_command=True, subcommand_metavar="VERB ...")
def command() -> None:
    """Fetch, show, check, split and pack what is learned from.

    \b
    linne data get cifar10                                    fetch a published set
    linne data show photos/ --output photos.png               see what is labelled how
    linne data check photos/                                  before you train on it
    linne data split photos/ splits.json --group-by patient   keep what belongs together together
    linne data pack photos/ packed/ --size 256                resized once, loaded fast
    """
    help_when_alone()
