"""Resident memory of the two loaders: does the resident one hold a second copy of the set, does the streaming one grow.

Each measurement is a child process of its own, which reads its own memory from /proc (Linux only): the anonymous part
of its resident memory, which is what it allocated, without the code of libraries; for the streaming loader, that of
its worker processes too, as the sum of their proportional shares (PSS), so that shared pages count once.

Resident: linne opens the set, makes the batches and runs through epochs. The pixels of the set are there from opening
it, so what matters is what is added after that: less than half a set means no second copy. Sets of three sizes show
what grows with the set. Streaming: a folder of JPEGs made on the spot, read by two workers over several epochs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import measure

MIB = 2**20


def own_bytes() -> int:
    """Return the anonymous resident memory of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("error: /proc/self/status has no RssAnon; this benchmark needs Linux 4.5 or newer")


def family_bytes() -> int:
    """Return the proportional anonymous memory of this process and its children, in bytes."""
    total = 0
    for pid in [os.getpid(), *children()]:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:  # ended meanwhile
            continue
        for line in rollup.splitlines():
            if line.startswith("Pss_Anon:"):
                total += int(line.split()[1]) * 1024
    return total


def children() -> list[int]:
    found = []
    for task in Path("/proc/self/task").iterdir():
        found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


class Peak:
    """The highest memory seen by a thread that looks every few milliseconds while inside."""

    def __init__(self, read: Any, every: float) -> None:
        self._read, self._every, self._stop = read, every, threading.Event()
        self.bytes = 0

    def __enter__(self) -> Peak:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            self.bytes = max(self.bytes, self._read())


def prepare(source_name: str, loader: str, batch_size: int) -> tuple[Any, Any, Any]:
    """Return (source, recipe, device) for a run with `loader`."""
    from linne.planning import collect, make_plan

    overrides = {"data.loader": loader, "data.num_workers": 2, "data.val_fraction": "none", "device.num_threads": 1}
    given, reasons = collect(source_name, None, {"device.name": "cpu", "data.batch_size": batch_size}, overrides)
    plan = make_plan(given, reasons)
    return plan.source, plan.recipe, plan.device


def resident(options: argparse.Namespace) -> None:
    """Print the memory at each stage with the resident loader, from a process of its own."""
    measure.use_checkout()
    import torch  # noqa: F401  its own memory is there before the first reading

    import linne.training.loop  # noqa: F401
    from linne.data.loading.loader import make_batches

    prepare("digits", "resident", 32)  # imports what planning needs
    before = own_bytes()
    with Peak(own_bytes, 0.002) as opening:
        source, recipe, device = prepare(options.source, "resident", 128)
    opened = own_bytes()
    stores = {id(split.store): split.store for split in source.splits.values()}
    pixels = sum(store.array.nbytes for store in stores.values())
    with Peak(own_bytes, 0.002) as making:
        batches, _ = make_batches(source, recipe, device)
    made = own_bytes()
    after = []
    with Peak(own_bytes, 0.002) as running:
        for epoch in range(options.epochs):
            for _ in batches.epoch(epoch):
                pass
            after.append(own_bytes())
    names = {"opening": opening, "making": making, "running": running}
    peaks = {f"peak_{name}": peak.bytes - before for name, peak in names.items()}
    stages = {"opened": opened - before, "made": made - before, "epochs": [x - before for x in after]}
    measure.say(pixels=pixels, before=before, images=len(source.splits["train"]), **stages, **peaks)


def streaming(options: argparse.Namespace) -> None:
    """Print the memory after each epoch with the streaming loader, from a process of its own."""
    measure.use_checkout()
    from linne.data.loading.loader import make_batches

    source, recipe, device = prepare(options.source, "streaming", 32)
    batches, _ = make_batches(source, recipe, device)
    peaks, after = [], []
    for epoch in range(options.epochs):
        with Peak(family_bytes, 0.05) as peak:
            for _ in batches.epoch(epoch):
                pass
        peaks.append(peak.bytes)
        after.append(own_bytes())
    decoded = len(source.splits["train"]) * recipe.data.height * recipe.data.width * recipe.data.channels
    measure.say(images=len(source.splits["train"]), decoded=decoded, peaks=peaks, after=after)


def write_pictures(folder: Path, count: int, side: int) -> None:
    """Write `count` JPEGs of smooth noise in four classes."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for index in range(count):
        place = folder / f"class-{index % 4}"
        place.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(place / f"{index}.jpg")


def child(stage: str, source: str, epochs: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--stage", stage, "--source", source, "--epochs", str(epochs)]
    # Fewer arenas and no growing threshold: what is freed goes back, so that the readings are of live memory.
    tuned = {"MALLOC_ARENA_MAX": "2", "MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"}
    _, printed = measure.run_child(command, measure.checkout_env(**tuned, OMP_NUM_THREADS="1"))
    values: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return values


def main() -> None:
    parser = measure.parser(__doc__, data=True)
    parser.add_argument("--stage", choices=["resident", "streaming"], help=argparse.SUPPRESS)
    parser.add_argument("--source", help=argparse.SUPPRESS)
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args()
    if options.stage is not None:
        return resident(options) if options.stage == "resident" else streaming(options)
    epochs = 2 if options.quick else options.epochs
    counts = (1000,) if options.quick else (10_000, 20_000, 40_000)
    sources = [f"synthetic:classes=10,size=32,count={count}" for count in counts]
    if options.data is not None:
        sources += [f"fashion-mnist:{options.data}", f"cifar10:{options.data}"]
    raw: dict[str, Any] = {"resident": {name: child("resident", name, epochs) for name in sources}, "streaming": {}}
    with tempfile.TemporaryDirectory() as folder:
        for count in (64,) if options.quick else (1000, 4000):
            place = Path(folder) / str(count)
            write_pictures(place, count, 128)
            raw["streaming"][f"{count} JPEGs of 128 x 128"] = child("streaming", str(place), epochs)
    print_resident(raw["resident"], epochs, options)
    print_streaming(raw["streaming"], epochs, options)
    return None


def print_resident(results: dict[str, dict[str, Any]], epochs: int, options: argparse.Namespace) -> None:
    rows = []
    for name, found in results.items():
        pixels = found["pixels"]
        stages = [found["opened"], found["peak_opening"], found["made"], found["peak_running"], found["epochs"][-1]]
        extra = (found["peak_running"] - found["opened"]) / pixels
        shown = name if ":/" not in name else name.partition(":")[0]
        rows.append([shown, f"{pixels / MIB:.1f}", *(f"{x / MIB:.1f}" for x in stages), f"{extra:.2f}"])
    heads = ["set", "pixels", "opened", "peak while opening", "batches made", f"peak of {epochs} epochs", "after them"]
    measure.report(
        "Resident loader: anonymous memory beyond the imports, MiB",
        [*heads, "added after opening, in sets"],
        rows,
        notes=["`added after opening` is (peak of the epochs - opened) / pixels; a second copy would be 1"],
        packages=["torch", "numpy"],
        raw=results,
        options=options,
    )


def print_streaming(results: dict[str, dict[str, Any]], epochs: int, options: argparse.Namespace) -> None:
    rows = []
    for name, found in results.items():
        peaks = [peak / MIB for peak in found["peaks"]]
        steady = peaks[1:]
        growth = (steady[-1] - steady[0]) / max(len(steady) - 1, 1)
        cells = [f"{found['decoded'] / MIB:.0f}", f"{peaks[0]:.0f}", f"{steady[0]:.0f}", f"{steady[-1]:.0f}"]
        rows.append([name, *cells, f"{growth:+.2f}", f"{(found['after'][-1] - found['after'][0]) / MIB:+.2f}"])
    options.output = None if options.output is None else options.output.with_name(f"streaming-{options.output.name}")
    heads = ["set", "decoded, MiB", "peak of epoch 1", "of epoch 2", f"of epoch {epochs}", "growth an epoch, MiB"]
    measure.report(
        "Streaming loader with two workers: anonymous memory of the whole family, imports included, MiB",
        [*heads, "main process, first to last epoch"],
        rows,
        notes=["a loader that keeps what it decodes would grow by the second column"],
        packages=["torch", "numpy"],
        raw=results,
        options=options,
    )


if __name__ == "__main__":
    main()
