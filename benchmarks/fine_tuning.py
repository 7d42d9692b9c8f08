"""Starting from pretrained weights, with few images: linne's own choices, training from scratch, and a tutorial's loop.

    python benchmarks/fine_tuning.py --weights mobilenet_v2-b0353104.pth --data DIR --threads 1

50 images a class of CIFAR-10's training images, by the seed, and the first `--test-images` test images, looked at once
at the end. The sides take turns, each in a process of its own:

fine-tuned  `linne train --model torchvision/mobilenet_v2 --weights FILE` and nothing else given
scratch     `linne train --recipe tiny-data`: the best that linne knows for so few images without weights
tutorial    MobileNetV2 with those weights as PyTorch's transfer-learning tutorial tunes them, written anew from its
            description: RandomResizedCrop to the side that linne chose, flip, ImageNet's mean and deviation; a new
            classifier, all layers trained, SGD with lr 0.001 and momentum 0.9 in batches of 4, the rate divided by 10
            every 7 epochs, 25 epochs

linne holds a tenth of the images out of fine-tuning, as always; the other two train on all of them. Time is that of
all that a side does from images in memory to a trained network, reports included, without importing anything and
without the test images; the tutorial's tests after each epoch are left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import measure
import recipes

MODEL = "torchvision/mobilenet_v2"
SIDE = 128
TUTORIAL_EPOCHS = 25
SIDES = {
    "fine-tuned": "linne, what it chooses with weights",
    "scratch": "linne, recipe `tiny-data`, from scratch",
    "tutorial": "PyTorch's tutorial, with weights",
}


def arrays(options: argparse.Namespace) -> tuple[tuple[Any, Any], tuple[Any, Any], list[str]]:
    """Return images and labels that train, those that test, and the classes' names."""
    images_a_class = 5 if options.quick else recipes.IMAGES_A_CLASS
    source = recipes.part(lambda number, classes: images_a_class, "cifar10-tiny")(options, options.seed, None)
    train, test = source.splits["train"], source.splits["test"]
    tested = slice(0, 2 * len(source.labels) if options.quick else options.test_images)
    images = train.store.array[train.indices_N]
    return (images, train.labels_N), (test.store.array[test.indices_N[tested]], test.labels_N[tested]), [*source.labels]


def ours(options: argparse.Namespace) -> dict[str, Any]:
    """Return what one training of linne took and reached."""
    import linne
    from linne.host import prepare_for_torch

    prepare_for_torch()
    import torch  # noqa: F401  imported before the clock starts, as for the tutorial
    from torchvision import models  # noqa: F401

    train, test, names = arrays(options)
    pretrained = {"model": MODEL, "weights": str(options.weights)}
    chosen: dict[str, Any] = pretrained if options.side == "fine-tuned" else {"recipe": "tiny-data"}
    given = dict(field.partition("=")[::2] for field in options.set) if options.side == "fine-tuned" else {}
    given |= {} if options.threads is None else {"device.num_threads": str(options.threads)}
    given |= {"optim.epochs": "1"} if options.quick else {}
    # The bundle is measured on the test images later, outside the time; a training wants some to end with.
    few = tuple(part[: len(names)] for part in test)
    held_out = None if options.side == "scratch" else 0.1
    with tempfile.TemporaryDirectory() as folder:
        with measure.timed() as timing:
            source = linne.from_arrays(*train, test=few, label_names=names, val_fraction=held_out, name="cifar10-tiny")
            result = linne.train(
                source, **chosen, overrides=given, seed=options.seed, device="cpu", output=f"{folder}/run", quiet=True
            )
        recipe = json.loads((result.run / "recipe.json").read_text())["recipe"]
        assert result.bundle is not None
        tested = linne.from_arrays(*train, test=test, label_names=names, val_fraction=held_out, name="cifar10-tiny")
        report = linne.evaluate(result.bundle, tested, device="cpu")
    return {
        "accuracy": report.accuracy,
        "epochs": recipe["optim"]["epochs"],
        "batch": recipe["data"]["batch_size"],
        "side": recipe["data"]["height"],
        "training_seconds": result.seconds,
        "recipe": recipe,
        **timing.to_dict(),
    }


def tutorial(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the tutorial's settings took and reached."""
    import torch
    from PIL import Image
    from torch.nn import functional
    from torchvision import models, transforms

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    (images, labels), (test_images, test_labels), names = arrays(options)
    normal = [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    crop = transforms.Compose([transforms.RandomResizedCrop(SIDE), transforms.RandomHorizontalFlip(), *normal])
    whole = transforms.Compose([transforms.Resize(SIDE), *normal])
    train = [(Image.fromarray(image), int(label)) for image, label in zip(images, labels, strict=True)]
    epochs = 1 if options.quick else TUTORIAL_EPOCHS

    def stacked(rows: list[tuple[Any, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.stack([crop(image) for image, _ in rows]), torch.tensor([label for _, label in rows])

    with measure.timed() as timing:
        network = models.mobilenet_v2()
        network.load_state_dict(torch.load(options.weights, weights_only=True))
        network.classifier[1] = torch.nn.Linear(network.last_channel, len(names))
        optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
        loader: Any = torch.utils.data.DataLoader(train, batch_size=4, shuffle=True, collate_fn=stacked)
        network.train()
        for _ in range(epochs):
            for images_NCHW, labels_N in loader:
                optimizer.zero_grad()
                functional.cross_entropy(network(images_NCHW), labels_N).backward()
                optimizer.step()
            schedule.step()
    network.eval()
    right = 0
    with torch.inference_mode():
        for start in range(0, len(test_labels), 100):
            batch = torch.stack([whole(Image.fromarray(image)) for image in test_images[start : start + 100]])
            right += int((network(batch).argmax(1).numpy() == test_labels[start : start + 100]).sum())
    return {"accuracy": right / len(test_labels), "epochs": epochs, "batch": 4, "side": SIDE, **timing.to_dict()}


def child(options: argparse.Namespace, side: str, seed: int) -> dict[str, Any]:
    """Return what one run of `side` took and reached, in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--weights", str(options.weights), "--side", side]
    command += ["--first-seed", str(seed), "--test-images", str(options.test_images)]
    command += [word for field in options.set for word in ("--set", field)]
    command += [*(["--data", options.data] if options.data else []), *(["--quick"] if options.quick else [])]
    command += [] if options.threads is None else ["--threads", str(options.threads)]
    _, printed = measure.run_child(command, measure.checkout_env(**measure.threads_env(options.threads)))
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    shown = f"{measure.percent(found['accuracy'])}, {found['cpu_seconds']:.1f} CPU-s"
    print(f"{side}, seed {seed}: {shown}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = measure.parser(__doc__, data=True)
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE", help="torchvision's of MobileNetV2")
    parser.add_argument("--test-images", type=int, default=10_000, metavar="N", help="the first N; default all")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from --first-seed on")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="for all; without it each side's own choice")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="for the fine-tuned side")
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    measure.use_checkout()
    options.seed = options.first_seed
    if options.side is not None:
        print(json.dumps(tutorial(options) if options.side == "tutorial" else ours(options)))
        return
    seeds = range(options.first_seed, options.first_seed + (1 if options.quick else options.seeds))
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in options.sides}
    for seed in seeds:
        for side in options.sides:
            found[side].append(child(options, side, seed))
    print_results(found, options)


def print_results(found: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> None:
    base = statistics.median(run["cpu_seconds"] for run in found[options.sides[0]])
    rows = []
    for side, runs in found.items():
        first = runs[0]
        settings = f"{first['epochs']} epochs of {first['batch']} at {first['side']} px"
        cpu, wall = ([run[f"{clock}_seconds"] for run in runs] for clock in ("cpu", "wall"))
        accuracy = f"{measure.middle([100 * run['accuracy'] for run in runs], 1)} %"
        times = [measure.middle(cpu, 1), measure.middle(wall, 1), f"{statistics.median(cpu) / base:.2f}"]
        rows.append([SIDES[side], settings, accuracy, *times])
    measure.report(
        "500 images of CIFAR-10, with MobileNetV2's weights of ImageNet and without",
        ["side", "batches", "test accuracy", "CPU-s", "wall s", "CPU-s, against the first"],
        rows,
        notes=[f"{options.test_images:,} test images; {len(next(iter(found.values())))} seeds"],
        packages=("torch", "torchvision"),
        raw=found,
        options=options,
    )


if __name__ == "__main__":
    main()
