"""`linne doctor`: is the accelerator used, is it right, and what to install."""

from __future__ import annotations

from pathlib import Path

import click

from linne.cli import console
from linne.cli.settings import output_format, trust_code


@click.command("doctor")
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option("--device", "devices", multiple=True, metavar="NAME", help="Prove this one; repeatable. Default `auto`.")
@click.option("--quick", is_flag=True, help="Look only: touch no device, start no child.")
@trust_code
@output_format("text", "json")
def command(bundle: Path | None, devices: tuple[str, ...], quick: bool, trust_code: bool, style: str) -> None:
    """Prove that this machine's accelerator stack computes right answers, and say what to fix.

    Looks at the system, the packages and whether their versions go together, and every GPU there
    is; then computes on the device in a child process and compares with double precision. Works
    without torch, and says so. The exit code is 3 when something is bad.

    With a BUNDLE, also whether it is whole and answers here as it did when it was written.

    \b
    linne doctor
    linne doctor --device cuda:1
    linne doctor runs/digits-small-1/bundle
    linne doctor --json > doctor.json
    """
    from linne.doctor import examine

    report = examine(devices=devices or ("auto",), quick=quick, bundle=bundle, trust_code=trust_code)
    if style == "json":
        console.data_json(report.to_dict())
    else:
        console.data(report.to_text())
    if report.exit_code:
        raise SystemExit(report.exit_code)
