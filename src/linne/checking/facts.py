"""Every image of a source, decoded once and boiled down to some 340 bytes each, whatever its size."""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from linne.checking import containers
from linne.data.files import FileStore
from linne.data.images.decode import reduced, to_channels
from linne.data.images.headers import FORMATS
from linne.data.source import Ints, Source, Split, UInt8
from linne.errors import ImageError
from linne.log import Narrator

SIDE = 32
"""Images are judged at this many pixels square."""
THUMB_SIDE = 16
_CHUNK = 64
_COLOURLESS = 6
"""Levels that the channels of a grey image may differ by: JPEG's colour transform is worth two or three."""

ROW = np.dtype(
    [
        ("digest", "V16"),
        ("hash", "<u8"),
        ("mirror", "<u8"),
        ("thumb", "u1", (THUMB_SIDE, THUMB_SIDE)),
        ("height", "<i4"),
        ("width", "<i4"),
        ("size_bytes", "<i8"),
        ("mean", "<f4"),
        ("deviation", "<f4"),
        ("format", "i1"),
        ("flags", "u1"),
        ("colourless", "?"),
        ("named_otherwise", "?"),
        ("readable", "?"),
    ]
)
"""What is kept of an image.

digest: the first 128 bits of the sha256 of its file, or of its pixels where it has no file. hash, mirror: a 64-bit
dHash of it and of its mirror image. thumb: grey. mean, deviation: brightness, 0-255. format: position in `FORMATS`, -1
for pixels. flags: `containers`.
"""

Rows = NDArray[np.void]


@dataclass(frozen=True, eq=False, slots=True)
class Facts:
    """What `gather` found; image n is example `positions_N[n]` of split `splits[split_N[n]]`."""

    splits: tuple[Split, ...]
    split_N: Ints
    positions_N: Ints
    labels_N: Ints
    rows_N: Rows
    """`ROW` of each image; zeros but for `readable` where it cannot be decoded."""
    problems: Mapping[int, str]
    """Why image n cannot be read."""

    def __len__(self) -> int:
        return len(self.rows_N)

    def name(self, n: int) -> str:
        """Return what image n is called in its source."""
        return self.split(n).example_name(int(self.positions_N[n]))

    def split(self, n: int) -> Split:
        """Return the split that image n is in."""
        return self.splits[int(self.split_N[n])]


def gather(source: Source, *, num_threads: int, narrator: Narrator) -> Facts:
    """Return the facts about every image of `source`. Decoders let go of the interpreter, so threads share the work."""
    splits = tuple(source.splits.values())
    positions = [np.arange(len(split)) for split in splits]
    num = sum(map(len, splits))
    rows_N, problems = np.zeros(num, ROW), {}
    starts = np.cumsum([0, *map(len, splits)]).tolist()
    chunks = (
        (split, start, range(first, min(first + _CHUNK, len(split))))
        for split, start in zip(splits, starts, strict=False)
        for first in range(0, len(split), _CHUNK)
    )
    work = (
        (split, chosen, source.channels, rows_N[start + chosen.start :][: len(chosen)], start)
        for split, start, chosen in chunks
    )
    with narrator.progress("checking", num), ThreadPoolExecutor(num_threads) as pool:
        for found, count in _in_order(pool, work, 2 * num_threads):
            problems.update(found)
            narrator.advance(count)
    return Facts(
        splits=splits,
        split_N=np.repeat(np.arange(len(splits)), [len(split) for split in splits]),
        positions_N=np.concatenate(positions),
        labels_N=np.concatenate([split.labels_N for split in splits]),
        rows_N=rows_N,
        problems=problems,
    )


def _in_order(
    pool: ThreadPoolExecutor, work: Iterator[tuple[Any, ...]], ahead: int
) -> Iterator[tuple[dict[int, str], int]]:
    """Yield the outcome of each piece of work, at most `ahead` of them waiting: `pool.map` would queue them all."""
    waiting: deque[Future[tuple[dict[int, str], int]]] = deque()
    for piece in itertools.chain(work, itertools.repeat(None)):
        if piece is not None:
            waiting.append(pool.submit(_examine, *piece))
        if not waiting:
            return
        if piece is None or len(waiting) >= ahead:
            yield waiting.popleft().result()


def _examine(split: Split, chosen: range, channels: int, rows_N: Rows, start: int) -> tuple[dict[int, str], int]:
    """Fill `rows_N` with the facts about the `chosen` examples, and return what is wrong with those not readable."""
    small_NHWC = np.zeros((len(chosen), SIDE, SIDE, channels), np.uint8)
    problems: dict[int, str] = {}
    for n, position in enumerate(chosen):
        try:
            _one(split, position, channels, rows_N[n], small_NHWC[n])
        except ImageError as error:
            said = f"`{split.example_name(position)}` cannot be read: "
            problems[start + position] = error.message.removeprefix(said)
    values_NHWC = small_NHWC.astype(np.float32)
    spread_N = np.ptp(small_NHWC, axis=3).astype(np.float32).mean((1, 2))
    grey_NHW = values_NHWC @ np.array(_LUMA[channels], np.float32)
    rows_N["mean"], rows_N["deviation"] = grey_NHW.mean((1, 2)), values_NHWC.std((1, 2)).max(1)
    rows_N["colourless"] = spread_N <= _COLOURLESS
    rows_N["thumb"] = np.rint(_shrunk(grey_NHW, THUMB_SIDE, THUMB_SIDE)).astype(np.uint8)
    rows_N["hash"], rows_N["mirror"] = difference_hash(grey_NHW), difference_hash(grey_NHW[:, :, ::-1])
    unreadable = [n - start - chosen.start for n in problems]
    rows_N[unreadable] = np.zeros(1, ROW)
    return problems, len(chosen)


_LUMA = {1: (1.0,), 3: (0.299, 0.587, 0.114)}
"""ITU-R BT.601, as Pillow's `L`."""


def _one(split: Split, position: int, channels: int, row: Any, small_HWC: UInt8) -> None:
    """Fill `row` and `small_HWC` for one example.

    Raises:
        ImageError: it cannot be read or decoded; the message begins with its name.
    """
    image, name = split.load(position), split.example_name(position)
    if isinstance(image, bytes):
        pixels_HWC, (height, width) = reduced(image, channels, lambda height, width: (2 * SIDE, 2 * SIDE), name=name)
        kind, row["flags"] = containers.describe(image)
        row["format"] = FORMATS.index(kind) if kind else -1
        # Only files have endings: what was packed keeps the name of the file it was made from.
        row["named_otherwise"] = isinstance(split.store, FileStore) and containers.named_otherwise(name, kind)
        content, row["size_bytes"] = image, len(image)
    else:
        pixels_HWC, (height, width) = to_channels(image, channels), image.shape[:2]
        row["format"], row["size_bytes"] = -1, image.nbytes
        content = b"%d %d %d " % image.shape + image.tobytes()
    row["digest"] = hashlib.sha256(content).digest()[:16]
    row["height"], row["width"], row["readable"] = height, width, True
    picture = Image.fromarray(pixels_HWC[..., 0] if channels == 1 else pixels_HWC)
    small_HWC[:] = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR)).reshape(small_HWC.shape)


def small(split: Split, position: int, channels: int) -> UInt8:
    """Return an example at `SIDE` x `SIDE` x `channels`, as it was judged.

    Raises:
        ImageError: it cannot be read or decoded any more.
    """
    row, small_HWC = np.zeros(1, ROW)[0], np.zeros((SIDE, SIDE, channels), np.uint8)
    _one(split, position, channels, row, small_HWC)
    return small_HWC


def difference_hash(grey_NHW: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Return the 64-bit dHash of images: whether brightness rises from each of 9 columns to the next, in 8 rows.

    N. Krawetz, "Kind of Like That", 2013. Bits stay the same under scaling, compression, and brightness changes.
    """
    cells_NHW = np.rint(_shrunk(grey_NHW, 8, 9))  # whole levels: noise in an even area sets no bits
    bits_NB = (cells_NHW[:, :, 1:] > cells_NHW[:, :, :-1]).reshape(-1, 64)
    return np.packbits(bits_NB, axis=1).view(">u8")[:, 0].astype(np.uint64)


def _shrunk(grey_NHW: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Return images as means of the areas that a grid of `height` x `width` cuts out of them."""
    return np.asarray(_areas(height, SIDE) @ grey_NHW @ _areas(width, SIDE).T, np.float32)


def _areas(cells: int, pixels: int) -> NDArray[np.float32]:
    """Return cells x pixels: the share of each cell that each pixel covers."""
    edges = np.linspace(0, pixels, cells + 1)
    low, high = edges[:-1, None], edges[1:, None]
    covered: NDArray[np.float64] = np.minimum(high, np.arange(1, pixels + 1)) - np.maximum(low, np.arange(pixels))
    return (np.maximum(covered, 0) * (cells / pixels)).astype(np.float32, copy=False)
