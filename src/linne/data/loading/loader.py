"""From a split's pixels to normalised batches on the device: resident and streaming behind one interface.

*Resident* decodes the set once, keeps it as uint8 at the model's input size, and cuts, mirrors and normalises whole
batches where the model runs. *Streaming* decodes as it goes, by threads that stay ahead, for sets beyond memory and
for random crops of the full image.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from linne.data.loading.augment import Augmentation, blank, uniforms
from linne.data.loading.augment_mix import Mixture
from linne.data.loading.finish import Finish
from linne.data.loading.order import count_batches, cut, epoch_batches
from linne.data.loading.pixel_cache import PixelCache
from linne.data.loading.resident import load_pixels, too_many_bad_images
from linne.data.loading.sharing import Share
from linne.data.loading.sizes import resized, size_at
from linne.data.loading.streaming import decode_ahead, random_part
from linne.data.source import Source, Split
from linne.device import Device
from linne.errors import RecipeError, SourceError
from linne.fast_resize import torch_resize
from linne.preprocess import InputSpec, UInt8
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
    mixture: Mixture | None = None
    """What mixup or CutMix put into the images."""
    number: int = 0
    """Which of the epoch's batches it is, from 0."""
    positions_N: Ints | None = None
    """Where in the training split the images are, those of other processes too; None in validation."""
    weight: float = 1.0
    """What its mean loss counts: other than 1 where processes share the whole batch unevenly, 0 for no image."""
    most_in_one: int = 0
    """How many images the process has that got most of the whole batch, where they got it unevenly."""
    views_NCHW: tuple[torch.Tensor, ...] = ()
    """Other views of the images, to which the answers are to be the same; empty where the recipe asks for none."""


class Batches(Protocol):
    """One split, as batches; where several processes train, this one's share of each batch."""

    @property
    def num_examples(self) -> int:
        """How many examples an epoch sees, those of other processes too; unreadable ones not, once they were met."""

    @property
    def bad_images(self) -> Mapping[int, str]:
        """Unreadable images met so far: position in the split to name and reason."""

    def __len__(self) -> int:
        """Return the number of steps in an epoch."""

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield every example once, shuffled and augmented as (seed, epoch) decides, in batches of nearly one size.

        With `data.balance` or `data.repeats` some are yielded several times and others not in this epoch. From batch
        `first` on: those before it are not decoded, and the others are the same without them.
        """

    def in_order(self) -> Iterator[Batch]:
        """Yield every example once, in the split's order, unaugmented."""


def make_batches(
    source: Source,
    recipe: Recipe,
    device: Device,
    advance: Callable[[int], None] | None = None,
    say: Callable[[str], None] | None = None,
    known_bad: Mapping[tuple[str, int], str] | None = None,
    share: Share = Share(),  # noqa: B008  frozen
) -> tuple[Batches, Batches | None]:
    """Return the batches of the training and validation splits (None without one).

    `advance(n)` is called as n more images have been decoded, `say` with a line about pixels that were kept on disk.
    `known_bad` are the unreadable images that a run met before it went on, by split and position.
    `data.batch_size` is the size of a whole batch, of which this process gets its `share`.

    Raises:
        RecipeError: batches are smaller than the number of processes.
        SourceError: more unreadable images than `data.max_bad_images`, or none left to train on.
    """
    finish = _Finish(recipe, device, share)
    splits = [source.splits[name] for name in ("train", "val") if name in source.splits]
    if recipe.data.val_fraction is None:
        splits = splits[:1]
    made: list[Batches] = []
    if recipe.data.loader == "resident":
        limit, cache = recipe.data.max_bad_images, PixelCache() if recipe.data.cache else None
        pixels = load_pixels(splits, finish.spec, limit, torch_resize, cache=cache, advance=advance)
        if pixels.note is not None and say is not None:
            say(pixels.note)
        on_device = _as_tensor(pixels.images_NHWC).to(device.torch_device)
        for split, rows, names in zip(splits, pixels.rows, pixels.bad_images, strict=True):
            made.append(ResidentBatches(on_device, rows, split.labels_N, names, recipe, finish))
    else:
        bad = dict(known_bad or {})
        made.extend(StreamingBatches(split, recipe, finish, bad) for split in splits)
    if made[0].num_examples == 0:
        raise SourceError(f"no readable training image in `{source.name}`")
    _check_share(made[0], share)
    return made[0], made[1] if len(made) > 1 else None


def _check_share(batches: Batches, share: Share) -> None:
    smallest = batches.num_examples // len(batches)
    if smallest < share.size:
        raise RecipeError(
            f"a batch of {smallest} cannot be shared by {share.size} processes",
            hint=f"use --batch-size {2 * share.size} or more, or fewer processes",
        )


def _as_tensor(array: NDArray[np.uint8]) -> torch.Tensor:
    """Return a tensor over the array's own memory, which nobody writes to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


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
        crop_mode=data.crop_mode,
    )


class _Finish:
    """From uint8 images on the device to batches of a step, augmented or not."""

    def __init__(self, recipe: Recipe, device: Device, share: Share) -> None:
        self.device, self.spec, self.share, self._recipe = device, input_spec(recipe), share, recipe
        self._normalise = Finish(self.spec, device, channels_last=recipe.device.channels_last)
        self._augmentation = Augmentation(recipe, device) if recipe.augment != AugmentConfig() else None
        mixes = (recipe.augment.mixup_alpha, recipe.augment.cutmix_alpha) != (None, None)
        self.needs_neighbour = mixes and share.size > 1

    def mine(self, batch_N: Ints) -> Ints:
        """Return what of a batch to hand to `augmented`: this process's share, and what its first is mixed with."""
        return self.share.after_neighbour(batch_N) if self.needs_neighbour else self.share.of(batch_N)

    def plain(self, images_BHWC: torch.Tensor, labels_B: Ints) -> Batch:
        """Return the images as they are."""
        return Batch(self._normalise(self._coloured(images_BHWC)), self._put(labels_B))

    def weighted(self, batch: Batch, whole_N: Ints) -> Batch:
        """Return this process's part of the batch `whole_N` with what it counts."""
        share = self.share
        if share.size == 1:
            return batch
        most = -(-len(whole_N) // share.size)
        return dataclasses.replace(batch, positions_N=whole_N, weight=share.weight(whole_N), most_in_one=most)

    def sized(self, batch: Batch, epoch: int, num_batches: int) -> Batch:
        """Return a batch of an epoch with images of the size that is due then."""
        if self._recipe.augment.size_start is None:
            return batch
        size = size_at(self._recipe, epoch, batch.number, num_batches)
        views_NCHW = tuple(resized(view_NCHW, size) for view_NCHW in batch.views_NCHW)
        return dataclasses.replace(batch, images_NCHW=resized(batch.images_NCHW, size), views_NCHW=views_NCHW)

    def nothing(self) -> Batch:
        """Return a batch of one black image that counts nothing."""
        black_1HWC = torch.zeros((1, self.spec.height, self.spec.width, self.spec.channels), dtype=torch.uint8)
        return dataclasses.replace(self.plain(self.device.put(black_1HWC), np.zeros(1, np.int64)), weight=0.0)

    def augmented(
        self,
        images_NHWC: torch.Tensor,
        rows_N: Ints | None,
        ids: Sequence[Ints],
        labels_N: Ints,
        epoch: int,
        first: int,
        num_positions: int,
    ) -> Iterator[Batch]:
        """Yield a batch for each array of `ids`, whose images lie one after another in rows `rows_N`; None for all.

        An id is a draw (see `order`) from the split's `num_positions`, the unreadable ones among them. Several small
        batches are made as one: the cost of a call is paid once. The first is the epoch's `first`.
        Each array is what `mine` returned.
        """
        views: list[torch.Tensor] = []
        if self._augmentation is None:
            chosen = images_NHWC if rows_N is None else images_NHWC.index_select(0, self._put(rows_N))
            whole = self.plain(chosen, labels_N)
        else:
            rows = self._put(np.arange(len(images_NHWC)) if rows_N is None else rows_N)
            taken_BHWC, plan = self._augmentation.take(images_NHWC, rows, np.concatenate(ids), epoch)
            finished = self._normalise(self._coloured(taken_BHWC)).chunk(len(taken_BHWC) // len(labels_N))
            images_BCHW, *views = (blank(view_BCHW, plan) for view_BCHW in finished)
            whole = Batch(images_BCHW, self._put(labels_N))
        start = 0
        for number, ids_B in enumerate(ids, first):
            part = slice(start, start + len(ids_B))
            images, labels, mixture = whole.images_NCHW[part], whole.labels_N[part], None
            if self._augmentation is not None:
                images, mixture = self._augmentation.mix(images, labels, ids_B, epoch)
            if self.needs_neighbour and mixture is not None:  # which has done its part
                images, labels = images[1:], labels[1:]
                mixture = Mixture(mixture.labels_N[1:], mixture.shares_N[1:])
            views_NCHW = tuple(view_NCHW[part] for view_NCHW in views)
            yield Batch(images, labels, mixture, number, ids_B % num_positions, views_NCHW=views_NCHW)
            start = part.stop

    def _coloured(self, images_BHWC: torch.Tensor) -> torch.Tensor:
        return images_BHWC.expand(-1, -1, -1, self.spec.channels)  # a grey set feeds a colour model

    def _put(self, values_B: Ints) -> torch.Tensor:
        return self.device.put(torch.from_numpy(values_B))


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
        self._positions_N = np.flatnonzero(readable)
        self._num_positions = len(rows_N)
        self._labels_N = labels_N[readable]
        self.bad_images = dict(zip(np.flatnonzero(~readable).tolist(), bad_images, strict=True))
        self._recipe, self._finish = recipe, finish
        self._image_bytes = 4 * recipe.data.channels * recipe.data.height * recipe.data.width

    @property
    def num_examples(self) -> int:
        return len(self._rows_N)

    def __len__(self) -> int:
        return count_batches(self.num_examples, self._recipe.data.batch_size)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        batches = epoch_batches(self._recipe.seed, epoch, self._labels_N, self._recipe.data)
        in_group = max(1, GROUP_BYTES // (self._image_bytes * len(batches[0])))
        # The groups are those of a whole epoch wherever it is entered: kernels may round by the size of their input.
        for start in range(first - first % in_group, len(batches), in_group):
            group = [self._finish.mine(batch) for batch in batches[start : start + in_group]]
            chosen = np.concatenate(group) % self.num_examples
            ids = [self._positions(draws) + draws // self.num_examples * self._num_positions for draws in group]
            rows_N, labels_N, count = self._rows_N[chosen], self._labels_N[chosen], self._num_positions
            for batch in self._finish.augmented(self._images_NHWC, rows_N, ids, labels_N, epoch, start, count):
                if batch.number >= first:
                    part = self._finish.weighted(batch, self._positions(batches[batch.number]))
                    yield self._finish.sized(part, epoch, len(batches))

    def _positions(self, draws_D: Ints) -> Ints:
        return self._positions_N[draws_D % self.num_examples]

    def in_order(self) -> Iterator[Batch]:
        size, share = max(1, EVAL_BATCH_BYTES // self._image_bytes), self._finish.share
        positions_N = np.arange(self.num_examples)
        for first in range(0, self.num_examples, size * share.size):
            part = share.of(positions_N[first : first + size * share.size])
            if len(part):
                rows = self._finish.device.put(torch.from_numpy(self._rows_N[part]))
                yield self._finish.plain(self._images_NHWC.index_select(0, rows), self._labels_N[part])
            else:
                yield self._finish.nothing()


class StreamingBatches:
    """Batches of a split whose images are decoded as they are needed, by threads that stay ahead."""

    def __init__(self, split: Split, recipe: Recipe, finish: _Finish, bad: dict[tuple[str, int], str]) -> None:
        """`bad` is shared by the splits of a run: unreadable images by split and position."""
        self._split, self._recipe, self._finish, self._bad = split, recipe, finish, bad

    @property
    def num_examples(self) -> int:
        return len(self._split) - len(self.bad_images)

    @property
    def bad_images(self) -> Mapping[int, str]:
        return {position: why for (split, position), why in sorted(self._bad.items()) if split == self._split.name}

    def __len__(self) -> int:
        return count_batches(len(self._split), self._recipe.data.batch_size)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        batches = epoch_batches(self._recipe.seed, epoch, self._split.labels_N, self._recipe.data)
        finish, share, count = self._finish, self._finish.share, len(self._split)
        mine = [finish.mine(batch) for batch in batches]
        for number, images_BHWC, draws_B in self._decoded(mine, lambda draw: self._random_part(draw, epoch), first):
            if len(draws_B) > len(mine[number]) - len(share.of(batches[number])):
                if draws_B[0] != mine[number][0] and finish.needs_neighbour:  # unreadable: another will do
                    draws_B = np.concatenate((draws_B[-1:], draws_B))
                    images_BHWC = torch.cat((images_BHWC[-1:], images_BHWC))
                labels_B = self._split.labels_N[draws_B % count]
                for batch in finish.augmented(images_BHWC, None, [draws_B], labels_B, epoch, number, count):
                    yield finish.sized(finish.weighted(batch, batches[number] % count), epoch, len(batches))
            elif share.size > 1:  # nothing readable: the others must not wait for this process in vain
                nothing = dataclasses.replace(finish.nothing(), number=number)
                yield finish.sized(nothing, epoch, len(batches))

    def in_order(self) -> Iterator[Batch]:
        share = self._finish.share
        mine = [share.of(batch) for batch in cut(np.arange(len(self._split)), self._recipe.data.batch_size)]
        for _, images_BHWC, positions_B in self._decoded(mine, self._whole):
            if len(positions_B):
                yield self._finish.plain(images_BHWC, self._split.labels_N[positions_B])
            elif share.size > 1:
                yield self._finish.nothing()

    def _whole(self, position: int) -> UInt8:
        return self._split.cropped(position, self._finish.spec, torch_resize)

    def _random_part(self, draw: int, epoch: int) -> UInt8:
        smallest_area, position = self._recipe.augment.resized_crop_area, draw % len(self._split)
        if smallest_area is None:
            return self._whole(position)
        draws_D = uniforms(self._recipe.seed, epoch, np.array([draw]))[0]
        return random_part(self._split, position, self._finish.spec, draws_D, smallest_area, torch_resize)

    def _decoded(
        self, batches: Sequence[Ints], decode: Callable[[int], UInt8], first: int = 0
    ) -> Iterator[tuple[int, torch.Tensor, Ints]]:
        """Yield each batch's number, its uint8 images on the device and their draws, from batch `first` on.

        Unreadable images are left out and remembered.
        """
        data, device, batches = self._recipe.data, self._finish.device, batches[first:]
        shape = data.height, data.width, data.channels
        limit, pin = data.max_bad_images, device.pins_memory
        decoded = decode_ahead(batches, decode, shape, num_threads=data.num_workers, pin=pin)
        for number, batch in enumerate(decoded, first):
            bad = {draw % len(self._split): reason for draw, reason in batch.problems.items()}
            self._bad.update({(self._split.name, position): reason for position, reason in bad.items()})
            if len(self._bad) > limit:
                raise too_many_bad_images([reason for _, reason in sorted(self._bad.items())], limit)
            yield number, device.put(batch.images_BHWC), batch.positions_B
