"""What a store's images look like, from the headers of a few of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from linne.data.files import FileStore
from linne.data.images.decode import Header, peek, peek_file
from linne.data.index import spread
from linne.data.names import counted
from linne.data.source import ImageStore
from linne.errors import ImageError, SourceError


@dataclass(frozen=True, slots=True)
class Sample:
    """Size and colour of a store's images, as `Examples` holds them."""

    channels: int
    image_size: tuple[int, int]
    same_size: bool
    notes: tuple[str, ...]


def sample_of(store: ImageStore, shown: str) -> Sample:
    """Return size and colour of at most 256 images spread evenly over `store`, called `shown` in messages.

    Nothing is decoded. Images that cannot be read are left for loading to judge; the first is noted.

    Raises:
        SourceError: none of them can be read.
    """
    positions = spread(len(store)).tolist()
    headers, problems = [], []
    for position in positions:
        try:
            headers.append(_header(store, position))
        except ImageError as error:
            problems.append(error.message)
    if not headers:
        raise SourceError(f"none of {counted(len(positions), 'image')} tried in `{shown}` can be read; {problems[0]}")
    notes = []
    if problems:
        notes.append(f"{problems[0]} (the first of {len(problems)} among {counted(len(positions), 'image')} tried)")
    if len(positions) < len(store):
        notes.append(f"size and colour are known from a sample: {len(positions)} of {len(store):,} images")
    heights, widths = [header.height for header in headers], [header.width for header in headers]
    return Sample(
        channels=1 if all(header.grey for header in headers) else 3,
        image_size=(int(np.median(heights)), int(np.median(widths))),
        same_size=len(set(heights)) == len(set(widths)) == 1,
        notes=tuple(notes),
    )


def _header(store: ImageStore, position: int) -> Header:
    if isinstance(store, FileStore):  # its head is enough
        return peek_file(store.path(position), name=store.name(position))
    image = store.load(position)
    if isinstance(image, bytes):
        return peek(image, name=store.name(position))
    return Header(image.shape[0], image.shape[1], grey=image.shape[2] == 1)
