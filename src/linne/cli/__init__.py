"""The command line: a table of verbs, each loaded only when typed, and one place where everything ends.

`VERBS` holds the one-line helps, so that `linne --help` imports no verb, no numpy and no torch.
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click

import linne
from linne.cli import failures

VERBS = {
    "train": ("linne.cli.train:command", "Train a classifier on a source and keep it as a bundle"),
    "launch": ("linne.cli.launch:command", "Train in several processes, and start them again when some die"),
    "evaluate": ("linne.cli.evaluate:command", "Measure a bundle on a split of a source"),
    "predict": ("linne.cli.predict:command", "Name what is on images, with probabilities"),
    "export": ("linne.cli.export:command", "Write a bundle for another runtime, verified"),
    "verify": ("linne.cli.verify:command", "Compare every way to run a bundle with the trained network"),
    "tune": ("linne.cli.tune:command", "Find the fastest way to run a bundle here that passes"),
    "trace": ("linne.cli.trace:command", "Say where the time goes, and what would make it faster"),
    "doctor": ("linne.cli.doctor:command", "Prove that the accelerator stack computes right answers"),
    "sweep": ("linne.cli.sweep:command", "Search for a better recipe with many trainings"),
    "import": ("linne.cli.import_weights:command", "Make a bundle of pretrained weights"),
    "models": ("linne.cli.models:command", "List the networks that can be trained"),
    "data": ("linne.cli.data:command", "Fetch, check, split and pack what is learned from"),
    "compat": ("linne.cli.compat:command", "Run the command lines of other programs, corrected"),
    "completion": ("linne.cli.completion:command", "Print the script that completes commands in a shell"),
}


def help_when_alone() -> None:
    """Show the help of the group that is running, when no verb was typed."""
    context = click.get_current_context()
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


class VerbGroup(click.Group):
    """A group that offers the nearest match for a misspelt verb."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the verb and its arguments."""
        verbs = self.list_commands(ctx)
        if args[0] not in verbs and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise failures.UnknownVerb(args[0], verbs, ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs."""
        with formatter.section("Verbs"):
            formatter.write_dl(self.lines(ctx))

    def lines(self, ctx: click.Context) -> list[tuple[str, str]]:
        """Return each verb with its line of help."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        return [(name, command.get_short_help_str(80)) for name, command in commands.items() if command]


class LazyGroup(VerbGroup):
    """A group that knows its verbs from a table and ends every failure the same way."""

    def __init__(self, *args: Any, verbs: Mapping[str, tuple[str, str]], **options: Any) -> None:
        """`verbs`: where each verb's command is, as `module:name`, and its line of help."""
        super().__init__(*args, **options)
        self.verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of the table, which is the order of use."""
        return list(self.verbs)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return the verb, imported now, or None."""
        if name not in self.verbs:
            return None
        module, _, attribute = self.verbs[name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def lines(self, ctx: click.Context) -> list[tuple[str, str]]:
        """Return each verb with its line of help, from the table."""
        return [(name, text) for name, (_, text) in self.verbs.items()]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[click.shell_completion.CompletionItem]:
        """Return the verbs that start with `incomplete`, from the table; options as click finds them."""
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        lines = [(name, text) for name, (_, text) in self.verbs.items() if name.startswith(incomplete)]
        return [CompletionItem(name, help=text) for name, text in lines]

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; a reader that has seen enough (`| head`) ends it quietly."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # What Python's own documentation advises: the flush at exit must not fail a second time.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(141) from None  # 128 + SIGPIPE, as a shell reports it

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line and leave through `sys.exit` with a code of `linne.cli.failures`."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        first = (sys.argv[1:] if args is None else list(args))[:1]
        debug = first == ["--debug"] or bool(os.environ.get("LINNE_DEBUG"))
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # A label in another script than the terminal's should not lose the answer.
                stream.reconfigure(errors="backslashreplace")
        with terminate_as_interrupt() as signals:
            try:
                code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            except SystemExit as leaving:
                code = leaving.code
            except Exception as error:
                code = failures.tell(error, debug=debug)
        sys.exit(128 + signals[0] if signals else code)


@contextmanager
def terminate_as_interrupt() -> Iterator[list[int]]:
    """Make SIGTERM and SIGUSR1 end work as Ctrl-C does; yields the list that then holds the signal's number."""
    received: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt(number)

    # Windows has no SIGUSR1.
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]
    try:
        before = {number: signal.signal(number, interrupt) for number in numbers}
    except ValueError:  # not in the main thread: whoever runs us there decides
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@click.group(
    cls=LazyGroup,
    verbs=VERBS,
    name="linne",
    invoke_without_command=True,
    subcommand_metavar="VERB ...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(linne.__version__, prog_name="linne", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of a failure, as LINNE_DEBUG=1 does.")
def cli(debug: bool) -> None:
    """From labelled images to a trained, evaluated classifier that predicts.

    \b
    linne train digits                                  train on a named set
    linne train photos/                                 or on a folder, one sub-folder a class
    linne evaluate runs/digits-small-1/bundle digits    measure the bundle that came out
    linne predict runs/digits-small-1/bundle scan.png   use it
    """
    help_when_alone()


def main(arguments: Sequence[str] | None = None) -> Any:
    """Run `linne` with `arguments` (those of the process when None) and leave through `sys.exit`."""
    return cli.main(args=arguments, prog_name="linne")
