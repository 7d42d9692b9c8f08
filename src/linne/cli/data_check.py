"""`linne data check`: a source in, what is wrong with it out, and exit code 3 when that should stop you."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from linne.cli import complete, console
from linne.cli.settings import output_format

_FILE = click.Path(path_type=Path)


@click.command("check")
@click.argument("source", shell_complete=complete.sources)
@click.option("--html", type=_FILE, metavar="FILE", help="Write a page with the images found.")
@click.option(
    "--quarantine", type=_FILE, metavar="FILE", help="Write a list of images better left out, with those of --without."
)
@click.option("--without", type=_FILE, metavar="FILE", help="Leave out what such a list names, as training will.")
@click.option("--splits-file", type=_FILE, metavar="FILE", help="Splits as `linne data split` wrote them.")
@click.option("--group-by", metavar="COLUMN|REGEX", help="Keep what this gives alike in one split.")
@click.option("--strict", is_flag=True, help="Exit with 3 for warnings too.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@output_format("text", "json")
def command(
    source: str,
    html: Path | None,
    quarantine: Path | None,
    without: Path | None,
    splits_file: Path | None,
    group_by: str | None,
    strict: bool,
    quiet: bool,
    style: str,
) -> None:
    """Look at every image of SOURCE: unreadable, copied, leaked, odd, and how the classes lie.

    Your files are not changed. The exit code is 3 when training now would waste time or give a
    false score.

    \b
    linne data check photos/
    linne data check photos/ --html check.html --quarantine leave-out.json
    linne train photos/ --quarantine leave-out.json
    """
    from linne.data_verbs import check_data
    from linne.errors import CheckFailed

    report = check_data(
        source,
        html=html,
        quarantine=quarantine,
        without=without,
        splits_file=splits_file,
        group_by=group_by,
        quiet=quiet,
    )
    if style == "json":
        console.data_json(report.to_dict())
    else:
        console.data(report.to_text())
    if report.severity == "stop" or (strict and report.severity):
        options = {"--splits-file": splits_file, "--group-by": group_by}
        shown = shlex.join([source, *(word for o, v in options.items() if v is not None for word in (o, str(v)))])
        hint = (
            f"`linne data check {shown} --html check.html --quarantine leave-out.json` shows the images and lists them"
        )
        if quarantine is not None:
            hint = f"`linne train {shown} --quarantine {shlex.quote(str(quarantine))}` leaves out what it lists"
        raise CheckFailed(f"`{source}` did not pass its check", hint=hint)
