"""`linne compat directml VERB`: the options from the table of the samples' flags, one call, their lines."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from linne.cli import VerbGroup, console, help_when_alone
from linne.compat.directml import programs

ABOUT = {
    "train": "Train one of torchvision's networks on CIFAR-10, as the samples' train.py",
    "test": "Measure what `train --save_model` kept, as the samples' test.py",
    "predict": "Name what is on --image, as the samples' predict.py",
}
_TYPES = {"int": int, "float": float, "str": str, "str | None": str, "Path | None": click.Path(path_type=Path)}


def _option(flag: Any) -> click.Option:
    """Return the option of a field of `Options`."""
    more: dict[str, Any] = {"type": _TYPES.get(flag.type), "metavar": flag.metadata.get("metavar")}
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

    return click.Command(name, callback=run, help=f"{ABOUT[name]}.", params=[_option(f) for f in programs.flags(name)])


@click.command("dataset")
@click.option("--dataset", default="all", metavar="|".join(programs.DATASETS), help="What to fetch, in any case.")
def dataset(dataset: str) -> None:
    """Fetch CIFAR-10's binary files and PennFudanPed into cv/data, as the samples' dataset.py."""
    from linne.compat.directml.fetching import fetch_datasets

    fetch_datasets(dataset, click.echo)


@click.group("directml", cls=VerbGroup, invoke_without_command=True, subcommand_metavar="VERB ...")
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


for _name, _module in {"train": "training", "test": "training", "predict": "predicting"}.items():
    command.add_command(_program(_name, f"linne.compat.directml.{_module}"))
command.add_command(dataset)
