"""What linne's loop adds to a bare DDP loop of two processes that does the same operations on the same tensors.

As `loop_overhead.py`, with two gloo processes: both sides run one epoch after another in the same two processes, taking
turns, on the same parts of the same batches. The bare side is DDP around the network and a dozen lines. Batch norm is
over each process's part on both sides, since torch has none over all of them on a CPU.

The script starts its two processes by itself, with torchrun.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import measure

measure.use_checkout()

import torch  # noqa: E402
from loop_overhead import Stopwatch, fresh_model, fresh_optimizer  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from linne.data.loading.loader import make_batches  # noqa: E402
from linne.data.source import Source  # noqa: E402
from linne.device import Device  # noqa: E402
from linne.log import Run  # noqa: E402
from linne.planning import collect, make_plan  # noqa: E402
from linne.recipe import Recipe  # noqa: E402
from linne.training.distributed import World, joined  # noqa: E402
from linne.training.loop import train  # noqa: E402
from linne.training.schedule import lr_factor  # noqa: E402

TASKS = {
    "small": ("synthetic:classes=10,size=28,channels=1,count={}", "fashion-mnist-dense", (1000, 20_000), {}),
    "large": ("synthetic:classes=10,size=32,count={}", None, (600, 4000), {"data.batch_size": 128}),
}


def linne_epoch(recipe: Recipe, source: Source, world: World, folder: str) -> measure.Timing:
    """Return what one epoch takes in linne's own loop, in this process."""
    watch = Stopwatch(quiet=True)
    os.makedirs(folder, exist_ok=True)
    run = Run(Path(folder), writes=world.is_first)
    train(recipe, source, run, watch, world=world)
    run.close()
    return watch.timing


def bare_epoch(recipe: Recipe, source: Source, world: World) -> measure.Timing:
    """Return what one epoch of the same operations takes in a bare DDP loop, in this process."""
    batches, _ = make_batches(source, recipe, Device.pick("cpu"), share=world.share)
    model = fresh_model(recipe, source)
    ddp = torch.nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    optimizer, num_steps = fresh_optimizer(model, recipe), len(batches)
    losses: list[torch.Tensor] = []
    with measure.timed() as timing:
        for step, batch in enumerate(batches.epoch(0)):
            for group in optimizer.param_groups:
                group["lr"] = recipe.optim.lr * lr_factor(step, num_steps, recipe.optim)
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(ddp(batch.images_NCHW), batch.labels_N, label_smoothing=recipe.optim.label_smoothing)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            if len(losses) == recipe.log_every:
                torch.stack(losses).mean().item()
                losses.clear()
    return timing


def compare(name: str, quick: bool, rounds: int, world: World, folder: str) -> dict[str, Any]:
    """Return the timings of both sides for one size of step."""
    typed, recipe_name, counts, extra = TASKS[name]
    fixed = {"data.val_fraction": "none", "optim.epochs": 1, "log_every": 50, "device.precision": "fp32"}
    fixed |= {"model.sync_batch_norm": False, "device.num_threads": 1, "optim.schedule": "constant", **extra}
    source_name = typed.format(counts[0] if quick else counts[1])
    plan = make_plan(*collect(source_name, recipe_name, {"device.name": "cpu"}, fixed))
    recipe, source = plan.recipe, plan.source
    torch.set_num_threads(1)
    sides = {
        "linne's loop": lambda: linne_epoch(recipe, source, world, folder),
        "bare DDP": lambda: bare_epoch(recipe, source, world),
    }
    measure.interleave(1, sides)  # first calls are slow
    timings = measure.interleave(rounds, sides)
    num_steps = -(-len(source.splits["train"]) // recipe.data.batch_size)
    return {"steps": num_steps, "timings": {side: [t.to_dict() for t in found] for side, found in timings.items()}}


def report(raw: dict[str, Any], options: argparse.Namespace, rounds: int) -> None:
    """Print the table."""
    rows, ratios = [], []
    for name, found in raw.items():
        ours, bare = (found["timings"][side] for side in ("linne's loop", "bare DDP"))
        pairs = [a["wall_seconds"] / b["wall_seconds"] for a, b in zip(ours, bare, strict=True)]
        ratios.append(statistics.median(pairs))
        for side, timings, ratio in (("linne's loop", ours, ""), ("bare DDP", bare, measure.middle(pairs, 3))):
            wall = [t["wall_seconds"] / found["steps"] * 1e3 for t in timings]
            rows.append([side, name, measure.middle(wall, 3), ratio])
    measure.report(
        "linne's loop over bare DDP, two gloo processes",
        ["side", "step", "wall ms a step, median (spread)", "linne / this, wall"],
        rows,
        notes=[f"{rounds} epochs of each, taking turns in the same two processes; ratios are medians over turns"],
        packages=["torch"],
        raw=raw,
        options=options,
    )


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    if "RANK" not in os.environ:
        words = ["--standalone", "--nproc-per-node", "2", __file__, *sys.argv[1:]]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        sys.exit(subprocess.call([sys.executable, "-m", "torch.distributed.run", *words], env=environment))
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    rounds = 2 if options.quick else options.rounds
    with joined() as world, tempfile.TemporaryDirectory() as folder:
        raw = {name: compare(name, options.quick, rounds, world, folder) for name in TASKS}
    if world.is_first:
        report(raw, options, rounds)


if __name__ == "__main__":
    main()
