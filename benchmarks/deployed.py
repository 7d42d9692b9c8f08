"""What the deploying benchmarks share: bundles of well-known networks, made here, with an ONNX export."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import measure

NETWORKS = {
    "ResNet-50": "torchvision/resnet50",
    "SqueezeNet 1.1": "torchvision/squeezenet1_1",
    "Inception v3": "torchvision/inception_v3",
    "ViT-B/16": "torchvision/vit_b_16",
    "MobileNetV2": "torchvision/mobilenet_v2",
}
"""What a deployment guide usually shows, by linne's names."""


def without_progress_bars() -> None:
    """Keep the progress bars of transformers and its hub out of what is printed; call it before either is imported."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


def bundle_of(name: str, folder: Path, weights: Path | None = None, precisions: tuple[str, ...] = ("fp32",)) -> Path:
    """Return a bundle of the network `name` with ONNX exports, made in `folder` where it is not there yet.

    Without `weights` they are drawn, and batch norms have seen a few batches of noise: as fast as trained ones.
    """
    measure.use_checkout()
    import linne

    output = folder / name.replace("/", "-")
    if not (output / "bundle.json").exists():
        path = weights or settled(name, folder)
        linne.import_weights(path, output, model=name, labels=labels(folder), unproved=weights is None, quiet=True)
    for precision in precisions:
        if not (output / "exports" / f"onnx-{precision}").exists():
            linne.export(output, to="onnx", precision=precision, quiet=True)
    return output


def settled(name: str, folder: Path) -> Path:
    """Return a file with drawn weights of a network of torchvision's, its batch norms settled."""
    import torch
    import torchvision

    torch.manual_seed(0)
    path = folder / f"{name.replace('/', '-')}.pth"
    short = name.partition("/")[2]
    extra = {"init_weights": True} if short in ("inception_v3", "googlenet") else {}
    network: Any = torchvision.models.get_model(short, weights=None, **extra)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # means over all batches: numbers stay small, as fp16 needs them
    network.train()
    side = 299 if short == "inception_v3" else 224
    with torch.no_grad():
        for _ in range(2):
            network(torch.randn(4, 3, side, side))
    torch.save(network.state_dict(), path)
    return path


def labels(folder: Path) -> Path:
    """Return a file of a thousand names."""
    path = folder / "labels.txt"
    path.write_text("".join(f"class {number}\n" for number in range(1000)), encoding="utf-8")
    return path


def photographs(folder: str | None, count: int) -> list[Path]:
    """Return `count` photographs: those in `folder`, over and over, or those that come with linne."""
    measure.use_checkout()
    from linne.weights.answers import FOLDER

    found = sorted(Path(folder or FOLDER).rglob("*.jpg"))
    if not found:
        sys.exit(f"error: no photograph in `{folder}`")
    return [found[number % len(found)] for number in range(count)]
