"""Opening a folder of a million images: linne from its index and without one, and torchvision's ImageFolder.

Files are small but real images, 1,000 in each class, made in a temporary folder (or in --folder, which is then kept).
All sides run in one process, warm: names and sizes are in the system's cache. linne's side is the whole of
`open_source`: classes, the three splits, the fingerprint, and the check that the index still holds. ImageFolder gives a
list of paths and class numbers.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import measure

IMAGE = b"P6 10 10 255\n" + bytes(k % 251 for k in range(300))


def make(root: Path, num_classes: int, each: int) -> None:
    for k in range(num_classes):
        folder = root / f"n{k:08}"
        folder.mkdir(parents=True)
        for j in range(each):
            descriptor = os.open(folder / f"n{k:08}_{j:06}.ppm", os.O_CREAT | os.O_WRONLY)
            os.write(descriptor, IMAGE)
            os.close(descriptor)


def open_linne(root: Path) -> measure.Timing:
    from linne.data import open_source

    with measure.timed() as timing:
        source = open_source(str(root))
    assert not any("looked through" in note for note in source.notes), source.notes
    return timing


def open_torchvision(root: Path) -> measure.Timing:
    from torchvision.datasets import ImageFolder

    with measure.timed() as timing:
        ImageFolder(str(root))
    return timing


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="make the files here, or find them here, and keep them"
    )
    options = parser.parse_args()
    measure.use_checkout()
    each, num_files = (100, 30_000) if options.quick else (1_000, options.files)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["LINNE_CACHE"] = str(Path(scratch, "cache"))
        root = options.folder or Path(scratch, "images")
        if not root.exists():
            print(f"making {num_files:,} files in {root} ...", file=sys.stderr)
            make(root, num_files // each, each)
            time.sleep(2.5)  # files younger than two seconds are not indexed
        open_torchvision(root)  # all names are in the system's cache from here on
        first = []
        for _ in range(1 if options.quick else 2):
            shutil.rmtree(os.environ["LINNE_CACHE"], ignore_errors=True)
            first.append(open_linne(root))
        size_bytes = sum(path.stat().st_size for path in Path(os.environ["LINNE_CACHE"], "index").iterdir())
        sides = {"torchvision ImageFolder": lambda: open_torchvision(root), "linne": lambda: open_linne(root)}
        results = measure.interleave(2 if options.quick else options.rounds, sides)
    rows = [
        [
            name,
            measure.middle([t.wall for t in timings], 3),
            measure.middle([t.cpu for t in timings], 3),
            str(len(timings)),
        ]
        for name, timings in {
            "linne, from its index": results["linne"],
            "linne, the first time (lists, splits, writes the index)": first,
            "torchvision ImageFolder": results["torchvision ImageFolder"],
        }.items()
    ]
    ratio = {
        kind: statistics.median(getattr(t, kind) for t in results["torchvision ImageFolder"])
        / statistics.median(getattr(t, kind) for t in results["linne"])
        for kind in ("wall", "cpu")
    }
    measure.report(
        f"Opening a folder of {num_files:,} images in {num_files // each:,} classes",
        ["", "wall s", "CPU-s", "n"],
        rows,
        notes=[
            f"ImageFolder over linne from its index: {ratio['wall']:.0f}x wall, {ratio['cpu']:.0f}x CPU",
            f"the index and the splits kept beside it take {size_bytes / 2**20:.1f} MiB",
        ],
        packages=["numpy", "torchvision"],
        raw={name: [t.to_dict() for t in timings] for name, timings in {**results, "linne first": first}.items()},
        options=options,
    )


if __name__ == "__main__":
    main()
