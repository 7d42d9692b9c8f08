"""Decoding ahead by threads: while a batch is learnt from, the next ones are read, decoded and resized.

Threads, because the decoder, the resize and reading files all leave the interpreter to others while they work; see
docs/decisions/0004-threads-decode.md. An image is decided by its position and epoch alone and has its row in the
batch before a thread takes it, so that the number of threads changes nothing but the time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from linne.data.images.decode import enough_for, reduced, to_channels
from linne.data.loading.augment import resized_crop_box
from linne.data.source import Split
from linne.errors import ImageError
from linne.preprocess import InputSpec, Resize, UInt8, resize_and_crop, resized_size

Ints = NDArray[np.int64]

AHEAD_BYTES = 256 * 2**20
"""Of pixels that wait decoded. More costs nothing but memory, and bridges more slow images and slow reads."""
LEAST_AHEAD, MOST_AHEAD = 2, 32
"""Batches that wait or are being decoded, whatever they hold."""
LARGEST_PART = 8
"""Images that a thread takes at a time: handing one over costs about as much Python as decoding a small one."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """One batch, on the host."""

    images_BHWC: torch.Tensor
    """uint8, without the unreadable ones."""
    positions_B: Ints
    problems: dict[int, str]
    """Why, for each position that cannot be read."""


def decode_ahead(
    batches: Sequence[Ints],
    decode: Callable[[int], UInt8],
    shape: tuple[int, int, int],
    *,
    num_threads: int,
    pin: bool = False,
) -> Iterator[Decoded]:
    """Yield `batches` of positions decoded, in their order; `decode` is called by `num_threads` threads at once.

    With 0 threads, each batch is decoded when it is asked for. Leaving early stops the threads.

    Args:
        decode: From a position to uint8 pixels of `shape`, or an ImageError.
        shape: Height, width and channels.
        pin: Whether the pixels lie in page-locked memory, from which an accelerator copies while it computes.
    """
    if num_threads == 0:
        for positions_B in batches:
            batch = _Batch.empty(positions_B, shape, pin)
            batch.fill(decode, 0, len(positions_B))
            yield batch.decoded()
        return
    longest = max(map(len, batches), default=0)
    ahead = min(max(AHEAD_BYTES // max(longest * int(np.prod(shape)), 1), LEAST_AHEAD), MOST_AHEAD)
    part = min(max(longest // (2 * num_threads), 1), LARGEST_PART)
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="decode")
    under_way: deque[tuple[_Batch, list[Future[None]]]] = deque()
    try:
        for positions_B in batches:
            batch = _Batch.empty(positions_B, shape, pin)
            starts = range(0, len(positions_B), part)
            under_way.append((batch, [pool.submit(batch.fill, decode, start, start + part) for start in starts]))
            if len(under_way) > ahead:
                yield _finished(*under_way.popleft())
        while under_way:
            yield _finished(*under_way.popleft())
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, eq=False, slots=True)
class _Batch:
    """A batch while it is filled; each row is written by one thread."""

    positions_B: Ints
    images_BHWC: torch.Tensor
    rows_BHWC: UInt8
    """The same memory."""
    problems: dict[int, str] = field(default_factory=dict)

    @classmethod
    def empty(cls, positions_B: Ints, shape: tuple[int, int, int], pin: bool) -> _Batch:
        images_BHWC = torch.empty((len(positions_B), *shape), dtype=torch.uint8, pin_memory=pin)
        return cls(positions_B, images_BHWC, images_BHWC.numpy())

    def fill(self, decode: Callable[[int], UInt8], start: int, stop: int) -> None:
        for row, position in enumerate(self.positions_B[start:stop].tolist(), start):
            try:
                self.rows_BHWC[row] = decode(position)
            except ImageError as error:
                self.problems[position] = error.message

    def decoded(self) -> Decoded:
        if not self.problems:
            return Decoded(self.images_BHWC, self.positions_B, {})
        readable_B = ~np.isin(self.positions_B, list(self.problems))
        return Decoded(self.images_BHWC[torch.from_numpy(readable_B)], self.positions_B[readable_B], self.problems)


def _finished(batch: _Batch, parts: Sequence[Future[None]]) -> Decoded:
    for part in parts:
        part.result()
    return batch.decoded()


def random_part(
    split: Split, position: int, spec: InputSpec, draws_D: NDArray[np.float32], smallest_area: float, resize: Resize
) -> UInt8:
    """Return a random part of example `position`, at least `smallest_area` of it, at the size of `spec`.

    A JPEG is decoded at a half, a quarter or an eighth where the part then still has the rows and columns of
    `enough_for`, and its edges fall on the nearest pixels. `draws_D` are the example's `uniforms`.

    Raises:
        ImageError: it cannot be decoded or resized; the message names it.
    """

    def enough(height: int, width: int) -> tuple[int, int]:
        _, _, part_H, part_W = resized_crop_box(draws_D, smallest_area, height, width)
        least_H, least_W = enough_for(*resized_size(part_H, part_W, spec))
        return -(-least_H * height // part_H), -(-least_W * width // part_W)

    image, name = split.load(position), split.example_name(position)
    if isinstance(image, bytes):
        pixels_HWC, (height, width) = reduced(image, spec.channels, enough, name=name)
    else:
        pixels_HWC = to_channels(image, spec.channels)
        height, width, _ = pixels_HWC.shape
    top, left, part_H, part_W = resized_crop_box(draws_D, smallest_area, height, width)
    top, bottom = (round(row * pixels_HWC.shape[0] / height) for row in (top, top + part_H))
    left, right = (round(column * pixels_HWC.shape[1] / width) for column in (left, left + part_W))
    part_HWC = np.ascontiguousarray(pixels_HWC[top : max(bottom, top + 1), left : max(right, left + 1)])
    try:
        return resize_and_crop(part_HWC, spec, resize=resize)
    except ImageError as refused:
        raise ImageError(f"`{name}`: {refused.message}") from refused
