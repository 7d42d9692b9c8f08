"""`cifar10` and `cifar100`: the official binary files. The Python versions are pickled, so they are never opened.

Format: https://www.cs.toronto.edu/~kriz/cifar.html. A row is a label (CIFAR-100: the coarse one, then the fine one),
then 1,024 bytes of red, of green and of blue.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from linne.data.names import printable
from linne.data.places import Download, NamedSet, find, locate, places
from linne.data.source import Ints, Split, UInt8
from linne.data.sources.arrays import array_identities, array_split, check_labels
from linne.data.split import Examples
from linne.errors import SourceError

_PIXEL_BYTES = 3 * 32 * 32
_TRAIN = tuple(f"data_batch_{k}.bin" for k in range(1, 6))
# Sizes and sha256: tensorflow/datasets, `url_checksums`. md5: the publisher's page.
CIFAR10 = NamedSet(
    name="cifar10",
    about="60,000 small colour photos of ten kinds of things, 32 x 32",
    page="https://www.cs.toronto.edu/~kriz/cifar.html (`cifar-10-binary.tar.gz`)",
    official="cifar-10-batches-bin",
    files={name: (name,) for name in (*_TRAIN, "test_batch.bin")},
    downloads=(
        Download(
            name="cifar-10-binary.tar.gz",
            urls=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
            size_bytes=170_052_171,
            md5="c32a1d4ab5d03f1284b67883e8d87530",
            sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            unpack=".",
        ),
    ),
    unpacked_bytes=184_400_000,
    counts={"train": 50_000, "test": 10_000},
)
CIFAR100 = NamedSet(
    name="cifar100",
    about="60,000 small colour photos of a hundred kinds of things, 32 x 32",
    page="https://www.cs.toronto.edu/~kriz/cifar.html (`cifar-100-binary.tar.gz`)",
    official="cifar-100-binary",
    files={name: (name,) for name in ("train.bin", "test.bin", "fine_label_names.txt")},
    downloads=(
        Download(
            name="cifar-100-binary.tar.gz",
            urls=("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",),
            size_bytes=168_513_733,
            md5="03b5dce01913d631647c71ecec9e9cb8",
            sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            unpack=".",
        ),
    ),
    unpacked_bytes=184_500_000,
    counts={"train": 50_000, "test": 10_000},
)
CIFAR10_LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_PICKLED = {"cifar10": ("cifar-10-batches-py", "data_batch_1"), "cifar100": ("cifar-100-python", "train")}
"""The folder of the pickled version, and a file in it."""


def open_cifar10(location: str | None, root: Path | None) -> Examples:
    """Return CIFAR-10 with its official train and test splits.

    Raises:
        SourceError: the binary files are not found (the text says so where only the pickled ones are) or damaged.
    """
    paths = _locate(CIFAR10, location, root)
    folder = paths["test_batch.bin"].parent
    labels = _labels(folder / "batches.meta.txt", 10) if (folder / "batches.meta.txt").is_file() else CIFAR10_LABELS
    return _examples(CIFAR10, [paths[name] for name in _TRAIN], [paths["test_batch.bin"]], labels, num_labels=1)


def open_cifar100(location: str | None, root: Path | None) -> Examples:
    """Return CIFAR-100 with its official train and test splits, by its hundred fine classes.

    Raises:
        SourceError: the binary files are not found (the text says so where only the pickled ones are) or damaged.
    """
    paths = _locate(CIFAR100, location, root)
    labels = _labels(paths["fine_label_names.txt"], 100)
    return _examples(CIFAR100, [paths["train.bin"]], [paths["test.bin"]], labels, num_labels=2)


def _locate(named: NamedSet, location: str | None, root: Path | None) -> dict[str, Path]:
    folders = places(named, location, root)
    if find(named, folders) is None:
        _refuse_pickles(named, folders)
    return locate(named, location, root)


def _examples(
    named: NamedSet, train: Sequence[Path], test: Sequence[Path], labels: tuple[str, ...], num_labels: int
) -> Examples:
    given = {
        name: _read(named, name, paths, len(labels), num_labels) for name, paths in (("train", train), ("test", test))
    }
    return Examples(
        labels=labels,
        given=given,
        channels=3,
        image_size=(32, 32),
        same_size=True,
        identities=array_identities,
        notes=(f"read from `{printable(train[0].parent)}`",),
    )


def _read(named: NamedSet, name: str, paths: Sequence[Path], num_classes: int, num_labels: int) -> Split:
    """Return a split of the images of `paths`, in order; the last of `num_labels` labels of a row is the one used."""
    row_bytes = num_labels + _PIXEL_BYTES
    counts = [_num_rows(path, row_bytes, named) for path in paths]
    images_NPC: UInt8 = np.empty((sum(counts), 32 * 32, 3), np.uint8)
    labels_N: Ints = np.empty(sum(counts), np.int64)
    start = 0
    for path, count in zip(paths, counts, strict=True):
        rows = np.fromfile(path, np.uint8, count * row_bytes).reshape(-1, row_bytes)
        labels_N[start : start + count] = rows[:, num_labels - 1]
        # Colour by colour: four times as fast as one transpose of all.
        for channel in range(3):
            plane = num_labels + 1024 * channel
            images_NPC[start : start + count, :, channel] = rows[:, plane : plane + 1024]
        start += count
    check_labels(labels_N, len(images_NPC), num_classes, f"`{printable(paths[0].parent)}`")
    return array_split(name, images_NPC.reshape(-1, 32, 32, 3), labels_N, name)


def _num_rows(path: Path, row_bytes: int, named: NamedSet) -> int:
    size = path.stat().st_size
    if size == 0 or size % row_bytes:
        raise SourceError(
            f"`{printable(path)}` has {size:,} bytes, expected images of {row_bytes:,} bytes each",
            hint=f"the copy is incomplete or another file; type `linne data get {named.name} --force`",
        )
    return size // row_bytes


def _labels(path: Path, number: int) -> tuple[str, ...]:
    """Return the class names in the publisher's list of them."""
    with open(path, encoding="utf-8", errors="replace") as file:
        labels = tuple(line.strip() for line in file.read(10_000).splitlines() if line.strip())
    if len(labels) != number or len(set(labels)) != number:
        raise SourceError(f"`{printable(path)}` names {len(set(labels))} different classes, expected {number}")
    return labels


def _refuse_pickles(named: NamedSet, folders: Sequence[Path]) -> None:
    name, file = _PICKLED[named.name]
    for folder in folders:
        for pickled in (folder, folder / name, folder.parent / name):
            if (pickled / file).is_file():
                raise SourceError(
                    f"`{printable(pickled)}` is the pickled version of `{named.name}`, and unpickling a file can run "
                    "any program hidden in it; expected the binary version",
                    hint=f"type `linne data get {named.name}`, or get it from {named.page}",
                )
