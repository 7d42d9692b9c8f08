"""MNIST: PyTorch's first example and linne's recipe `mnist`, accuracy and time after each epoch.

The example (pytorch/examples, mnist/main.py), written anew from its description: two 3x3 convolutions to 32 and 64
channels, pooling, dropout 0.25, dense 128, dropout 0.5, dense 10; Adadelta with lr 1, multiplied by 0.7 after each
epoch; batches of 64; 14 epochs; every image a PIL image through ToTensor and Normalize(0.1307, 0.3081). On a CPU the
example loads in the main process and never shuffles; so does this, and `--shuffle` makes it shuffle. It is tested
after every epoch, which is left out of its time.

linne: `linne train mnist --recipe mnist`, run to its end with a seed a run, before and after the example. Its time is
that of the whole training, and that of the whole program beside it; its accuracy is that of the test images, looked
at once. The recipe was found on images held out of the training images, not on the test images.

Time to equal accuracy is that of the example's first epoch that is as accurate as linne's median run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measure
from cifar10_baselines import linne_run

EPOCHS = 14
BATCH = 64
TEST_BATCH = 1000
TARGET = 0.99


def example_epochs(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Train as the example does; yield seconds of training and test accuracy of each epoch."""
    measure.use_checkout()
    import torch
    from PIL import Image
    from torch import nn
    from torch.nn import functional
    from torchvision import transforms

    from linne.data import open_source

    source = open_source(measure.source_name("mnist", options.data), val_fraction=None)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    limit = 640 if options.quick else None

    class Digits(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
        def __init__(self, split_name: str) -> None:
            split = source.splits[split_name]
            assert split.store.array is not None
            self.images = split.store.array[split.indices_N[:limit], ..., 0]
            self.labels = split.labels_N[:limit].tolist()

        def __len__(self) -> int:
            return len(self.labels)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return transform(Image.fromarray(self.images[index])), self.labels[index]

    torch.manual_seed(options.seed)
    train = torch.utils.data.DataLoader(Digits("train"), BATCH, shuffle=options.shuffle, num_workers=options.workers)
    test = torch.utils.data.DataLoader(Digits("test"), TEST_BATCH, num_workers=options.workers)
    features = [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25)]
    dense = [nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10), nn.LogSoftmax(1)]
    model = nn.Sequential(*features, *dense)
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)
    for _ in range(1 if options.quick else options.example_epochs):
        wall, cpu = time.perf_counter(), measure.cpu_seconds()
        model.train()
        for images_NCHW, labels_N in train:
            optimizer.zero_grad()
            functional.nll_loss(model(images_NCHW), labels_N).backward()
            optimizer.step()
        scheduler.step()
        wall, cpu = time.perf_counter() - wall, measure.cpu_seconds() - cpu
        model.eval()
        with torch.no_grad():
            right = sum(int((model(x).argmax(1) == y).sum()) for x, y in test)
        yield {"wall_seconds": wall, "cpu_seconds": cpu, "accuracy": right / len(test.dataset)}  # type: ignore[arg-type]


def example_run(options: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """Return what each epoch of the example took and reached, in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--side", "example", "--seed", str(seed)]
    command += ["--example-epochs", str(options.example_epochs)]
    command += ["--workers", str(options.workers), *(["--shuffle"] if options.shuffle else [])]
    command += [*(["--data", options.data] if options.data else []), *(["--quick"] if options.quick else [])]
    child = measure.Paced(command, measure.checkout_env(**measure.threads_env(options.threads)))
    epochs = [child.answer() for _ in range(1 if options.quick else options.example_epochs)]
    child.close()
    return epochs


def our_run(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Return what `linne train mnist --recipe mnist` took and reached."""
    options.linne_options = ["--recipe", options.recipe, "--seed", str(seed)]
    options.linne_options += [word for value in options.set for word in ("--set", value)]
    return linne_run(options, "mnist")


def main() -> None:
    parser = measure.parser(__doc__, data=True)
    parser.add_argument("--recipe", default="mnist", help="of linne; default mnist")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="of linne, as `linne train`")
    parser.add_argument("--linne-runs", type=int, default=4, metavar="N", help="seeds, half of them first; default 4")
    parser.add_argument("--example-runs", type=int, default=1, metavar="N", help="seeds; default 1")
    parser.add_argument(
        "--example-epochs", type=int, default=EPOCHS, metavar="N", help="stop it sooner, which changes no earlier epoch"
    )
    parser.add_argument("--threads", type=int, help="for both; without it each side's own choice")
    parser.add_argument("--workers", type=int, default=0, help="of the example's loader; default 0, as it has on a CPU")
    parser.add_argument("--shuffle", action="store_true", help="the example's images, which it does on a GPU only")
    parser.add_argument("--side", choices=["example"], help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side is not None:
        for epoch in example_epochs(options):
            measure.say(**epoch)
        return
    seeds = range(1 if options.quick else options.linne_runs)
    half = (len(seeds) + 1) // 2
    ours = [our_run(options, seed) for seed in seeds[:half]]
    theirs = [example_run(options, seed) for seed in range(1 if options.quick else options.example_runs)]
    ours += [our_run(options, seed) for seed in seeds[half:]]
    print_results(theirs, ours, options)


def reached(run: list[dict[str, Any]], accuracy: float) -> tuple[int, float, float] | None:
    """Return the first epoch of `run` that is so accurate, and the wall and CPU seconds of training up to its end."""
    wall = cpu = 0.0
    for number, epoch in enumerate(run, start=1):
        wall, cpu = wall + epoch["wall_seconds"], cpu + epoch["cpu_seconds"]
        if epoch["accuracy"] >= accuracy:
            return number, wall, cpu
    return None


def compared(theirs: list[list[dict[str, Any]]], accuracy: float, what: str, seconds: float, whole: float) -> str:
    """Return in a line when the example's runs are as accurate, against `seconds` of linne's training."""
    found = [place for place in (reached(run, accuracy) for run in theirs) if place is not None]
    if len(found) < len(theirs):
        return f"{what}, {measure.percent(accuracy)}: {len(found)} of {len(theirs)} runs of the example reached it"
    epoch, wall, cpu = (statistics.median(place[k] for place in found) for k in range(3))
    return (
        f"{what}, {measure.percent(accuracy)}: the example after epoch {epoch:g}, {wall:.1f} s of training, "
        f"{cpu:.1f} s of CPU: {wall / seconds:.1f} times linne's training, {wall / whole:.1f} times its whole program"
    )


def print_results(theirs: list[list[dict[str, Any]]], ours: list[dict[str, Any]], options: argparse.Namespace) -> None:
    rows, wall, cpu = [], [0.0] * len(theirs), [0.0] * len(theirs)
    for number in range(len(theirs[0])):
        wall = [sum_ + run[number]["wall_seconds"] for sum_, run in zip(wall, theirs, strict=True)]
        cpu = [sum_ + run[number]["cpu_seconds"] for sum_, run in zip(cpu, theirs, strict=True)]
        accuracy = measure.middle([100 * run[number]["accuracy"] for run in theirs])
        rows.append([f"example, epoch {number + 1}", f"{accuracy} %", measure.middle(wall, 1), measure.middle(cpu, 1)])
    recipe = ours[0]["recipe"]
    name = f"linne, {recipe['optim']['epochs']} epochs of {recipe['model']['name']}, training"
    accuracies, seconds = [run["accuracy"] for run in ours], [run["training_seconds"] for run in ours]
    whole = {clock: [run["whole"][f"{clock}_seconds"] for run in ours] for clock in ("wall", "cpu")}
    accuracy = f"{measure.middle([100 * value for value in accuracies])} %"
    rows.append([name, accuracy, measure.middle(seconds, 1), ""])
    rows.append(["linne, whole program", accuracy, *(measure.middle(whole[clock], 1) for clock in ("wall", "cpu"))])
    middles = statistics.median(seconds), statistics.median(whole["wall"])
    notes = [
        compared(theirs, statistics.median(accuracies), "to linne's median", *middles),
        compared(theirs, TARGET, f"to the aim ({sum(a >= TARGET for a in accuracies)} of {len(ours)} runs of linne "
                 "reached it)", *middles),
        f"seeds: {len(ours)} of linne, {len(theirs)} of the example; its tests after each epoch are not in its time",
    ]  # fmt: skip
    heads = ["side", "test accuracy", "wall s", "CPU s"]
    measure.report(
        "MNIST: PyTorch's example and linne's recipe",
        heads,
        rows,
        notes=notes,
        packages=["torch", "torchvision"],
        raw={"example": theirs, "linne": ours},
        options=options,
    )


if __name__ == "__main__":
    main()
