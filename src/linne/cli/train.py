"""`linne train`: options in, `linne.verbs.train`, and where things are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from linne.cli import complete, console
from linne.cli.settings import FLAGS, read_resume, read_settings, settle, trust_code


@click.command("train")
@click.argument("source", required=False, shell_complete=complete.sources)
@click.option("--model", metavar="NAME", shell_complete=complete.models, help="Network, as `linne models` lists them.")
@click.option(
    "--weights", metavar="default|NAME|FILE|DIR", help="Pretrained weights to start from; the first two may download."
)
@click.option(
    "--recipe",
    metavar="NAME|FILE.py:FUNCTION|RUN.json",
    shell_complete=complete.recipes,
    help="Start from a recipe or repeat a run.",
)
@click.option("--epochs", type=int, metavar="N", help="Passes over the training images.")
@click.option("--time-budget", type=float, metavar="MINUTES", help="Instead of epochs: as many as fit.")
@click.option("--batch-size", type=int, metavar="N", help="Images that a step learns from.")
@click.option("--lr", type=float, metavar="X", help="Peak learning rate.")
@click.option(
    "--device",
    metavar="NAME",
    help="Where to train: `auto`, `cpu`, `cuda`, `cuda:1`, `rocm`, `xpu`, `npu`, `mps`, `dml`.",
)
@click.option("--group-by", metavar="COLUMN|REGEX", help="Keep images for which this is the same in one split.")
@click.option("--splits-file", metavar="FILE", help="Who trains and who tests, from `linne data split` or a run.")
@click.option("--quarantine", metavar="FILE", help="Leave out what `linne data check --quarantine` listed.")
@click.option("--folds", type=int, metavar="K", help="Cross-validate: train one run for each of K folds.")
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="DIR", help="Folder of all that is written; else runs/NAME-k."
)
@click.option(
    "--resume",
    is_flag=False,
    flag_value="run",
    metavar="[auto]",
    callback=read_resume,
    help="Go on with the run in --output; `auto` begins it where there is none.",
)
@click.option(
    *("--allow-change", "allow_change"),
    multiple=True,
    metavar="FIELD",
    help="With --resume: this recipe field may differ from what it was; repeatable.",
)
@click.option("--seed", type=int, metavar="N", help="Another seed, another run: first weights, order, augmentation.")
@click.option(
    *("--set", "settings"),
    multiple=True,
    metavar="section.field=value",
    callback=read_settings,
    shell_complete=complete.fields,
    help="Any field of the recipe, as listed by --explain; repeatable.",
)
@click.option("--explain", is_flag=True, help="Print every field with its value and reason, and train nothing.")
@click.option("--measure-speed", is_flag=True, help="First time what channels_last and torch.compile would gain.")
@click.option("--require-accelerator", is_flag=True, help="Refuse the CPU, and stop if any operator runs there.")
@click.option(
    "--no-device-check",
    "device_check",
    flag_value=False,
    default=True,
    help="Do not compare the first step on an accelerator with the CPU's.",
)
@click.option(
    "--stuck-after",
    type=float,
    default=60.0,
    metavar="MINUTES",
    help="End a training in which nothing moves for so long (60), with its stacks in stuck.txt; 0 waits for ever.",
)
@trust_code
@click.option("--quiet", is_flag=True, help="Say nothing while training; print where the result is.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    source: str | None, settings: tuple[tuple[str, str], ...], explain: bool, as_json: bool, **options: Any
) -> None:
    """Train a classifier on SOURCE and keep it as a bundle.

    SOURCE is a named set (`linne data list`), a folder with one sub-folder a class, or `folder:DIR`;
    it may be left out when a recipe names it. What is not given is chosen from the source and the
    device, and said with the reason. Everything lands in a run folder: recipe, metrics, bundle,
    plots, report.

    \b
    linne train digits
    linne train photos/ --model timm/resnet18 --epochs 20
    linne train photos/ --time-budget 10
    linne train photos/ --folds 5
    linne train cifar10 --set optim.schedule=one-cycle --set augment.cutout=8
    linne train photos/ --explain
    linne train --recipe runs/digits-small-1/recipe.json
    linne train --output runs/digits-small-1 --resume
    """
    named = source or options["recipe"] or options["resume"] or "data.source" in dict(settings)
    if not named:
        raise click.MissingParameter(ctx=click.get_current_context(), param=command.params[0])
    overrides = settle(settings, options)
    for name in ("group_by", "splits_file", "quarantine", "folds"):
        value = options.pop(name)
        if value is not None:
            overrides[f"data.{name}"] = value
    if explain:
        _explain(source, overrides, options, as_json=as_json)
        return
    if _means_all_folds(overrides, options):
        _cross_validate(source, overrides, options, as_json=as_json)
        return
    from linne.verbs import train

    result = train(source, overrides=overrides, **options)
    if result.rank > 0:  # the first process says it
        pass
    elif as_json:
        console.data_json(result.to_dict())
    elif options["quiet"] and result.bundle is not None:
        console.data(str(result.bundle))
    if result.interrupted:
        raise SystemExit(128 + (result.signal_number or 0))


def _means_all_folds(overrides: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    """Return whether folds are asked for and none of them is named, or such a cross-validation is gone on with."""
    if overrides.get("data.fold") is not None:
        return False
    if overrides.get("data.folds") is not None:
        return True
    if not options["resume"]:
        return False
    from linne.cross_validation import is_cross_validation

    return is_cross_validation(options["output"])


def _cross_validate(
    source: str | None, overrides: Mapping[str, Any], options: Mapping[str, Any], *, as_json: bool
) -> None:
    """Train all folds, and print what they say together."""
    from linne.cross_validation import SUMMARY, cross_validate

    result = cross_validate(source, overrides=overrides, **options)
    if as_json:
        console.data_json(result.to_dict())
    elif options["quiet"] and result.report is not None:
        console.data(str(result.folder / SUMMARY))
    if result.signal_number is not None:
        raise SystemExit(128 + result.signal_number)


def _explain(source: str | None, overrides: Mapping[str, Any], options: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what would be trained."""
    from linne.explaining import explain

    for name in ("resume", "measure_speed"):
        if options[name]:
            typed = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"`--explain` and `{typed}` disagree", click.get_current_context())
    if _means_all_folds(overrides, options):
        overrides = {**overrides, "data.fold": 1}
        console.note("the first fold; the others differ from it in data.fold alone")
    explained = explain(
        source,
        recipe=options["recipe"],
        flags={path: options.get(name) for name, path in FLAGS.items()},
        overrides=overrides,
        require_accelerator=options["require_accelerator"],
        trust_code=options["trust_code"],
        say=console.note,
    )
    for note in explained.notes:
        console.note(note)
    if as_json:
        console.data_json(explained.to_dict())
    else:
        console.data(console.aligned(explained.rows()))
