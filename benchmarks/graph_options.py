"""What a backend's own options are worth for one bundle: each setting in turn, many times over, in one process.

    python benchmarks/graph_options.py BUNDLE onnxruntime onnxruntime:spinning=false openvino openvino:batch=fixed

`cpu` is the time that all threads of this process spent, on work or on waiting busily: other programs do not change it
much. `latency` is what passed on the clock, and only means something where nothing else runs. `--pause` is the time
between two batches, as in a server that is not at its limit.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import numpy as np

from linne.bundle import open_bundle
from linne.host import processor_name
from linne.inference.backends.base import RunOptions
from linne.inference.predictor import Predictor


def opened(bundle: Path, setting: str, threads: int) -> Predictor:
    """Return the predictor of `backend:option=value,precision=bf16`."""
    backend, _, rest = setting.partition(":")
    options = dict(part.split("=") for part in rest.split(",") if part)
    precision = options.pop("precision", "fp32")
    how = RunOptions(device="cpu", precision=precision, num_threads=threads, options=options)  # type: ignore[arg-type]
    return Predictor.open(bundle, backend=backend, how=how)


def main() -> None:
    """Print a line a setting: median and range of the rounds' medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("settings", nargs="+", metavar="BACKEND[:OPTION=VALUE,...]")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--pause", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--runs", type=int, default=30)
    asked = parser.parse_args()
    spec = open_bundle(asked.bundle).input
    images = np.random.default_rng(0).normal(size=(asked.batch, spec.channels, spec.height, spec.width))
    images_NCHW = images.astype(np.float32)
    tried = {setting: opened(asked.bundle, setting, asked.threads) for setting in asked.settings}
    found: dict[str, list[tuple[float, float]]] = {setting: [] for setting in tried}
    for round_number in range(asked.rounds + 1):
        for setting, predictor in tried.items():
            cpu, latencies = time.process_time(), []
            for _ in range(asked.runs):
                started = time.perf_counter()
                predictor.backend.run(images_NCHW)
                latencies.append(time.perf_counter() - started)
                time.sleep(asked.pause)
            if round_number > 0:  # the first warms up
                spent = (time.process_time() - cpu) / asked.runs
                found[setting].append((1e3 * spent, 1e3 * statistics.median(latencies)))
    print(f"{processor_name()}, {asked.threads} threads, batch {asked.batch}, pause {asked.pause:g} s")
    for setting, rows in found.items():
        cpu_ms, latency_ms = ([row[i] for row in rows] for i in (0, 1))
        print(
            f"{setting:40} {tried[setting].backend.description:45} "
            f"cpu {statistics.median(cpu_ms):7.2f} ms ({min(cpu_ms):.2f} to {max(cpu_ms):.2f})  "
            f"latency {statistics.median(latency_ms):7.2f} ms ({min(latency_ms):.2f} to {max(latency_ms):.2f})"
        )


if __name__ == "__main__":
    main()
