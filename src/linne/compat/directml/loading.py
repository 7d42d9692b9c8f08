"""CIFAR-10 as the samples load it: PIL images one by one, torchvision's transforms, torch's own DataLoader.

Slow, and kept: crops and order are drawn from torch's generator in just this sequence, and `--faithful` repeats it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from linne.compat.directml.programs import data_folder, image_size
from linne.data import Source, Split, open_source
from linne.data.images.decode import to_channels
from linne.errors import SourceError

NORMALIZE = transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
"""ImageNet's mean and deviation, as the samples have them."""

Batches = DataLoader[tuple[torch.Tensor, int]]


class Examples(Dataset[tuple[torch.Tensor, int]]):
    """The examples of a split, each through a transform when it is asked for."""

    def __init__(self, split: Split, transform: Any) -> None:
        self._split = split
        self._transform = transform

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
        pixels_HWC = self._split.load(position)
        assert not isinstance(pixels_HWC, bytes)  # CIFAR-10's files hold pixels
        image = Image.fromarray(to_channels(pixels_HWC, 3))
        return self._transform(image), int(self._split.labels_N[position])


def open_cifar10(path: str) -> tuple[Source, Path]:
    """Return CIFAR-10 and the folder that `--path` names.

    Raises:
        SourceError: its binary files are not there; nothing is fetched. Pickled ones are never opened.
    """
    folder = data_folder(path)
    try:
        return open_source(f"cifar10:{folder}", val_fraction=None), folder
    except SourceError as error:
        raise SourceError(
            error.message,
            hint="type `linne compat directml dataset --dataset cifar10`, or --path DIR for a folder with the binary "
            "files of https://www.cs.toronto.edu/~kriz/cifar.html",
        ) from error


def training_transform(model: str) -> Any:
    """Return what the samples do to an image to train on it."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(image_size(model)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            NORMALIZE,
        ]
    )


def testing_transform(model: str, *, faithful: bool) -> Any:
    """Return what the samples do to an image to test on it.

    For 299 pixels theirs resizes to 256 all the same, and `CenterCrop` fills the rest with zeros; 342 keeps the ratio
    of 256 to 224.
    """
    resized = 342 if image_size(model) == 299 and not faithful else 256
    return cropped(resized, image_size(model))


def cropped(resized: int, size: int) -> Any:
    """Return the transform that resizes the shorter side, cuts out the middle and normalises."""
    return transforms.Compose(
        [transforms.Resize(resized), transforms.CenterCrop(size), transforms.ToTensor(), NORMALIZE]
    )


def training_batches(source: Source, model: str, batch_size: int) -> Batches:
    """Return the training images, in another order each time."""
    examples = Examples(source.splits["train"], training_transform(model))
    return DataLoader(examples, batch_size=batch_size, shuffle=True, num_workers=0)


def testing_batches(source: Source, model: str, batch_size: int, *, faithful: bool) -> Batches:
    """Return the test images in their order."""
    examples = Examples(source.splits["test"], testing_transform(model, faithful=faithful))
    return DataLoader(examples, batch_size=batch_size, shuffle=False, num_workers=0)
