"""From a split's pixels to normalised batches on the device: resident and streaming behind one interface.

*Resident* decodes the set once, keeps it as uint8 at the model's input size, and cuts, mirrors and normalises whole
batches where the model runs. *Streaming* decodes in worker processes as it goes, for sets beyond memory and for
random crops of the full image.
"""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from linne.data.augment import NOTHING, blank, gather, make_plan, resized_crop_box, uniforms
from linne.data.resident import load_pixels, too_many_bad_images
from linne.data.source import Source, Split
from linne.device import Device
from linne.errors import ImageError, SourceError
from linne.preprocess import InputSpec, UInt8, resize_and_crop, scale_and_bias
from linne.recipe import AugmentConfig, Recipe

Ints = NDArray[np.int64]

GROUP_BYTES = 4 * 2**20
"""Small batches are cut from groups of about this many bytes: the cost of a call is paid once a group."""
EVAL_BATCH_BYTES = 16 * 2**20
"""Normalised input of one evaluation batch."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Normalised images and their labels, on the device."""

    images_NCHW: torch.Tensor
    labels_N: torch.Tensor


class Batches(Protocol):
    """One split, as batches."""

    @property
    def num_examples(self) -> int:
        """How many examples an epoch sees; unreadable ones are not among them once they were met."""

    @property
    def bad_images(self) -> Sequence[str]:
        """Unreadable images met so far: name and reason."""

    def __len__(self) -> int:
        """Return the number of steps in an epoch."""

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield every example once, shuffled and augmented as (seed, epoch) decides, in batches of nearly one size."""

    def in_order(self) -> Iterator[Batch]:
        """Yield every example once, in the split's order, unaugmented."""


def make_batches(
    source: Source, recipe: Recipe, device: Device, advance: Callable[[int], None] | None = None
) -> tuple[Batches, Batches | None]:
    """Return the batches of the training and validation splits (None without one).

    `advance(n)` is called as n more images have been decoded.

    Raises:
        SourceError: more unreadable images than `data.max_bad_images`, or none left to train on.
    """
    finish = _Finish(recipe, device)
    splits = [source.splits[name] for name in ("train", "val") if name in source.splits]
    if recipe.data.val_fraction is None:
        splits = splits[:1]
    made: list[Batches] = []
    if recipe.data.loader == "resident":
        pixels = load_pixels(splits, finish.spec, recipe.data.max_bad_images, advance)
        on_device = _as_tensor(pixels.images_NHWC).to(device.torch_device)
        for split, rows, names in zip(splits, pixels.rows, pixels.bad_images, strict=True):
            made.append(ResidentBatches(on_device, rows, split.labels_N, names, recipe, finish))
    else:
        bad: dict[tuple[str, int], str] = {}
        made.extend(StreamingBatches(split, recipe, finish, bad) for split in splits)
    if made[0].num_examples == 0:
        raise SourceError(f"no readable training image in `{source.name}`")
    return made[0], made[1] if len(made) > 1 else None


def _as_tensor(array: NDArray[np.uint8]) -> torch.Tensor:
    """Return a tensor over the array's own memory, which nobody writes to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


def permutation(seed: int, epoch: int, count: int) -> Ints:
    """Return the order of `count` examples in an epoch: a pure function of its arguments."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count)


def cut(order_N: Ints, batch_size: int) -> list[Ints]:
    """Return `order_N` in the fewest batches of at most `batch_size`, which differ in size by at most one.

    A batch of one image, from which batch norm cannot learn, is put to another, unless `batch_size` is 1.
    """
    return np.array_split(order_N, count_batches(len(order_N), batch_size))


def count_batches(num_examples: int, batch_size: int) -> int:
    """Return how many batches `cut` makes; asked for at every step, so nothing is cut for it."""
    num_batches = max(1, -(-num_examples // batch_size))
    if batch_size > 1 and num_examples < 2 * num_batches:
        return max(1, num_examples // 2)
    return num_batches


class _Finish:
    """From uint8 B x H x W x C to a normalised batch in the layout the model wants."""

    def __init__(self, recipe: Recipe, device: Device) -> None:
        data = recipe.data
        self.spec = input_spec(recipe)
        self.device = device
        self.channels_last = recipe.device.channels_last
        scale, bias = scale_and_bias(self.spec)
        self._scale = device.put(torch.from_numpy(scale))
        self._bias = device.put(torch.from_numpy(bias))
        self._channels = data.channels

    def __call__(self, images_NHWC: torch.Tensor) -> torch.Tensor:
        images = images_NHWC.float().mul_(self._scale).add_(self._bias)
        images_NCHW = images.permute(0, 3, 1, 2)
        if self.channels_last and self._channels > 1:
            return images_NCHW
        return images_NCHW.contiguous()


def input_spec(recipe: Recipe) -> InputSpec:
    """Return the evaluation-time preprocessing that a recipe's model will carry."""
    data = recipe.data
    return InputSpec(
        channels=data.channels,
        height=data.height,
        width=data.width,
        mean=data.mean,
        std=data.std,
        interpolation=data.interpolation,
        crop_pct=data.crop_pct,
    )


class ResidentBatches:
    """Batches of a split whose pixels are all on the device."""

    def __init__(
        self,
        images_NHWC: torch.Tensor,
        rows_N: Ints,
        labels_N: Ints,
        bad_images: Sequence[str],
        recipe: Recipe,
        finish: _Finish,
    ) -> None:
        readable = rows_N >= 0
        self._images_NHWC = images_NHWC
        self._rows_N = rows_N[readable]
        self._ids_N = np.flatnonzero(readable)
        self._labels_N = labels_N[readable]
        self.bad_images = bad_images
        self._recipe, self._finish = recipe, finish
        self._batch_bytes = 4 * recipe.data.channels * recipe.data.height * recipe.data.width

    @property
    def num_examples(self) -> int:
        return len(self._rows_N)

    def __len__(self) -> int:
        return count_batches(self.num_examples, self._recipe.data.batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        recipe, seed = self._recipe, self._recipe.seed
        batches = cut(permutation(seed, epoch, self.num_examples), recipe.data.batch_size)
        in_group = max(1, GROUP_BYTES // (self._batch_bytes * len(batches[0])))
        augmented = recipe.augment != AugmentConfig()
        draws_ND = uniforms(seed, epoch, self._ids_N) if augmented else None
        for first in range(0, len(batches), in_group):
            group = batches[first : first + in_group]
            images, labels = self._make(np.concatenate(group), draws_ND)
            start = 0
            for batch in group:
                stop = start + len(batch)
                yield Batch(images[start:stop], labels[start:stop])
                start = stop

    def in_order(self) -> Iterator[Batch]:
        size = max(1, EVAL_BATCH_BYTES // self._batch_bytes)
        for first in range(0, self.num_examples, size):
            yield Batch(*self._make(np.arange(first, min(first + size, self.num_examples)), None))

    def _make(self, positions_B: Ints, draws_ND: NDArray[np.float32] | None) -> tuple[torch.Tensor, torch.Tensor]:
        data, device = self._recipe.data, self._finish.device
        plan = NOTHING
        if draws_ND is not None:
            plan = make_plan(draws_ND[positions_B], self._recipe.augment, data.height, data.width).to(device)
        rows_B = device.put(torch.from_numpy(self._rows_N[positions_B]))
        images_NHWC = gather(self._images_NHWC, rows_B, plan)
        images_NHWC = images_NHWC.expand(-1, -1, -1, data.channels)  # a grey set feeds a colour model
        labels_B = device.put(torch.from_numpy(self._labels_N[positions_B]))
        return blank(self._finish(images_NHWC), plan), labels_B


class StreamingBatches:
    """Batches of a split whose images are decoded as they are needed, by worker processes that stay."""

    def __init__(self, split: Split, recipe: Recipe, finish: _Finish, bad: dict[tuple[str, int], str]) -> None:
        """`bad` is shared by the splits of a run: unreadable images by split and position."""
        self._split, self._recipe, self._finish, self._bad = split, recipe, finish, bad
        self._order = _Order()
        self._loader = torch.utils.data.DataLoader(
            _Examples(split, finish.spec, recipe.augment.resized_crop_area, recipe.seed),
            batch_sampler=self._order,
            num_workers=recipe.data.num_workers,
            persistent_workers=recipe.data.num_workers > 0,
            worker_init_fn=_ignore_ctrl_c,
            collate_fn=_collate,
        )

    @property
    def num_examples(self) -> int:
        return len(self._split) - len(self.bad_images)

    @property
    def bad_images(self) -> Sequence[str]:
        return tuple(problem for (split, _), problem in sorted(self._bad.items()) if split == self._split.name)

    def __len__(self) -> int:
        return count_batches(len(self._split), self._recipe.data.batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        recipe, data = self._recipe, self._recipe.data
        draws_ND = uniforms(recipe.seed, epoch, np.arange(len(self._split)))
        batches = cut(permutation(recipe.seed, epoch, len(self._split)), data.batch_size)
        for images_NHWC, positions_B in self._load(batches, epoch):
            plan = make_plan(draws_ND[positions_B], recipe.augment, data.height, data.width).to(self._finish.device)
            every_B = torch.arange(len(positions_B), device=images_NHWC.device)
            images = self._finish(gather(images_NHWC, every_B, plan))
            yield Batch(blank(images, plan), self._labels(positions_B))

    def in_order(self) -> Iterator[Batch]:
        batches = cut(np.arange(len(self._split)), self._recipe.data.batch_size)
        for images_NHWC, positions_B in self._load(batches, None):
            yield Batch(self._finish(images_NHWC), self._labels(positions_B))

    def _labels(self, positions_B: Ints) -> torch.Tensor:
        return self._finish.device.put(torch.from_numpy(self._split.labels_N[positions_B]))

    def _load(self, batches: list[Ints], epoch: int | None) -> Iterator[tuple[torch.Tensor, Ints]]:
        """Yield uint8 images on the device and their positions; unreadable images are left out and remembered."""
        limit = self._recipe.data.max_bad_images
        self._order.keys = [[(epoch, position) for position in batch.tolist()] for batch in batches]
        for images_NHWC, positions, problems in self._loader:
            self._bad.update({(self._split.name, position): problem for position, problem in problems.items()})
            if len(self._bad) > limit:
                raise too_many_bad_images(list(self._bad.values()), limit)
            if positions:
                yield self._finish.device.put(images_NHWC), np.array(positions)


Key = tuple[int | None, int]
"""The epoch an image is augmented for, None for none, and its position in the split."""


class _Order(torch.utils.data.Sampler[list[Key]]):
    """The batches of the epoch at hand; set before each pass."""

    def __init__(self) -> None:
        self.keys: list[list[Key]] = []

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


def _ignore_ctrl_c(worker: int) -> None:
    """Leave Ctrl-C, which a terminal sends to every process, to the one that trains."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass(frozen=True)
class _Examples(torch.utils.data.Dataset[tuple[int, UInt8 | str]]):
    """One decoded image at its final size, by key; picklable, so that workers can have a copy."""

    split: Split
    spec: InputSpec
    crop_area: float | None
    seed: int

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: Key) -> tuple[int, UInt8 | str]:
        epoch, position = key
        try:
            if self.crop_area is None or epoch is None:
                return position, self.split.cropped(position, self.spec)
            pixels_HWC = self.split.pixels(position, self.spec.channels)
            height, width, _ = pixels_HWC.shape
            draws_D = uniforms(self.seed, epoch, np.array([position]))[0]
            top, left, crop_H, crop_W = resized_crop_box(draws_D, self.crop_area, height, width)
            part_HWC = np.ascontiguousarray(pixels_HWC[top : top + crop_H, left : left + crop_W])
            return position, resize_and_crop(part_HWC, self.spec)
        except ImageError as error:
            return position, error.message


def _collate(examples: list[tuple[int, UInt8 | str]]) -> tuple[torch.Tensor, list[int], dict[int, str]]:
    good = [(position, image) for position, image in examples if not isinstance(image, str)]
    problems = {position: image for position, image in examples if isinstance(image, str)}
    images = np.stack([image for _, image in good]) if good else np.empty((0, 1, 1, 1), dtype=np.uint8)
    return torch.from_numpy(images), [position for position, _ in good], problems
