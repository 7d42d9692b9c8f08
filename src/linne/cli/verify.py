"""`linne verify`: a bundle and images in, whether it answers the same however it is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from linne.cli import complete, console
from linne.cli.settings import how_to_run, trust_code
from linne.errors import CheckFailed


@click.command("verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("source", required=False, shell_complete=complete.sources)
@click.option("--split", default="test", show_default=True, metavar="NAME", help="`train`, `val` or `test`.")
@click.option("--splits-file", type=click.Path(path_type=Path), metavar="FILE", help="A run's splits.json.")
@click.option(
    "--unlabelled", multiple=True, metavar="INPUT", help="In the place of SOURCE: images without labels; repeatable."
)
@click.option(
    "--max-images", type=click.IntRange(min=1), default=1000, show_default=True, metavar="N", help="Evenly spaced ones."
)
@click.option("--all-images", is_flag=True, help="Take every image.")
@click.option("--max-drop", type=click.FloatRange(0, 100), metavar="POINTS", help="Of accuracy that may be lost.")
@click.option("--max-gap", type=click.FloatRange(min=0), metavar="X", help="By which logits may differ.")
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="Where to run.")
@how_to_run
@click.option("--require-accelerator", is_flag=True, help="Refuse the CPU, for any operator.")
@trust_code
@click.option("--no-keep", is_flag=True, help="Do not add the results to the bundle's card.")
@click.option("--quiet", is_flag=True, help="Say nothing on stderr but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the reports as JSON.")
def command(
    bundle: Path,
    *,
    as_json: bool,
    all_images: bool,
    max_images: int,
    max_drop: float | None,
    no_keep: bool,
    **options: Any,
) -> None:
    """Compare every way to run BUNDLE with the network as it was trained, on the images of SOURCE.

    The reference is the network in fp32 on the CPU. Each candidate sees the same files,
    decoded and resized as it will be used. In fp32 logits must agree to 1e-4 and no
    accuracy may be lost; in fp16 0.1 points may, in bf16 and int8 0.5. Where that fails, the layer at
    which the two part is named, and the exit code is 3. Without SOURCE the bundle's own canaries are used.

    \b
    linne verify runs/photos-small-1/bundle photos/
    linne verify runs/photos-small-1/bundle photos/ --precision int8 --max-drop 1
    linne verify runs/photos-small-1/bundle --unlabelled holiday/
    linne verify runs/photos-small-1/bundle photos/ --backend torch --device cuda
    """
    from linne.deploy_verbs import verify
    from linne.report_parity import COLUMNS

    reports = verify(
        bundle,
        max_images=None if all_images else max_images,
        max_drop=None if max_drop is None else max_drop / 100,
        keep=not no_keep,
        **options,
    )
    if as_json:
        console.data_json({"reports": [report.to_dict() for report in reports]})
    else:
        console.data(console.aligned([list(COLUMNS), *(report.row() for report in reports)]))
        for report in reports:
            console.data("\n" + "\n".join(report.details()))
    failed = [report.candidate for report in reports if not report.passed]
    if failed:
        raise CheckFailed(f"{len(failed)} of {len(reports)} did not pass: {', '.join(failed)}")
