"""Networks as they are deployed: torch as it comes and compiled, and linne's backends, in turns.

Each way runs in a process of its own; all take turns, so that a drift of the machine meets all alike. Images come from
the CPU's memory and logits go back to it, as in `linne predict`, on every device.

On the CPU the roof is what a large matrix product reaches with as many threads: what a network takes at least, by its
multiplications. On a GPU of NVIDIA's the first way is torch in eager AMP, which the others are compared with:

    python benchmarks/deploy_networks.py --device cuda --batch 256 --networks "ResNet-50,ViT-B/16,Inception v3"
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import deployed
import measure


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keep the bundles there, for the next call")
    parser.add_argument("--networks", default=",".join(deployed.NETWORKS), help="names, or bundles, with commas")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn")
    parser.add_argument(
        "--precisions",
        help="with commas; fp32 on a CPU, else fp16; int8 exports must be there already",
    )
    options = parser.parse_args()
    options.precisions = options.precisions or ("fp32" if options.device == "cpu" else "fp16")
    if options.quick:
        options.networks, options.turns, options.seconds = "SqueezeNet 1.1", 6, 0.1
    measure.use_checkout()
    rows, raw = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for title in options.networks.split(","):
            found = one_network(title, folder, options)
            raw[title] = found
            rows += [[title, *row] for row in found["rows"]]
    on = f"a CPU, {options.threads} threads" if options.device == "cpu" else f"`{options.device}`"
    measure.report(
        f"Networks deployed on {on}, batch {options.batch}",
        [*HEADS, *(["of the roof"] if options.device == "cpu" else []), "x torch"],
        rows,
        notes=[
            f"{options.turns} turns of {options.seconds:g} s each, in processes of their own; warm but for `first ms`",
            "ratio to the first way: median of the turns' ratios and its 95 % interval",
            "weights are drawn: as fast as trained ones",
            "roof: multiply-adds of convolutions and linear layers, over the best rate of a 2048 x 2048 product by "
            "torch, NumPy and ONNX Runtime"
            if options.device == "cpu"
            else "torch computes in eager AMP, `compile` compiled; all times hold the copies to and from the GPU",
        ],
        packages=["torch", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt"],
        raw=raw,
        options=options,
    )


HEADS = ["network", "way", "ready s", "first ms", "p50 ms", "p95 ms", "p99 ms", "images/s", "MiB"]


def ways_on_cpu(options: Any) -> list[Any]:
    """Return torch as it comes, torch compiled, and the graphs."""

    def way(backend: str, precision: str = "fp32", **more: str) -> Any:
        return candidate(options, backend, precision, options.threads, more)

    ways = [way("torch"), way("torch", compile="default", channels_last="true")]
    for precision in options.precisions.split(","):
        backends = ("openvino",) if precision == "bf16" else ("onnxruntime", "openvino")
        ways += [way(backend, precision) for backend in backends]
    return ways


def ways_on_gpu(options: Any) -> list[Any]:
    """Return, for each precision, torch in eager AMP, compiled, and the graph by ONNX Runtime and by TensorRT."""
    size = next((size for size in (1, 2, 4, 8, 16, 32, 64, 128) if size >= options.batch), 256)
    ways = []
    for precision in options.precisions.split(","):
        for backend, more in (
            ("torch", {}),
            ("torch", {"channels_last": "true"}),
            ("torch", {"compile": "default", "channels_last": "true"}),
            ("onnxruntime", {}),
            ("tensorrt", {"batch_size": str(size)}),
            ("tensorrt", {"batch_size": str(size), "level": "5", "cuda_graph": "true"}),
        ):
            if backend != "onnxruntime" or precision != "bf16":
                ways.append(candidate(options, backend, precision, None, more))
    return ways


def candidate(options: Any, backend: str, precision: str, threads: int | None, more: dict[str, str]) -> Any:
    """Return one way to run a network."""
    from linne.inference.backends.base import RunOptions
    from linne.tuning.candidate import Candidate

    how = RunOptions(device=options.device, num_threads=threads, precision=precision, options=more)
    return Candidate(backend=backend, how=how, batch=options.batch)


def one_network(title: str, folder: Path, options: Any) -> dict[str, Any]:
    """Return the rows of a network's ways."""
    from linne.tuning.candidate import Candidate
    from linne.tuning.runner import Refused, Runner
    from linne.tuning.statistics import compare, times_of

    on_cpu = options.device == "cpu"
    # OpenVINO computes in bf16 what is stored in fp32.
    made = [each for each in options.precisions.split(",") if each != "int8" and (each != "bf16" or not on_cpu)]
    named = deployed.NETWORKS.get(title)
    exports = tuple(dict.fromkeys(["fp32", *made]))
    bundle = Path(title) if named is None else deployed.bundle_of(named, folder, precisions=exports)
    ways = ways_on_cpu(options) if on_cpu else ways_on_gpu(options)
    samples: dict[Candidate, list[float]] = {}
    medians: dict[Candidate, list[float]] = {}
    peaks: dict[Candidate, float] = {}
    roofs: list[float] = []
    with ExitStack() as stack:
        runners: dict[Candidate, Runner] = {}
        for one in ways:
            try:
                runners[one] = stack.enter_context(Runner(bundle, one))
            except Refused as refusal:
                print(f"{title}, {one.words}: {refusal}")
        if ways[0] not in runners:
            sys.exit(f"error: {title} cannot be run by {ways[0].words}, which the others are compared with")
        for _ in range(options.turns):
            roofs += [matrix_rate(options.threads)] if on_cpu else []
            for one, runner in runners.items():
                turn = runner.run(options.seconds)
                samples.setdefault(one, []).extend(turn.times_ms)
                medians.setdefault(one, []).append(statistics.median(turn.times_ms))
                peaks[one] = turn.peak_mib or 0.0
    gmacs = multiply_adds(bundle) if on_cpu else 0.0
    rate = statistics.median(roofs) if on_cpu else 1.0
    rows = []
    for one, runner in runners.items():
        times = times_of(samples[one], options.batch)
        against = compare(medians[ways[0]], medians[one])
        share = 2 * gmacs * times.images_per_second / rate
        rows.append(
            [
                one.words,
                f"{runner.open_ms / 1000:.2f}",
                f"{runner.first_ms:.1f}",
                f"{times.p50_ms:.2f}",
                f"{times.p95_ms:.2f}",
                f"{times.p99_ms:.2f}",
                f"{times.images_per_second:.1f}",
                f"{peaks[one]:.0f}",
                *([f"{share:.0%}"] if on_cpu else []),
                f"{against.ratio:.2f} ({against.low:.2f}-{against.high:.2f})",
            ]
        )
    return {"rows": rows, "gmacs": gmacs, "gflops_roof": rate, "medians_ms": {k.words: v for k, v in medians.items()}}


def matrix_rate(threads: int, side: int = 2048) -> float:
    """Return the GFLOP/s of a large fp32 matrix product, by whichever of torch, NumPy and ONNX Runtime is fastest."""
    import numpy as np
    import torch

    torch.set_num_threads(threads)
    a, b = (np.random.default_rng(seed).normal(0, 1, (side, side)).astype(np.float32) for seed in (0, 1))
    first, second, product = torch.from_numpy(a), torch.from_numpy(b), by_onnx_runtime(b, threads)
    best = float("inf")
    for multiply in (lambda: first @ second, lambda: a @ b, lambda: product(a)):
        multiply()
        for _ in range(5):
            start = time.perf_counter()
            multiply()
            best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best / 1e9


def by_onnx_runtime(b: Any, threads: int) -> Callable[[Any], Any]:
    """Return what multiplies a matrix by `b`, a weight of a graph."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, b.shape) for name in ("a", "c")]
    node = helper.make_node("MatMul", ["a", "b"], ["c"])
    graph = helper.make_graph([node], "product", shapes[:1], shapes[1:], [numpy_helper.from_array(b, "b")])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda a: session.run(None, {"a": a})


def multiply_adds(bundle: Path) -> float:
    """Return the GMACs of one image, by torch's own counter of operations."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from linne.bundle import open_bundle
    from linne.models.from_bundle import network_of

    opened = open_bundle(bundle)
    network = network_of(opened)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(torch.zeros(1, opened.input.channels, opened.input.height, opened.input.width))
    return counter.get_total_flops() / 2e9


if __name__ == "__main__":
    main()
