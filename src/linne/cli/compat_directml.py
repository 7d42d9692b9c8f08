"""`linne compat directml VERB`: the options from the table of the samples' flags, one call, their lines."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from linne.cli import LazyGroup, console, help_when_alone
from linne.compat.directml import programs

VERBS = {
    "train": ("linne.cli.compat_directml:train", "Train one of torchvision's networks on CIFAR-10"),
    "test": ("linne.cli.compat_directml:test", "Measure what `train --save_model` kept"),
    "predict": ("linne.cli.compat_directml:predict", "Name what is on an image"),
    "dataset": ("linne.cli.compat_directml:dataset", "Fetch CIFAR-10 and PennFudanPed into cv/data"),
}
_TYPES = {
    "int": (int, "N"),
    "float": (float, "X"),
    "str": (str, "NAME"),
    "str | None": (str, "NAME"),
    "Path | None": (click.Path(path_type=Path), "FILE"),
}


def _option(flag: Any) -> click.Option:
    """Return the option of a field of `Options`."""
    kind, metavar = _TYPES.get(flag.type, (None, None))
    more: dict[str, Any] = {"type": kind, "metavar": metavar}
    if flag.name == "sample":
        more = {"type": click.Choice(list(programs.SAMPLES))}
    elif "optional" in flag.metadata:
        # The samples want a text after it; on its own it is clear as well.
        more = {"type": click.BOOL, "is_flag": False, "flag_value": "True", "metavar": "[True]"}
    elif flag.type == "bool":
        more = {"is_flag": True}
    shown = flag.type in ("int", "float", "str")
    about = flag.metadata["about"]
    return click.Option([f"--{flag.name}"], default=flag.default, show_default=shown, help=about, **more)


def _program(name: str, module: str) -> click.Command:
    def run(**values: Any) -> None:
        from linne.host import prepare_for_torch

        prepare_for_torch()
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # what lies below torch's profiler writes its doings to stderr
        # click's own echo: it writes each line at once, and keeps the samples' empty ones.
        getattr(import_module(module), name)(programs.Options(**values), click.echo, console.note)

    return click.Command(
        name,
        callback=run,
        help=f"{VERBS[name][1]}, as the samples' {name}.py.",
        params=[_option(f) for f in programs.flags(name)],
    )


train = _program("train", "linne.compat.directml.training")
test = _program("test", "linne.compat.directml.training")
predict = _program("predict", "linne.compat.directml.predicting")


@click.command("dataset")
@click.option(
    "--dataset",
    default="all",
    show_default=True,
    metavar="|".join(programs.DATASETS),
    help="What to fetch, in capitals or not.",
)
def dataset(dataset: str) -> None:
    """Fetch CIFAR-10's binary files and PennFudanPed into cv/data, as the samples' dataset.py.

    Everything is checked. PennFudanPed is fetched because theirs does it; nothing here uses it.
    """
    from linne.compat.directml.fetching import fetch_datasets

    fetch_datasets(dataset, click.echo)


@click.group("directml", cls=LazyGroup, verbs=VERBS, invoke_without_command=True, subcommand_metavar="VERB ...")
@click.option("--defects", is_flag=True, help="List what the samples do wrong, and what linne does instead.")
def command(defects: bool) -> None:
    """Train, test and predict by the command lines of DirectML's classification samples.

    Flags, folders (cv/data, cv/checkpoints) and output are theirs; their faults are corrected, or with
    --faithful computed as they are. `linne train cifar10` does the same job well.

    \b
    linne compat directml dataset --dataset cifar10
    linne compat directml train --model resnet50 --device cpu --epochs 1 --save_model
    linne compat directml test --model resnet50 --device cpu
    linne compat directml predict --model resnet50 --device cpu --image dog.png
    """
    if defects:
        from linne.compat.directml.defects import text

        console.data(text())
        raise click.exceptions.Exit(0)
    help_when_alone()
