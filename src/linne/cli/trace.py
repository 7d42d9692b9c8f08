"""`linne trace VERB`: the same command line as without `trace`, and where its time goes."""

from __future__ import annotations

import click

from linne.cli import LazyGroup, help_when_alone

TRACE_VERBS = {
    "train": ("linne.cli.trace_train:command", "Say where the time of a training step goes, and keep nothing trained"),
    "evaluate": ("linne.cli.trace_bundle:evaluate", "Say where the time of an evaluation goes"),
    "predict": ("linne.cli.trace_bundle:predict", "Say where the time from a file to its labels goes"),
}


@click.group("trace", cls=LazyGroup, verbs=TRACE_VERBS, invoke_without_command=True, subcommand_metavar="VERB ...")
def command() -> None:
    """Say where the time goes, and what would make it faster.

    Put `trace` in front of what you would run. A few steps are timed by their parts, then recorded
    by torch's profiler; what stands out is said with its number and what to type.

    \b
    linne trace train photos/ --model timm/resnet18
    linne trace evaluate runs/photos-small-1/bundle photos/
    linne trace predict runs/photos-small-1/bundle holiday/
    """
    help_when_alone()
