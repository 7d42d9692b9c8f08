"""`cifar10`: the official binary files. The Python version of the set is pickled, so it is never opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from linne.data.arrays import array_identities, array_split, check_labels
from linne.data.names import printable
from linne.data.places import NamedSet, find, locate, places
from linne.data.source import Ints, Split, UInt8
from linne.data.split import Examples
from linne.errors import SourceError

_ROW_BYTES = 1 + 3 * 32 * 32
_TRAIN = tuple(f"data_batch_{k}.bin" for k in range(1, 6))
CIFAR10 = NamedSet(
    name="cifar10",
    about="60,000 small colour photos of ten kinds of things, 32 x 32",
    page="https://www.cs.toronto.edu/~kriz/cifar.html (`cifar-10-binary.tar.gz`)",
    official="cifar-10-batches-bin",
    files={name: (name,) for name in (*_TRAIN, "test_batch.bin")},
)
_LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def open_cifar10(location: str | None, root: Path | None) -> Examples:
    """Return CIFAR-10 with its official train and test splits.

    Raises:
        SourceError: the binary files are not found (the text says so where only the pickled ones are) or damaged.
    """
    folders = places(CIFAR10, location, root)
    if find(CIFAR10, folders) is None:
        _refuse_pickles(folders)
    paths = locate(CIFAR10, location, root)
    given = {
        "train": _read("train", [paths[name] for name in _TRAIN]),
        "test": _read("test", [paths["test_batch.bin"]]),
    }
    folder = paths["test_batch.bin"].parent
    return Examples(
        labels=_labels(folder / "batches.meta.txt"),
        given=given,
        channels=3,
        image_size=(32, 32),
        same_size=True,
        identities=array_identities,
        notes=(f"read from `{printable(folder)}`",),
    )


def _read(name: str, paths: Sequence[Path]) -> Split:
    """Return a split of the images of `paths`, in order: rows of a label, 1,024 red, 1,024 green, 1,024 blue."""
    counts = [_num_rows(path) for path in paths]
    images_NPC: UInt8 = np.empty((sum(counts), 32 * 32, 3), np.uint8)
    labels_N: Ints = np.empty(sum(counts), np.int64)
    start = 0
    for path, count in zip(paths, counts, strict=True):
        rows = np.fromfile(path, np.uint8, count * _ROW_BYTES).reshape(-1, _ROW_BYTES)
        labels_N[start : start + count] = rows[:, 0]
        # Colour by colour: four times as fast as one transpose of all.
        for channel, plane in enumerate((slice(1, 1025), slice(1025, 2049), slice(2049, 3073))):
            images_NPC[start : start + count, :, channel] = rows[:, plane]
        start += count
    check_labels(labels_N, len(images_NPC), len(_LABELS), f"`{printable(paths[0].parent)}`")
    return array_split(name, images_NPC.reshape(-1, 32, 32, 3), labels_N, name)


def _num_rows(path: Path) -> int:
    size = path.stat().st_size
    if size == 0 or size % _ROW_BYTES:
        raise SourceError(
            f"`{printable(path)}` has {size:,} bytes, expected images of {_ROW_BYTES:,} bytes each",
            hint=f"the copy is incomplete or another file; get it again from {CIFAR10.page}",
        )
    return size // _ROW_BYTES


def _labels(path: Path) -> tuple[str, ...]:
    """Return the class names in `batches.meta.txt`; the published ones where the file is missing."""
    if not path.is_file():
        return _LABELS
    with open(path, encoding="utf-8", errors="replace") as file:
        labels = tuple(line.strip() for line in file.read(10_000).splitlines() if line.strip())
    if len(labels) != len(_LABELS) or len(set(labels)) != len(labels):
        raise SourceError(f"`{printable(path)}` names {len(set(labels))} different classes, expected {len(_LABELS)}")
    return labels


def _refuse_pickles(folders: Sequence[Path]) -> None:
    for folder in folders:
        for pickled in (folder, folder / "cifar-10-batches-py", folder.parent / "cifar-10-batches-py"):
            if (pickled / "data_batch_1").is_file():
                raise SourceError(
                    f"`{printable(pickled)}` is the pickled version of `cifar10`, and unpickling a file can run any "
                    "program hidden in it; expected the binary version",
                    hint=f"get it from {CIFAR10.page}, unpack it and type `linne train cifar10:DIR`",
                )
