"""`linne completion SHELL`: the script that makes Tab complete verbs, options, sources and models."""

from __future__ import annotations

import click

from linne.cli import console
from linne.errors import LinneError

SHELLS = {
    "bash": 'put this line in ~/.bashrc: eval "$(linne completion bash)"',
    "zsh": 'put this line in ~/.zshrc, after compinit: eval "$(linne completion zsh)"',
    "fish": "type once: linne completion fish > ~/.config/fish/completions/linne.fish",
    "powershell": "put this line in $PROFILE: linne completion powershell | Out-String | Invoke-Expression",
}
"""What to do with each shell's script, said at its end."""


@click.command("completion")
@click.argument("shell", type=click.Choice(list(SHELLS)))
def command(shell: str) -> None:
    """Print the script that makes Tab complete linne's commands in SHELL.

    \b
    bash         eval "$(linne completion bash)"    in ~/.bashrc
    zsh          eval "$(linne completion zsh)"     in ~/.zshrc, after compinit
    fish         linne completion fish > ~/.config/fish/completions/linne.fish
    powershell   linne completion powershell | Out-String | Invoke-Expression    in $PROFILE
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise LinneError(f"this version of click writes no script for {shell}", hint="pip install --upgrade click")
    group = click.get_current_context().find_root().command
    # ShellComplete's own `source` and not the bash one, which first starts bash to ask for its version.
    script = click.shell_completion.ShellComplete.source(found(group, {}, "linne", "_LINNE_COMPLETE"))
    # At the end: it is what stays in view on a terminal, and zsh wants its own line first.
    console.data(f"{script.strip()}\n# {SHELLS[shell]}")
