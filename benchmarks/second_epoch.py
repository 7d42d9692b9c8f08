"""A folder of photographs read for the first time, and again from kept pixels: images a second, without the model.

First epoch: the streaming loader reads, decodes and resizes every JPEG with two threads, from a warm cache. Second:
the resident loader, from memory. Next run: a new loader finds the decoded pixels that the run before kept on disk,
checks and maps them, and gives one epoch; finding them counts. All give normalised float batches of 64.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import measure
from photos import mean_kilobytes, write_photos

measure.use_checkout()

import torch  # noqa: E402

from linne.data.loading.loader import Batches, input_spec, make_batches  # noqa: E402
from linne.data.loading.pixel_cache import PixelCache  # noqa: E402
from linne.data.loading.resident import load_pixels  # noqa: E402
from linne.data.source import Source  # noqa: E402
from linne.device import Device  # noqa: E402
from linne.fast_resize import torch_resize  # noqa: E402
from linne.planning import collect, make_plan  # noqa: E402
from linne.recipe import Recipe  # noqa: E402

CPU = Device.pick("cpu")


def plan_of(folder: Path, side: int) -> tuple[Recipe, Source]:
    """Return an unaugmented recipe for images of `side` pixels, streamed by two threads."""
    overrides = {"data.loader": "streaming", "data.num_workers": 2, "data.batch_size": 64, "data.val_fraction": "none"}
    overrides |= {"data.height": side, "data.width": side, "data.crop_pct": 0.875, "data.test_fraction": 0.01}
    overrides |= {"augment.flip": False, "augment.crop_padding": "none", "device.channels_last": True}
    given, reasons = collect(str(folder), None, {"device.name": "cpu"}, overrides)
    plan = make_plan(given, reasons)
    return plan.recipe, plan.source


def epoch_of(batches: Batches) -> int:
    return sum(len(batch.labels_N) for batch in batches.epoch(0))


def compare(folder: Path, side: int, rounds: int) -> dict[str, Any]:
    """Return images a second of each way, by name."""
    recipe, source = plan_of(folder, side)
    resident = recipe.override({"data.loader": "resident"})
    streamed, _ = make_batches(source, recipe, CPU)
    held, _ = make_batches(source, resident.override({"data.cache": False}), CPU)
    # What a run does by itself when decoding takes more than a few seconds.
    load_pixels([source.splits["train"]], input_spec(recipe), 10, torch_resize, cache=PixelCache(worth_seconds=0))

    def next_run() -> int:
        return epoch_of(make_batches(source, resident, CPU)[0])

    def rate(run: Any) -> float:
        with measure.timed() as timing:
            count = run()
        return float(count / timing.wall)

    sides = {
        "first epoch, decoded as it goes": lambda: rate(lambda: epoch_of(streamed)),
        "second epoch, from memory": lambda: rate(lambda: epoch_of(held)),
        "next run, from kept pixels": lambda: rate(next_run),
    }
    measure.interleave(1, sides)
    return measure.interleave(rounds, sides)


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--folder", type=Path, help="photographs to read, one folder a class; made when not given")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(2)
    raw, rows = {}, []
    with tempfile.TemporaryDirectory() as made:
        os.environ["LINNE_CACHE"] = str(Path(made) / "cache")
        folder = options.folder or write_photos(Path(made) / "photos", 100 if options.quick else 1500)
        for side in (64, 224):
            found = raw[str(side)] = compare(folder, side, 1 if options.quick else options.rounds)
            first = next(iter(found.values()))
            for name, rates in found.items():
                ratios = [rate / before for rate, before in zip(rates, first, strict=True)]
                gain = "" if rates is first else measure.middle(ratios, 1)
                rows.append([name, str(side), measure.middle(rates, 0), gain])
        kilobytes = mean_kilobytes(folder)
    measure.report(
        "The second epoch and the next run against the first epoch",
        ["epoch", "pixels a side", "images/s, median (spread)", "times the first"],
        rows,
        notes=[
            f"{options.rounds} epochs each, taking turns; JPEGs of {kilobytes:.0f} kB on average, warm cache",
            "required: 8 times the first",
        ],
        packages=["torch", "simplejpeg"],
        raw=raw,
        options=options,
    )


if __name__ == "__main__":
    main()
