"""`linne trace train`: the options of `linne train` that decide a step in, where its time goes out."""

from __future__ import annotations

from typing import Any

import click

from linne.cli.settings import settle, trace_options
from linne.cli.trace_bundle import show
from linne.cli.train import command as train

OF_A_STEP = (
    *(
        "source",
        "model",
        "weights",
        "recipe",
        "epochs",
        "batch_size",
        "lr",
        "device",
        "group_by",
        "splits_file",
        "quarantine",
    ),
    *("seed", "settings", "require_accelerator", "trust_code"),
)
"""What decides a step, of what `linne train` takes."""


@click.command("train", params=[parameter for parameter in train.params if parameter.name in OF_A_STEP])
@trace_options
def command(
    source: str | None, settings: tuple[tuple[str, str], ...], as_json: bool, table: bool, **options: Any
) -> None:
    """Say where the time of a training step on SOURCE goes.

    The steps are those of `linne train` with the same options. Nothing trained is kept.

    \b
    linne trace train digits
    linne trace train photos/ --model timm/resnet18 --set data.num_workers=2
    linne trace train --recipe runs/photos-small-1/recipe.json
    """
    if not (source or options["recipe"] or "data.source" in dict(settings)):
        raise click.MissingParameter(ctx=click.get_current_context(), param=command.params[0])
    overrides = settle(settings, options)
    for name in ("group_by", "splits_file", "quarantine"):
        value = options.pop(name)
        if value is not None:
            overrides[f"data.{name}"] = value
    from linne.profiling import trace_train

    result = trace_train(source, overrides=overrides, **options)
    show(result, as_json=as_json, table=table, quiet=options["quiet"])
