"""CIFAR-10 to 75 % test: what two loops that people copy would take on this machine, and what linne takes.

Two baselines, both too slow to run to the end here, so that their time is a rate measured here times a number of
epochs taken from published curves (`EPOCHS_TO_TARGET`, where each number has its source):

resnet50   The classification sample of DirectML for PyTorch (microsoft/DirectML, PyTorch/cv/classification):
           torchvision's ResNet-50 at 224 pixels, RandomResizedCrop and flip on PIL images, batches of 32 in the main
           process, SGD lr 1e-3 momentum 0.9 weight decay 1e-4. As in the sample, every step calls the network twice
           and throws the first answer away, and prints the loss every 100 batches.
resnet18   The usual small-image loop (kuangliu/pytorch-cifar): ResNet-18 with a 3x3 stem and no first pooling at 32
           pixels, RandomCrop with padding 4 and flip on PIL images, batches of 128, SGD lr 0.1 momentum 0.9 weight
           decay 5e-4.

linne: `linne train cifar10` as a newcomer types it, run to its end; its time is that of the whole training, although
it passes 75 % earlier, and that of the whole program beside it.

The baselines run before and after linne, taking turns, each for `--seconds` in all.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}
NUM_TRAIN = 50_000


@dataclass(frozen=True)
class Published:
    """Epochs to 75 % test that published runs needed."""

    epochs: int
    source: str


EPOCHS_TO_TARGET = {
    "resnet50": [
        Published(
            5,
            "the fastest found at this size, with other settings: ResNet at 256 to 299 pixels passes 75 % by epoch 5 "
            "with tuned learning rate and batches of 4 (eight times as many steps), flip only: "
            "github.com/ABrain-One/nn-dataset, ab/nn/stat/train/img-classification_cifar-10_acc_ResNet/5.json",
        ),
        Published(
            20,
            "half of what that record gives for the sample's own step size: its run with lr 0.0019, momentum 0.82 "
            "(lr / (1 - momentum) = 0.011, the sample's is 0.010) reaches 74.9 % after 62,500 steps of batch 4, which "
            "are 40 epochs of batch 32; and RandomResizedCrop is harder than its flip. The sample's own README shows "
            "28.6 % after epoch 1 and no later epoch: github.com/microsoft/DirectML, PyTorch/cv/resnet50/README.md",
        ),
    ],
    "resnet18": [
        Published(
            3,
            "75.5 % and 74.4 % after epoch 3 in two runs with a warm-up to lr 0.1, faster than lr 0.1 from the "
            "start: github.com/davidcpage/cifar10-fast, experiments.ipynb, 'Post 1: Baseline'; batch 128, crop and "
            "flip, a ResNet-18 with a narrower last stage",
        ),
    ],
}


class Pictures:
    """CIFAR-10's training pictures as PIL images through a transform, as torchvision's own dataset gives them."""

    def __init__(self, images_NHWC: Any, labels: list[int], transform: Any) -> None:
        from PIL import Image

        self._open, self.images, self.labels, self.transform = Image.fromarray, images_NHWC, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(self._open(self.images[index])), self.labels[index]


def resnet50(images_NHWC: Any, labels: list[int]) -> Iterator[int]:
    """Train as the DirectML sample does; yield the number of pictures after each step."""
    import torch
    from torchvision import models, transforms

    steps = [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    transform = transforms.Compose([*steps, transforms.Normalize(**IMAGENET)])
    dataset = Pictures(images_NHWC, labels, transform)
    loader = torch.utils.data.DataLoader(dataset, batch_size=32, shuffle=True)
    model = models.resnet50(num_classes=10)
    loss_fn = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    for batch, (x, y) in enumerate(itertools.chain.from_iterable(itertools.repeat(loader))):
        model(x)
        loss = loss_fn(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if batch % 100 == 0:
            loss.item()
        yield len(y)


def resnet18(images_NHWC: Any, labels: list[int]) -> Iterator[int]:
    """Train as pytorch-cifar does; yield the number of pictures after each step."""
    import torch
    from torchvision import models, transforms

    steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    transform = transforms.Compose([*steps, transforms.Normalize(**CIFAR)])
    dataset = Pictures(images_NHWC, labels, transform)
    loader = torch.utils.data.DataLoader(dataset, batch_size=128, shuffle=True)
    model = models.resnet18(num_classes=10)
    model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = torch.nn.Identity()
    loss_fn = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for x, y in itertools.chain.from_iterable(itertools.repeat(loader)):
        optimizer.zero_grad()
        outputs = model(x)
        loss = loss_fn(outputs, y)
        loss.backward()
        optimizer.step()
        loss.item()
        outputs.max(1)[1].eq(y).sum().item()
        yield len(y)


BASELINES: dict[str, Callable[[Any, list[int]], Iterator[int]]] = {"resnet50": resnet50, "resnet18": resnet18}


def baseline_side(options: argparse.Namespace) -> None:
    """Train a baseline for a while each time the parent says so, and answer with the pictures it got through."""
    measure.use_checkout()
    from linne.data import open_source

    split = open_source(measure.source_name("cifar10", options.data), val_fraction=None).splits["train"]
    assert split.store.array is not None
    training = BASELINES[options.side](split.store.array[split.indices_N], split.labels_N.tolist())
    next(training)  # the first step allocates
    measure.say(ready=True)
    while True:
        measure.wait_for_go()
        images = 0
        wall, cpu = time.perf_counter(), measure.cpu_seconds()
        while time.perf_counter() - wall < options.seconds:
            images += next(training)
        wall, cpu = time.perf_counter() - wall, measure.cpu_seconds() - cpu
        measure.say(images=images, wall_seconds=wall, cpu_seconds=cpu)


def linne_run(options: argparse.Namespace, name: str = "cifar10") -> dict[str, Any]:
    """Return what `linne train NAME` took and reached."""
    with tempfile.TemporaryDirectory() as folder:
        source = measure.source_name(name, options.data)
        command = [sys.executable, "-m", "linne", "train", source, "--output", f"{folder}/run", "--json", "--quiet"]
        command += ["--model", "mlp", "--epochs", "1"] if options.quick else options.linne_options
        whole, printed = measure.run_child(command, measure.checkout_env(**measure.threads_env(options.threads)))
        recipe = json.loads((Path(folder) / "run" / "recipe.json").read_text())["recipe"]
        rows = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
    result = json.loads(printed)
    epochs = [row for row in rows if row["event"] == "epoch"]
    return {
        "whole": whole.to_dict(),
        "training_seconds": result["seconds"],
        "accuracy": result["evaluation"]["accuracy"],
        "recipe": recipe,
        "epochs": [{k: row.get(k) for k in ("epoch", "seconds", "val_accuracy")} for row in epochs],
    }


def main() -> None:
    parser = measure.parser(__doc__, data=True)
    parser.add_argument("--seconds", type=float, default=120.0, help="of each baseline, in all")
    parser.add_argument("--threads", type=int, help="for all; without it each side's own choice")
    parser.add_argument("--linne-runs", type=int, default=1)
    parser.add_argument("--linne-options", nargs=argparse.REMAINDER, default=[], help="passed on to `linne train`")
    parser.add_argument("--side", choices=list(BASELINES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side is not None:
        return baseline_side(options)
    total = 4.0 if options.quick else options.seconds
    turns = 1 if options.quick else 2
    env = measure.threads_env(options.threads)
    common = [*(["--data", options.data] if options.data else []), "--seconds", str(total / (2 * turns))]
    command = [sys.executable, str(Path(__file__).resolve()), *common]
    sides = {name: measure.Paced([*command, "--side", name], measure.checkout_env(**env)) for name in BASELINES}
    for side in sides.values():
        side.answer()
    rates = measure.interleave(turns, {name: side.go for name, side in sides.items()})
    ours = [linne_run(options) for _ in range(options.linne_runs)]
    for name, found in measure.interleave(turns, {name: side.go for name, side in sides.items()}).items():
        rates[name] += found
    for side in sides.values():
        side.close()
    print_results(rates, ours, options)
    return None


def print_results(rates: dict[str, list[dict[str, Any]]], ours: list[dict[str, Any]], options: Any) -> None:
    seconds = statistics.median(run["training_seconds"] for run in ours)
    whole = statistics.median(run["whole"]["wall_seconds"] for run in ours)
    rows = []
    for name, turns in rates.items():
        wall = [turn["images"] / turn["wall_seconds"] for turn in turns]
        cpu = [turn["images"] / turn["cpu_seconds"] for turn in turns]
        rate = sum(turn["images"] for turn in turns) / sum(turn["wall_seconds"] for turn in turns)
        for published in EPOCHS_TO_TARGET[name]:
            projected = published.epochs * NUM_TRAIN / rate
            cells = [measure.middle(wall, 1), measure.middle(cpu, 1), str(published.epochs), f"{projected:,.0f}"]
            rows.append([name, *cells, "75 %, projected", f"{projected / seconds:,.0f}x", f"{projected / whole:,.0f}x"])
    recipe = ours[0]["recipe"]
    visits = NUM_TRAIN * (1 - (recipe["data"]["val_fraction"] or 0)) * recipe["optim"]["epochs"]
    accuracy = measure.middle([100 * run["accuracy"] for run in ours])
    rate = [visits / run["training_seconds"] for run in ours]
    epochs = str(recipe["optim"]["epochs"])
    rows.append(["linne", measure.middle(rate, 0), "", epochs, f"{seconds:,.0f}", f"{accuracy} %, measured", "1", ""])
    sources = [f"{name}, {p.epochs} epochs: {p.source}" for name, found in EPOCHS_TO_TARGET.items() for p in found]
    heads = ["side", "images/s, wall, median (spread)", "images/s of CPU", "epochs", "training, wall s", "test"]
    measure.report(
        "CIFAR-10 to 75 % test",
        [*heads, "/ linne's training", "/ linne's whole program"],
        rows,
        notes=[
            f"baselines: {len(next(iter(rates.values())))} turns of about "
            f"{next(iter(rates.values()))[0]['wall_seconds']:.0f} s each, half of them before linne's run, half after",
            f"linne's whole program, imports to report: {whole:,.0f} s; its rate counts validation as time",
            *sources,
        ],
        packages=["torch", "torchvision"],
        raw={"baselines": rates, "linne": ours},
        options=options,
    )


if __name__ == "__main__":
    main()
