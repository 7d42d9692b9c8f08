"""The lines that the samples print, character for character; two spaces follow a colon where theirs do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Say = Callable[[str], None]
"""Takes a line, or a few: what the samples print, or what linne has to add."""

PEDESTRIANS_HERE = "PennFundaPed dataset already downloaded and verified"
PEDESTRIANS_FETCHING = "Downloading PennFundaPed dataset\n"
PEDESTRIANS_DONE = "\nExtracted PennFundaPed dataset"
INVALID = "Invalid file"
CIFAR_HERE = "Files already downloaded and verified"


def loading(split: str, folder: Path) -> str:
    """Return the line before a split is opened; `split` is `training` or `testing`."""
    return f"Loading the {split} dataset from: {folder}"


def shapes(split: str, images_NCHW: torch.Tensor, labels_N: torch.Tensor) -> str:
    """Return the shapes of a batch; `split` is `Train` or `Test`."""
    of_images = f"\n\t\tshape={images_NCHW.shape}, \n\t\tdtype={images_NCHW.dtype}"
    of_labels = f"\n\t\tshape={labels_N.shape}, \n\t\tdtype={labels_N.dtype}"
    return f"\t{split} data X [N, C, H, W]: {of_images}\n\t{split} data Y: {of_labels}"


def moved(model: str, device: str, seconds: float) -> str:
    """Return the line after the network has come to the device."""
    return f"Finished moving {model} to device: {device} in {seconds}s."


def epoch(number: int) -> str:
    """Return the head of epoch `number`, counted from 1."""
    return f"Epoch {number}\n" + "-" * 31


def loss(value: float, done: int, total: int, seconds: float) -> str:
    """Return the line of every hundredth batch."""
    return f"loss: {value:>7f}  [{done:>5d}/{total:>5d}] in {seconds:>5f}s"


def one_batch(done: int, total: int, seconds: float) -> str:
    """Return the line of `--ci_train`."""
    return f"train [{done:>5d}/{total:>5d}] in {seconds:>5f}s"


def highest(accuracy: float) -> str:
    """Return the line of an accuracy that is the best so far."""
    return f"current highest_accuracy:  {accuracy}"


def test_error(accuracy: float, mean_loss: float) -> str:
    """Return the lines of a measurement, with the empty one that ends them."""
    return f"Test Error: \n Accuracy: {100 * accuracy:>0.1f}%, Avg loss: {mean_loss:>8f} \n"


def done(accuracy: float) -> str:
    """Return the last line of a training."""
    return f"Done! with highest_accuracy:  {accuracy}"


def answer(label: str, probability: float) -> str:
    """Return one of the five lines of a prediction."""
    return f"{label} {probability}"
