"""What linne's training loop adds to a bare loop that does the same operations on the same tensors.

Both sides run one epoch after another in one process, taking turns: the same network from the same weights, the same
batches from the same resident loader (shuffled and augmented alike), the same loss, torch's fused optimiser, the same
schedule, losses read equally often. linne's side is `linne.training.loop.train`, timed from the start of the first
step to the end of the epoch: it also checks losses, writes metrics.jsonl and copies the weights to keep. The bare side
is the `bare_epoch` below and calls nothing of linne's but the loader; a second bare side, for the small step, also
picks and normalises its batches by hand.

A small step shows the cost of the loop, since there is little else; a large one shows that it vanishes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import measure

measure.use_checkout()

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from linne import models  # noqa: E402
from linne.data.loading.loader import make_batches  # noqa: E402
from linne.data.loading.order import permutation  # noqa: E402
from linne.data.source import Source  # noqa: E402
from linne.device import Device  # noqa: E402
from linne.log import Narrator, Run  # noqa: E402
from linne.planning import collect, make_plan  # noqa: E402
from linne.preprocess import scale_and_bias  # noqa: E402
from linne.recipe import Recipe  # noqa: E402
from linne.training.loop import train  # noqa: E402
from linne.training.schedule import lr_factor  # noqa: E402


class Stopwatch(Narrator):
    """Times the epoch of a quiet training, from the first step to the words that end it."""

    def epoch_header(self) -> None:
        self.start, self.start_cpu = time.perf_counter(), measure.cpu_seconds()

    def epoch(self, row: Any, epochs: int, images_per_second: float) -> None:
        self.timing = measure.Timing(time.perf_counter() - self.start, measure.cpu_seconds() - self.start_cpu)


def linne_epoch(recipe: Recipe, source: Source) -> measure.Timing:
    """Return what one epoch takes in linne's own loop."""
    watch = Stopwatch(quiet=True)
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", "overhead")
        train(recipe, source, run, watch)
        run.close()
    return watch.timing


def fresh_model(recipe: Recipe, source: Source) -> nn.Module:
    ref = models.describe_recipe(recipe, source.num_classes)
    torch.manual_seed(recipe.seed)
    model = models.build(ref)
    return model.to(memory_format=torch.channels_last) if recipe.device.channels_last else model


def fresh_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    optim = recipe.optim
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": optim.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if optim.weight_decay == 0:
        groups = [{"params": list(model.parameters()), "weight_decay": 0.0}]
    if optim.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, nesterov=True, fused=True)
    return torch.optim.AdamW(groups, lr=optim.lr, betas=(optim.momentum, optim.beta2), fused=True)


def bare_epoch(
    recipe: Recipe, source: Source, pairs: Callable[[], Iterable[tuple[torch.Tensor, torch.Tensor]]], num_steps: int
) -> measure.Timing:
    """Return what one epoch of the same operations takes in a loop of a dozen lines."""
    model = fresh_model(recipe, source)
    optimizer = fresh_optimizer(model, recipe)
    lrs = [recipe.optim.lr * lr_factor(step, num_steps, recipe.optim) for step in range(num_steps)]
    smoothing = recipe.optim.label_smoothing
    losses: list[torch.Tensor] = []
    with measure.timed() as timing:
        for lr, (images, labels) in zip(lrs, pairs(), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(model(images), labels, label_smoothing=smoothing)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            if len(losses) == recipe.log_every:
                torch.stack(losses).mean().item()
                losses.clear()
    return timing


def by_hand(recipe: Recipe, source: Source) -> Callable[[], Iterable[tuple[torch.Tensor, torch.Tensor]]]:
    """Return unaugmented batches picked and normalised as one would write it."""
    split = source.splits["train"]
    assert split.store.array is not None
    images_NCHW = torch.from_numpy(split.store.array[split.indices_N].transpose(0, 3, 1, 2).copy())
    labels_N = torch.from_numpy(split.labels_N)
    from linne.data.loading.loader import input_spec

    scale, bias = (torch.from_numpy(x).view(1, -1, 1, 1) for x in scale_and_bias(input_spec(recipe)))

    def pairs() -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        order = torch.from_numpy(permutation(recipe.seed, 0, len(labels_N)))
        for chosen in order.split(recipe.data.batch_size):
            yield images_NCHW[chosen].float().mul_(scale).add_(bias), labels_N[chosen]

    return pairs


def compare(options: argparse.Namespace, name: str, rounds: int) -> dict[str, Any]:
    """Return the timings of each side for one size of step."""
    if name == "small":
        typed = f"synthetic:classes=10,size=28,channels=1,count={1000 if options.quick else 40_000}"
        recipe_name, extra = "fashion-mnist-dense", {}
    else:
        typed = f"synthetic:classes=10,size=32,count={600 if options.quick else 6000}"
        recipe_name, extra = None, {"optim.schedule": "one-cycle", "data.batch_size": 128}
    # The bare loop computes in fp32.
    fixed = {"data.val_fraction": "none", "optim.epochs": 1, "log_every": 50, "device.precision": "fp32"}
    overrides = {**fixed, **extra}
    given, reasons = collect(typed, recipe_name, {"device.name": "cpu"}, overrides)
    plan = make_plan(given, reasons)
    recipe, source = plan.recipe, plan.source
    device = Device.pick("cpu")
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.device.num_threads or torch.get_num_threads())
    batches, _ = make_batches(source, recipe, device)

    def from_loader() -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        return ((batch.images_NCHW, batch.labels_N) for batch in batches.epoch(0))

    def loader_alone() -> measure.Timing:
        with measure.timed() as timing:
            for _ in batches.epoch(0):
                pass
        return timing

    sides = {
        "linne's loop": lambda: linne_epoch(recipe, source),
        "bare loop, linne's batches": lambda: bare_epoch(recipe, source, from_loader, len(batches)),
        "linne's batches alone": loader_alone,
    }
    if name == "small":
        sides["bare loop, batches by hand"] = lambda: bare_epoch(recipe, source, by_hand(recipe, source), len(batches))
    measure.interleave(1, sides)  # first calls are slow
    timings = measure.interleave(rounds, sides)
    facts = {
        "threads": recipe.device.num_threads,
        "model": recipe.model.name,
        "batch": recipe.data.batch_size,
        "size": f"{recipe.data.channels}x{recipe.data.height}x{recipe.data.width}",
        "optimizer": recipe.optim.optimizer,
        "steps": len(batches),
        "augmented": bool(recipe.augment.flip or recipe.augment.crop_padding),
    }
    return {**facts, "timings": {side: [t.to_dict() for t in found] for side, found in timings.items()}}


def make_rows(name: str, found: dict[str, Any]) -> list[list[str]]:
    rows = []
    ours = found["timings"]["linne's loop"]
    for side, timings in found["timings"].items():
        cpu, wall = ([t[key] / found["steps"] * 1e3 for t in timings] for key in ("cpu_seconds", "wall_seconds"))
        ratios = {}
        for key in ("cpu_seconds", "wall_seconds"):
            pairs = zip(ours, timings, strict=True)
            ratios[key] = [a[key] / b[key] for a, b in pairs] if side.startswith("bare") else []
        shown = [measure.middle(r, 3) if r else "" for r in ratios.values()]
        rows.append([side, name, measure.middle(cpu, 3), measure.middle(wall, 3), *shown])
    return rows


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    rounds = 2 if options.quick else options.rounds
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    raw = {name: compare(options, name, rounds) for name in ("small", "large")}
    notes = [f"{rounds} epochs of each, taking turns in one process; ratios are medians over turns"]
    for name, found in raw.items():
        facts = [f"{found['model']}, {found['size']}, batch {found['batch']}, {found['optimizer']}"]
        facts += [f"{found['steps']} steps an epoch, {'augmented' if found['augmented'] else 'not augmented'}"]
        notes.append(f"{name} step: {', '.join(facts)}, threads {found['threads']}")
    overhead = statistics.median(
        a["cpu_seconds"] / b["cpu_seconds"]
        for found in raw.values()
        for a, b in zip(found["timings"]["linne's loop"], found["timings"]["bare loop, linne's batches"], strict=True)
    )
    heads = ["side", "step", "CPU-ms a step, median (spread)", "wall ms a step"]
    measure.report(
        "linne's loop over a bare loop",
        [*heads, "linne / this, CPU", "linne / this, wall"],
        [row for name, found in raw.items() for row in make_rows(name, found)],
        notes=[*notes, f"median ratio over both sizes, CPU: {overhead:.3f}"],
        packages=["torch"],
        raw=raw,
        options=options,
    )


if __name__ == "__main__":
    main()
