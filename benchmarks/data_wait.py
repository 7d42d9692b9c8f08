"""How long training ResNet-18 at 160 px waits for its data: `data_wait` of real runs on the CPU.

`linne train` on a folder of photographs with timm's ResNet-18 at 160 x 160 pixels, streamed by threads and held in
memory. The share is the one that a run's metrics.jsonl and report state.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import measure
from photos import mean_kilobytes, write_photos

measure.use_checkout()

import linne  # noqa: E402


def shares(folder: Path, loader: str, epochs: int, output: Path) -> tuple[list[float], list[float]]:
    """Return the share waited and the images a second of each epoch of a run."""
    overrides = {"data.loader": loader, "data.height": 160, "data.width": 160, "data.batch_size": 32}
    overrides |= {"data.val_fraction": "none", "optim.schedule": "constant", "optim.warmup_epochs": "none"}
    options = {"model": "timm/resnet18", "epochs": epochs, "device": "cpu", "quiet": True}
    linne.train(str(folder), output=output, overrides=overrides, **options)
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    waited = [row["data_wait"] for row in rows if row["event"] == "epoch"]
    return waited, [row["images_per_second"] for row in rows if row["event"] == "step"]


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--folder", type=Path, help="photographs to read, one folder a class; made when not given")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    raw, rows = {}, []
    with tempfile.TemporaryDirectory() as made:
        folder = options.folder or write_photos(Path(made) / "photos", 120 if options.quick else 600)
        for loader in ("streaming", "resident"):
            waited, rates = shares(folder, loader, 1 if options.quick else options.epochs, Path(made) / loader)
            raw[loader] = {"data_wait": waited, "images_per_second": rates}
            rows.append([loader, measure.middle([100 * share for share in waited]), measure.middle(rates, 1)])
        kilobytes = mean_kilobytes(folder)
    measure.report(
        "Waiting for data: ResNet-18 at 160 px",
        ["loader", "% of the time, median epoch (spread)", "images/s"],
        rows,
        notes=[f"{options.epochs} epochs of each; JPEGs of {kilobytes:.0f} kB on average; required: at most 3 %"],
        packages=["torch", "timm", "simplejpeg"],
        raw=raw,
        options=options,
    )


if __name__ == "__main__":
    main()
