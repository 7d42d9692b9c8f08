"""How a command that fails says so: `error:`, what to do as `hint:`, and the exit code.

0  done                        3    ran, but failed its check
1  something the user can fix  130  interrupted
2  a command line not understood    143  terminated; 138 by SIGUSR1
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable

import click

from linne.cli import console
from linne.errors import LinneError, suggest

INTERRUPTED = 130
EXTRAS = {
    **dict.fromkeys(("torch", "torchvision", "timm", "sklearn", "scipy", "matplotlib"), "train"),
    **dict.fromkeys(("datasets", "transformers"), "hf"),
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "onnx"),
    "pyarrow": "lists",
    "nncf": "openvino",
    "optuna": "sweep",
    "ray": "ray",
}
"""Which extra brings a package."""
ATTACH = "when you report it, attach `doctor.json`: linne doctor --json > doctor.json"


class UnknownVerb(click.UsageError):
    """A first word that is no verb."""

    def __init__(self, name: str, verbs: Iterable[str], context: click.Context) -> None:
        super().__init__(f"no verb `{name}`", context)
        self.hint = suggest(name, verbs)


def tell(error: Exception, *, debug: bool) -> int:
    """Write `error` to stderr, after its traceback when `debug`, and return the exit code."""
    if debug:
        console.note("".join(traceback.format_exception(error)).rstrip())
    if isinstance(error, click.exceptions.Abort):
        console.note("interrupted")
        return INTERRUPTED
    message, hint, code = explain(error)
    console.fail(message, hint)
    return code


def explain(error: Exception) -> tuple[str, str | None, int]:
    """Return the message, the hint and the exit code for `error`."""
    if isinstance(error, LinneError):
        return error.message, error.hint, error.exit_code
    if isinstance(error, click.UsageError):
        message, hint = _usage(error)
        return message, hint, error.exit_code
    if isinstance(error, click.ClickException):
        return _house_voice(error.format_message()), None, error.exit_code
    debug = "set LINNE_DEBUG=1 to see where"
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        return f"`{error.name}` is not installed", f"pip install 'linne[{EXTRAS[error.name]}]'", 1
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"`{error.filename}`: {error.strerror.lower()}", debug, 1
    lines = str(error).strip().splitlines()
    said = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return f"unexpected {said}", f"this is a fault in linne or in a library below it; {debug}\n{ATTACH}", 1


def _usage(error: click.UsageError) -> tuple[str, str | None]:
    command = error.ctx.command_path if error.ctx else "linne"
    help_hint = f"`{command} --help` shows what it takes"
    if isinstance(error, UnknownVerb):
        return error.message, error.hint or f"`{command} --help` lists the verbs"
    if isinstance(error, click.NoSuchOption):
        known = [text for p in error.ctx.command.params for text in p.opts] if error.ctx else []
        return f"no option `{error.option_name}` for `{command}`", suggest(error.option_name, known) or help_hint
    if isinstance(error, click.MissingParameter) and error.param is not None and error.ctx is not None:
        return f"`{command}` needs {error.param.make_metavar(error.ctx).strip('[]')}", help_hint
    if isinstance(error, click.BadParameter) and error.param is not None:
        named = (
            "`/`".join(error.param.opts) if isinstance(error.param, click.Option) else error.param.human_readable_name
        )
        return f"`{named}`: {_house_voice(error.message)}", help_hint
    return _house_voice(error.format_message()), help_hint


def _house_voice(message: str) -> str:
    """Return a click sentence in lower case, without its full stop, with backticks for quotes."""
    text = re.sub(r"'([^']*)'", r"`\1`", message.strip().rstrip("."))
    return text[:1].lower() + text[1:]
