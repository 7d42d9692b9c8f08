"""`linne compat PROGRAM VERB`: the command lines of other programs, kept working."""

from __future__ import annotations

import click

from linne.cli import LazyGroup, help_when_alone

PROGRAMS = {
    "directml": ("linne.cli.compat_directml:command", "The classification samples of DirectML for PyTorch"),
}


@click.group("compat", cls=LazyGroup, verbs=PROGRAMS, invoke_without_command=True, subcommand_metavar="PROGRAM ...")
def command() -> None:
    """Run the command lines of other programs, with their flags, files and output.

    For scripts that have them already. What those programs do wrong is corrected, and listed.

    \b
    linne compat directml --defects
    linne compat directml train --model resnet50 --device cpu --epochs 1 --save_model
    """
    help_when_alone()
