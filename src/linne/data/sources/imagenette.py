"""`imagenette`: ten easily told classes of ImageNet, photos with a shorter edge of 320 pixels."""

from __future__ import annotations

import os
from pathlib import Path

from linne.data.names import printable
from linne.data.places import Download, NamedSet, locate
from linne.data.sources.folder import examples_of
from linne.data.sources.layout import read_layout
from linne.data.sources.synsets import renamed
from linne.data.split import Examples

_WORDS = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
IMAGENETTE = NamedSet(
    name="imagenette",
    about="13,394 photos of ten things, from ImageNet, 320 pixels high or wide",
    page="https://github.com/fastai/imagenette",
    official="imagenette2-320",
    files={"train": ("train",), "val": ("val",)},
    downloads=(
        # md5: torchvision. sha256: recorded by several who fetched the file of this md5; the publisher gives none.
        # An older file of the same name, which TensorFlow Datasets knows, has 341,553,947 bytes.
        Download(
            name="imagenette2-320.tgz",
            urls=("https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz",),
            size_bytes=341_663_724,
            md5="3df6f0d01a2c9592104656642f5e78a3",
            sha256="569b4497c98db6dd29f335d1f109cf315fe127053cedf69010d047f0188e158c",
            unpack=".",
        ),
    ),
    unpacked_bytes=380_000_000,
    counts={"train": 9_469, "val": 3_925},
)


def open_imagenette(location: str | None, root: Path | None) -> Examples:
    """Return Imagenette with its official train and val splits; classes in the order of their WordNet numbers.

    Raises:
        SourceError: its folders are not found, or are not laid out as published.
    """
    folder = os.path.realpath(locate(IMAGENETTE, location, root)["train"].parent)
    shown = printable(folder)
    return examples_of("imagenette 1", folder, shown, lambda: renamed(read_layout(folder, shown), _WORDS))
