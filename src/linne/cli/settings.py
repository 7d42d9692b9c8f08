"""Options that several verbs share, and what happens when two of them say different things."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click

FLAGS = {
    "model": "model.name",
    "weights": "model.weights",
    "epochs": "optim.epochs",
    "time_budget": "optim.minutes",
    "batch_size": "data.batch_size",
    "lr": "optim.lr",
    "device": "device.name",
    "seed": "seed",
    "group_by": "data.group_by",
    "splits_file": "data.splits_file",
    "quarantine": "data.quarantine",
    "folds": "data.folds",
}
"""The field each flag of `linne train` stands for."""


def read_settings(
    context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """Return each `section.field=value` as ("section.field", "value"); the recipe reads the value."""
    sides = [text.partition("=") for text in texts]
    for text, (path, _, value) in zip(texts, sides, strict=True):
        if not (path.strip() and value.strip()):
            raise click.BadParameter(f"`{text}` is not `section.field=value`", context, parameter)
    return tuple((path.strip(), value.strip()) for path, _, value in sides)


def read_preparation(
    context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """Return each `field=value` as `read_settings` does, and a word alone as that of the scaling."""
    return read_settings(context, parameter, tuple(text if "=" in text else f"scaling={text}" for text in texts))


def read_backend_options(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    """Return each `NAME=VALUE` by its name."""
    sides = [text.partition("=") for text in texts]
    for text, (name, _, value) in zip(texts, sides, strict=True):
        if not (name.strip() and value.strip()):
            raise click.BadParameter(f"`{text}` is not `NAME=VALUE`", context, parameter)
    return {name.strip(): value.strip() for name, _, value in sides}


def read_resume(context: click.Context, parameter: click.Parameter, value: str | None) -> bool | str:
    """Return whether to resume, as `linne.train` takes it."""
    if value not in (None, "run", "auto"):
        raise click.BadParameter(f"`{value}` is not `auto`; SOURCE comes before it", context, parameter)
    return value if value == "auto" else value is not None


def settle(settings: Iterable[tuple[str, str]], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings by field, without those that a flag already says.

    Raises:
        click.UsageError: two values for one field.
        RecipeError: no such field, or not a value of its type.
    """
    from linne.recipe import parse_value

    said = {
        FLAGS[name]: (f"--{name.replace('_', '-')} {v}", v)
        for name, v in flags.items()
        if name in FLAGS and v is not None
    }
    settled: dict[str, Any] = {}
    for path, text in settings:
        value = parse_value(path, text)
        typed = f"--set {path}={text}"
        if path in said and said[path][1] != value:
            raise click.UsageError(f"`{said[path][0]}` and `{typed}` disagree", click.get_current_context(silent=True))
        if path not in said:
            settled[path] = value
            said[path] = (typed, value)
    return settled


def train_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with what a training is told in `linne sweep`: which recipe to start from."""
    for option in reversed(
        (
            click.option("--model", metavar="NAME", help="Network: `small`, `mlp`, `timm/NAME`."),
            click.option("--recipe", metavar="NAME|FILE.py:FUNCTION|RUN.json", help="What the trials change."),
            click.option("--epochs", type=int, metavar="N", help="Passes over the training examples."),
            click.option("--batch-size", type=int, metavar="N", help="Examples a step."),
            click.option("--lr", type=float, metavar="X", help="Peak learning rate to search around."),
            click.option("--device", metavar="NAME", help="Where to train."),
            click.option("--seed", type=int, metavar="N", help="Of every trial, and of what is drawn."),
            click.option(
                *("--set", "settings"),
                multiple=True,
                metavar="section.field=value",
                callback=read_settings,
                help="Any field of the recipe, the same in every trial; repeatable.",
            ),
        )
    ):
        command = option(command)
    return command


def where_to_run(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with the options of a verb that runs a bundle: where, by which views, what is trusted."""
    views = click.option(
        "--tta",
        type=click.Choice(["flip", "crops"]),
        help="Answer by the mean over an image and its mirror, or over both and shifted copies.",
    )
    required = click.option("--require-accelerator", is_flag=True, help="Refuse the CPU, for any operator.")
    device = click.option("--device", default="auto", show_default=True, metavar="NAME", help="Where to run.")
    return views(device(required(trust_code(command))))


def trust_code(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with `--trust-code`, for every verb that may build a network."""
    return click.option(
        "--trust-code", is_flag=True, help="Run the Python of your own network, `python:FILE.py:NAME`."
    )(command)


def how_to_run(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with the options of a verb that runs a bundle by any backend: which one, and what it is told.

    They are `backend`, `precision`, `num_threads` and `backend_options`.
    """
    backend = click.option(
        "--backend",
        default="auto",
        show_default=True,
        metavar="NAME",
        help="What runs it: `torch`, `onnxruntime`, `openvino`, `migraphx`, `tensorrt` or `tflite`.",
    )
    precision = click.option(
        "--precision", type=click.Choice(["fp32", "fp16", "bf16", "int8"]), help="Of the numbers; fp32 when not said."
    )
    threads = click.option("--threads", "num_threads", type=click.IntRange(min=1), metavar="N", help="Of the CPU.")
    own = click.option(
        "--backend-option",
        "backend_options",
        multiple=True,
        callback=read_backend_options,
        metavar="NAME=VALUE",
        help="What this backend alone can be told; repeatable.",
    )
    return backend(precision(threads(own(command))))


def pretrained(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with `--weights`, for a verb that takes a network with pretrained weights for a bundle."""
    return click.option(
        "--weights", metavar="default|NAME|FILE|DIR", help="Of MODEL: which weights; `default` when not said."
    )(command)


def figure_of_answers(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with the options of a verb that draws answers: `plot` and `plot_count`."""
    count = click.option(
        "--plot-count", type=int, default=15, show_default=True, metavar="N", help="How many images `--plot` draws."
    )
    plot = click.option(
        "--plot",
        type=click.Path(path_type=Path),
        metavar="FILE.png",
        help="Draw images with their answers and a bar for each probability.",
    )
    return plot(count(command))


def trace_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with the options of every `linne trace`: `steps`, `output`, `table`, `quiet`, `as_json`."""
    for option in reversed(
        (
            click.option(
                "--steps", type=click.IntRange(1), metavar="N", help="Time so many; else a few seconds' worth."
            ),
            click.option(
                "--output",
                type=click.Path(path_type=Path),
                metavar="DIR",
                help="Folder of the trace; else traces/NAME-k.",
            ),
            click.option("--table", is_flag=True, help="Print torch's table of all operators as well."),
            click.option("--quiet", is_flag=True, help="Say nothing on stderr."),
            click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON."),
        )
    ):
        command = option(command)
    return command


def output_format(*styles: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds `--format` and `--json`, and calls the command with `style`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @click.option(
            "--format", "style", type=click.Choice(styles), help=f"How to print it; `{styles[0]}` when not said."
        )
        @click.option("--json", "as_json", is_flag=True, help="The same as `--format json`.")
        @functools.wraps(command)
        def with_style(*, style: str | None, as_json: bool, **options: Any) -> None:
            if as_json and style not in (None, "json"):
                raise click.UsageError(f"`--json` and `--format {style}` disagree", click.get_current_context())
            command(style="json" if as_json else style or styles[0], **options)

        return with_style

    return decorate
