"""`digits`: 1,797 real scans of handwritten digits, 8 x 8 pixels, embedded in scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from linne.data.sources.arrays import array_identities, array_split
from linne.data.split import Examples
from linne.errors import SourceError


def open_digits(location: str | None, root: Path | None) -> Examples:
    """Return the scans; a quarter of each digit becomes the test split.

    The scans count ink in 4 x 4 pixel cells, 0-16; stored as round(ink / 16 * 255). From the UCI set "Optical
    Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998), its test part.

    Raises:
        SourceError: a folder was given, or scikit-learn is not installed.
    """
    if location is not None:
        raise SourceError(f"`digits` takes no folder, got `{location}`", hint="type `digits`, or `folder:DIR`")
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise SourceError(
            "`digits` comes with scikit-learn, which is not installed", hint="`pip install scikit-learn`"
        ) from error
    loaded = load_digits()
    ink_NHW = np.asarray(loaded.images, dtype=np.float64)
    images_NHWC = np.floor(ink_NHW * (255 / 16) + 0.5).astype(np.uint8)[..., None]
    labels_N = np.asarray(loaded.target, dtype=np.int64)
    return Examples(
        labels=tuple("0123456789"),
        given={"train": array_split("train", images_NHWC, labels_N, "digits")},
        channels=1,
        image_size=(8, 8),
        same_size=True,
        identities=array_identities,
        test_fraction=0.25,
    )
