"""How long `linne data check` takes, and how much memory: 60,000 small images, and photographs.

    python benchmarks/data_check.py --data DIR

DIR holds `mnist` and `cifar-10-batches-bin`; without it only photographs are checked. Those are made: 500 x 375 JPEGs
of smooth colours and noise, each different, of the size that photographs of that size have. A tenth of them come
first, so that memory that grew with the number of images would be seen.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import measure

GOALS = {"60,000 small images": 60, "10,000 photographs": 300}
"""Seconds on two cores."""
CHILD = """
import json, resource, sys, time
from linne.checking import check
from linne.data import open_source
source = open_source(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
report = check(source, num_threads=int(sys.argv[2]))
usage = resource.getrusage(resource.RUSAGE_SELF)
found = {finding.kind: len(finding.groups) for finding in report.findings}
print(json.dumps(dict(images=report.num_images, seconds=report.seconds, cpu=usage.ru_utime + usage.ru_stime,
    before_mib=before / 1024, peak_mib=usage.ru_maxrss / 1024, found=found)))
"""


def make_photographs(folder: Path, number: int) -> None:
    """Write `number` different 500 x 375 JPEGs in ten classes."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    grain = rng.normal(0, 14, (400, 600, 3))
    for n in range(number):
        path = folder / f"class-{n % 10}" / f"{n}.jpg"
        path.parent.mkdir(exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), np.float32)
        y, x = rng.integers(0, 25), rng.integers(0, 100)
        pixels = np.clip(smooth + grain[y : y + 375, x : x + 500], 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path, quality=88)


def check(source: str, threads: int) -> dict[str, object]:
    """Return what a check in a process of its own took and found."""
    command = [sys.executable, "-c", CHILD, source, str(threads)]
    _, out = measure.run_child(command, measure.checkout_env(OMP_NUM_THREADS="1"))
    values: dict[str, object] = json.loads(out)
    return values


def sources(options: argparse.Namespace, folder: Path) -> list[tuple[str, str]]:
    """Return what to check: what to call it, and what to type."""
    found = []
    if options.data:
        found = [("MNIST", f"mnist:{options.data}/mnist"), ("CIFAR-10", f"cifar10:{options.data}/cifar-10-batches-bin")]
    for number in (20, 60) if options.quick else (1_000, 10_000):
        (folder / str(number)).mkdir()
        make_photographs(folder / str(number), number)
        found.append((f"{number:,} photographs", str(folder / str(number))))
    return found


def main() -> None:
    """Check each source and print the table."""
    parser = measure.parser(__doc__ or "", data=True)
    parser.add_argument("--threads", type=int, default=2, help="how many decode (2)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = {name: check(source, options.threads) for name, source in sources(options, Path(folder))}
    rows = [
        [
            name,
            f"{r['images']:,}",
            f"{r['seconds']:.1f}",
            f"{r['cpu']:.1f}",
            f"{r['images'] / r['seconds']:,.0f}",
            f"{r['before_mib']:.0f}",
            f"{r['peak_mib']:.0f}",
            ", ".join(f"{kind} {number}" for kind, number in r["found"].items()) or "nothing",
        ]
        for name, r in results.items()
    ]
    heads = ["source", "images", "seconds", "CPU-s", "images/s", "MiB opened", "MiB peak", "found (groups)"]
    notes = [f"goals: {', '.join(f'{what} in {seconds} s' for what, seconds in GOALS.items())}"]
    notes.append(f"{options.threads} threads; sets of pixels are in memory as soon as they are opened")
    measure.report(
        "Checking a source", heads, rows, notes=notes, packages=("numpy", "pillow", "simplejpeg"), raw=results,
        options=options,
    )  # fmt: skip


if __name__ == "__main__":
    main()
