"""An epoch from packed shards against one from the folder they were packed from: what `linne data pack` buys.

Sides: a folder of photos, the same packed as JPEG and as raw pixels with a shorter edge of 256, and the resident loader
after its first epoch for comparison. Each epoch runs through linne's own loader to normalised batches of 224 pixels,
two decoding threads, warm file cache, no model. The sides take turns. Times of packing, and of opening, are beside it.

The photos are those of `photos.py`, 500 x 375 pixels, or those in `--images`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import measure
from photos import write_photos

SIZE, CROP_PCT, THREADS = 224, 0.875, 2


def batches_of(source: str, loader: str) -> Any:
    """Return what training would loop over."""
    from linne.data.loading.loader import make_batches
    from linne.planning import collect, make_plan

    overrides = {
        "data.loader": loader,
        "data.num_workers": THREADS,
        "data.height": SIZE,
        "data.width": SIZE,
        "data.crop_pct": CROP_PCT,
        "data.cache": False,
        "augment.resized_crop_area": None,
        "augment.flip": False,
        "augment.crop_padding": None,
        "augment.cutout": None,
        "device.num_threads": 1,
    }
    given, reasons = collect(source, None, {"device.name": "cpu", "data.batch_size": 64}, overrides)
    plan = make_plan(given, reasons)
    return make_batches(plan.source, plan.recipe, plan.device)[0]


def epoch(batches: Any, counter: list[int]) -> measure.Timing:
    """Return what one epoch took; each has another order."""
    counter[0] += 1
    with measure.timed() as timing:
        for _ in batches.epoch(counter[0]):
            pass
    return timing


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--images", type=Path, metavar="DIR", help="your photos, one sub-folder a class")
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    options = parser.parse_args()
    measure.use_checkout()
    with tempfile.TemporaryDirectory() as scratch:
        run(options, Path(scratch))


def run(options: argparse.Namespace, scratch: Path) -> None:
    """Pack, run epochs in turn, and print the table."""
    from linne.data import open_source
    from linne.data.shards.pack import pack
    from linne.data.shards.pack_image import PackSettings

    folder = options.images or scratch / "photos"
    if options.images is None:
        write_photos(folder, 60 if options.quick else 1500)
    source = open_source(str(folder))
    names, sizes, packing = {"folder": str(folder)}, {"folder": folder_bytes(folder)}, {}
    for form in ("jpg", "raw"):
        with measure.timed() as packing[form]:
            result = pack(source, scratch / form, PackSettings(format=form), num_threads=THREADS)
        names[f"packed {form}"], sizes[f"packed {form}"] = str(scratch / form), result.size_bytes
    sides = {name: batches_of(place, "streaming") for name, place in names.items()}
    sides["resident"] = batches_of(str(folder), "resident")
    num_images, counter = sides["folder"].num_examples, [0]
    for batches in sides.values():
        epoch(batches, counter)
    works = {name: lambda batches=batches: epoch(batches, counter) for name, batches in sides.items()}
    timings = measure.interleave(1 if options.quick else options.rounds, works)
    slowest = statistics.median(timing.wall for timing in timings["folder"])
    rows = []
    for name, results in timings.items():
        rates = [num_images / timing.wall for timing in results]
        per_cpu = [num_images / timing.cpu for timing in results]
        gain = slowest / statistics.median(timing.wall for timing in results)
        size = f"{sizes[name] / 1e6:,.0f}" if name in sizes else "in memory"
        rows.append([name, measure.middle(rates, 0), measure.middle(per_cpu, 0), f"{gain:.1f}x", size])
    notes = [f"{num_images:,} images an epoch, n = {len(timings['folder'])}, median (lowest-highest)"]
    notes += [f"packing as {form}: {timing.wall:.1f} s, {timing.cpu:.1f} CPU-s" for form, timing in packing.items()]
    measure.report(
        "An epoch from packed shards, to normalised batches of 224 pixels",
        ["epoch from", "images/s", "images/CPU-s", "against the folder", "MB"],
        rows,
        notes=notes,
        packages=("torch", "simplejpeg", "pillow", "numpy"),
        raw={name: [timing.to_dict() for timing in results] for name, results in timings.items()},
        options=options,
    )


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
