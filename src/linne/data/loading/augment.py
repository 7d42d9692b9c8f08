"""What is done to training images only: a whole batch at a time, on the device, repeatable per example.

Every random number is a pure function of (seed, epoch, example), so neither the number of workers nor the make-up of
a batch changes what happens to an image; only which neighbour mixup and CutMix take is the batch's. A loader does:

    augmentation = Augmentation(recipe, device)
    images_BHWC, plan = augmentation.take(images_NHWC, rows_B, ids_B, epoch)
    images_BCHW = blank(normalised(images_BHWC), plan)  # three times as many where answers to views are compared
    images_BCHW, mixture = augmentation.mix(images_BCHW, labels_B, ids_B, epoch)  # one batch of a step
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from linne.data.loading import augment_augmix as chains
from linne.data.loading import augment_ops as ops
from linne.data.loading import augment_policy as policies
from linne.data.loading.augment_mix import Mixture, mix
from linne.device import Device
from linne.recipe import AugmentConfig, Recipe

NUM_DRAWS = 8
"""Numbers an example has in an epoch and stream; each use has a fixed place, so that adding one moves no other."""
FLIP, SHIFT_Y, SHIFT_X, CUTOUT_Y, CUTOUT_X, CROP_AREA, CROP_Y, CROP_X = range(NUM_DRAWS)
ROTATION, BRIGHTNESS, CONTRAST, SATURATION, HUE = range(5)
ERASED, ERASE_AREA, ERASE_ASPECT, ERASE_Y, ERASE_X = range(5)
FRAME_STREAM, LOOK_STREAM, MIX_STREAM, POLICY_STREAM = range(4)
"""The places above are of the first stream, the second and `ERASE_STREAM`; from the last on each operation of a policy
has one."""
ERASE_STREAM = 11
"""After those of the most operations that a policy may have."""
AUGMIX_STREAM = 12
"""Of the first operation of AugMix's first chain; the others follow, then those of a second mixture."""
NUM_VIEWS = 2
"""Mixtures of an image whose answers are compared with those to the image itself (Hendrycks et al. 2020)."""
ERASE_AREAS, ERASE_ASPECT_MOST = (0.02, 0.4), 1 / 0.3
"""Of the image, and height over width or its inverse (Zhong et al. 2017)."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniforms(seed: int, epoch: int, ids_N: NDArray[np.int64], stream: int = FRAME_STREAM) -> NDArray[np.float32]:
    """Return N x `NUM_DRAWS` numbers in [0, 1), decided by seed, epoch, stream and each example's id alone.

    The generator is SplitMix64 (Steele, Lea and Flood 2014) used as a counter: hashing (key, id, place).
    """
    key = _mix_bits(np.array([(seed * int(_GOLDEN) + epoch) % 2**64], dtype=np.uint64))
    if stream:
        key = _mix_bits(key + np.uint64(stream))
    counters = ids_N[:, None] * NUM_DRAWS + np.arange(1, NUM_DRAWS + 1)
    bits = _mix_bits(key + counters.astype(np.uint64) * _GOLDEN)
    numbers: NDArray[np.float32] = (bits >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
    return numbers


def frame_draws(seed: int, epoch: int, ids_N: NDArray[np.int64], config: AugmentConfig) -> NDArray[np.float32]:
    """Return the `uniforms` by which images are shifted and mirrored in an epoch.

    Where the mirror image alternates it is drawn in the first epoch alone (Jordan 2024): half a turn of the circle on,
    in every odd epoch, are all those that were not mirrored.
    """
    draws_ND = uniforms(seed, epoch, ids_N)
    if config.alternate:
        draws_ND[:, FLIP] = (uniforms(seed, 0, ids_N)[:, FLIP] + np.float32(0.5) * (epoch % 2)) % 1
    return draws_ND


def _mix_bits(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


class Augmentation:
    """What a recipe does to training images, on one device."""

    def __init__(self, recipe: Recipe, device: Device) -> None:
        self._config, self._seed, self._device = recipe.augment, recipe.seed, device
        # What normalises to 0 fills what a turned image leaves open, as cutout does.
        self._fill_C = device.put(torch.tensor(recipe.data.mean) * 255)
        size = recipe.data.height, recipe.data.width
        tables = {"rand": policies.rand, "augmix": chains.table}
        self._table = tables.get(self._config.policy or "trivial", policies.trivial_wide)(*size)

    def take(
        self, images_NHWC: torch.Tensor, rows_B: torch.Tensor, ids_B: NDArray[np.int64], epoch: int
    ) -> tuple[torch.Tensor, Plan]:
        """Return images `rows_B` of `images_NHWC`, augmented, as uint8 B x H x W x C; `plan` says what to blank.

        `ids_B` are the examples' numbers in their split, whichever rows their pixels lie in. With
        `augment.consistency` there are three times B: all before the policy, then all in `NUM_VIEWS` ways after it.
        """
        config = self._config
        _, height, width, _ = images_NHWC.shape
        plan = make_plan(frame_draws(self._seed, epoch, ids_B, config), config, height, width)
        if config.erase is not None:
            plan = erasing(uniforms(self._seed, epoch, ids_B, ERASE_STREAM), config.erase, height, width, plan)
        plan = plan.to(self._device)
        images_BHWC = gather(images_NHWC, rows_B, plan)
        changes = (
            config.rotate_degrees,
            config.brightness,
            config.contrast,
            config.saturation,
            config.hue,
            config.policy,
        )
        if any(change is not None for change in changes):
            images_BCHW = images_BHWC.permute(0, 3, 1, 2).contiguous()
            images_BCHW = self._change_look(images_BCHW, ids_B, epoch)
            if config.consistency is None:
                images_BCHW = self._follow_policy(images_BCHW, ids_B, epoch)
            else:
                views = (self._follow_policy(images_BCHW, ids_B, epoch, view) for view in range(NUM_VIEWS))
                images_BCHW = torch.cat((images_BCHW, *views))
            images_BHWC = images_BCHW.permute(0, 2, 3, 1).contiguous()
        return images_BHWC, plan

    def mix(
        self, images_BCHW: torch.Tensor, labels_B: torch.Tensor, ids_B: NDArray[np.int64], epoch: int
    ) -> tuple[torch.Tensor, Mixture | None]:
        """Return one step's batch after mixup or CutMix and what was mixed, None when neither is on."""
        alphas = self._config.mixup_alpha, self._config.cutmix_alpha
        if alphas == (None, None):
            return images_BCHW, None
        draws_BD = uniforms(self._seed, epoch, ids_B, MIX_STREAM)
        return mix(images_BCHW, labels_B, draws_BD, *alphas, self._device)

    def _change_look(self, images_BCHW: torch.Tensor, ids_B: NDArray[np.int64], epoch: int) -> torch.Tensor:
        """Return images turned, then with brightness, contrast, saturation and hue changed, in this order."""
        config, put = self._config, self._device.put
        _, channels, height, width = images_BCHW.shape
        draws_BD = uniforms(self._seed, epoch, ids_B, LOOK_STREAM)
        if config.rotate_degrees is not None:
            degrees_B = _either_way(draws_BD[:, ROTATION], config.rotate_degrees)
            matrices_B23 = put(torch.from_numpy(policies.rotate(degrees_B, height, width)))
            images_BCHW = policies.warp(images_BCHW, matrices_B23, self._fill_C[:channels])
        for op, strength, place, middle in (
            (ops.brightness, config.brightness, BRIGHTNESS, 1),
            (ops.contrast, config.contrast, CONTRAST, 1),
            (ops.saturation, config.saturation, SATURATION, 1),
            (ops.hue, config.hue, HUE, 0),
        ):
            if strength is not None:
                strengths_B = put(torch.from_numpy(middle + _either_way(draws_BD[:, place], strength)))
                images_BCHW = ops.in_pieces(op, images_BCHW, strengths_B)
        return images_BCHW

    def _follow_policy(
        self, images_BCHW: torch.Tensor, ids_B: NDArray[np.int64], epoch: int, view: int = 0
    ) -> torch.Tensor:
        """Return images after one operation of TrivialAugment, RandAugment's few of one strength or AugMix.

        AugMix has other random numbers for each `view`.
        """
        config = self._config
        fill_C = self._fill_C[: images_BCHW.shape[1]]
        if config.policy == "augmix":

            def draw(stream: int) -> NDArray[np.float32]:
                return uniforms(self._seed, epoch, ids_B, AUGMIX_STREAM + view * chains.NUM_STREAMS + stream)

            return chains.augmix(images_BCHW, draw, config, self._table, fill_C, self._device)
        num_layers = {None: 0, "trivial": 1, "rand": config.rand_num_ops}[config.policy]
        level = config.rand_magnitude if config.policy == "rand" else None
        for layer in range(num_layers):
            draws_BD = uniforms(self._seed, epoch, ids_B, POLICY_STREAM + layer)
            images_BCHW = policies.apply(images_BCHW, draws_BD, self._table, level, fill_C, self._device)
        return images_BCHW


def _either_way(draws_B: NDArray[np.float32], most: float) -> NDArray[np.float32]:
    """Return uniform numbers of [-most, most)."""
    return (2 * draws_B - 1) * np.float32(most)


@dataclass(frozen=True, slots=True)
class Plan:
    """What happens to each image of a batch, as index and mask tensors."""

    rows_BH: torch.Tensor | None
    """Where each output row comes from; None leaves the images where they are."""
    cols_BW: torch.Tensor | None
    keep_rows_BH: torch.Tensor | None
    """False where the cutout lies; a pixel is blanked when neither its row nor its column is kept."""
    keep_cols_BW: torch.Tensor | None

    def to(self, device: Device) -> Plan:
        """Return the plan on `device`."""
        parts = (self.rows_BH, self.cols_BW, self.keep_rows_BH, self.keep_cols_BW)
        return Plan(*(None if part is None else device.put(part) for part in parts))


NOTHING = Plan(None, None, None, None)


def make_plan(draws_BD: NDArray[np.float32], config: AugmentConfig, height: int, width: int) -> Plan:
    """Return what `config` does to the images with these `uniforms`, on the host."""
    rows = cols = keep_rows = keep_cols = None
    if config.flip or config.crop_padding:
        rows = np.broadcast_to(np.arange(height), (len(draws_BD), height))
        cols = np.broadcast_to(np.arange(width), (len(draws_BD), width))
        if config.crop_padding:
            reach = 2 * config.crop_padding + 1
            shift_y = (draws_BD[:, SHIFT_Y] * reach).astype(np.int64) - config.crop_padding
            shift_x = (draws_BD[:, SHIFT_X] * reach).astype(np.int64) - config.crop_padding
            rows = _reflect(rows + shift_y[:, None], height)
            cols = _reflect(cols + shift_x[:, None], width)
        if config.flip:
            mirrored = draws_BD[:, FLIP] < 0.5
            cols = np.where(mirrored[:, None], cols[:, ::-1], cols)
    if config.cutout:
        keep_rows = _outside(draws_BD[:, CUTOUT_Y], height, config.cutout)
        keep_cols = _outside(draws_BD[:, CUTOUT_X], width, config.cutout)
    parts = (rows, cols, keep_rows, keep_cols)
    # Writable, as torch wants it: the rows of a single image are still the read-only view that repeats them.
    return Plan(*(None if part is None else torch.from_numpy(np.require(part, None, ["C", "W"])) for part in parts))


def erasing(draws_BD: NDArray[np.float32], probability: float, height: int, width: int, plan: Plan) -> Plan:
    """Return `plan` with a random rectangle blanked in this share of the images (Zhong et al. 2017).

    Its area is uniform and its aspect log-uniform among those with which it fits into the image, where it lies anywhere
    in whole.
    """
    low, high = ERASE_AREAS
    area_B = low + (high - low) * draws_BD[:, ERASE_AREA].astype(np.float64)
    least_B = np.log(np.maximum(1 / ERASE_ASPECT_MOST, area_B * height / width) * width / height)
    most_B = np.log(np.minimum(ERASE_ASPECT_MOST, height / width / area_B) * width / height)
    stretch_B = np.exp(least_B + (most_B - least_B) * draws_BD[:, ERASE_ASPECT])
    hit_B = draws_BD[:, ERASED] < probability
    keep_rows = _beside(draws_BD[:, ERASE_Y], np.where(hit_B, np.sqrt(area_B * stretch_B), 0), height)
    keep_cols = _beside(draws_BD[:, ERASE_X], np.where(hit_B, np.sqrt(area_B / stretch_B), 0), width)
    return Plan(plan.rows_BH, plan.cols_BW, torch.from_numpy(keep_rows), torch.from_numpy(keep_cols))


def gather(images_NHWC: torch.Tensor, indices_B: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Return images `indices_B`, shifted and mirrored as `plan` says, as uint8 B x H x W x C."""
    if plan.rows_BH is None or plan.cols_BW is None:
        return images_NHWC.index_select(0, indices_B)
    _, height, width, channels = images_NHWC.shape
    # Selecting pixels of the flattened set is one copy, and five times faster than indexing with three tensors.
    rows_BHW = (indices_B[:, None, None] * height + plan.rows_BH[:, :, None]) * width
    pixels = (rows_BHW + plan.cols_BW[:, None, :]).reshape(-1)
    return images_NHWC.view(-1, channels).index_select(0, pixels).view(-1, height, width, channels)


def blank(images_BCHW: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Return normalised images with each one's cutout set to 0, the mean of the data (DeVries and Taylor 2017)."""
    if plan.keep_rows_BH is None or plan.keep_cols_BW is None:
        return images_BCHW
    keep_BHW = plan.keep_rows_BH[:, :, None] | plan.keep_cols_BW[:, None, :]
    # As a number: the product of numbers and truths is truths on DirectML (its issue 737).
    return images_BCHW * keep_BHW[:, None].to(images_BCHW.dtype)


def resized_crop_box(
    draws_D: NDArray[np.float32], smallest_area: float, height: int, width: int
) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) of a random part of the image that keeps its aspect ratio.

    The area is uniform in [`smallest_area`, 1] of the image, as in Inception's training (Szegedy et al. 2014)
    without its change of aspect.
    """
    side = float(smallest_area + (1 - smallest_area) * draws_D[CROP_AREA]) ** 0.5
    crop_H, crop_W = max(1, round(height * side)), max(1, round(width * side))
    top = int(draws_D[CROP_Y] * (height - crop_H + 1))
    left = int(draws_D[CROP_X] * (width - crop_W + 1))
    return top, left, crop_H, crop_W


def _reflect(positions: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Fold positions outside [0, size) back in, without repeating the edge."""
    if size == 1:
        return np.zeros_like(positions)
    folded = np.abs(positions) % (2 * size - 2)
    return np.where(folded >= size, 2 * size - 2 - folded, folded)


def _beside(draws_N: NDArray[np.float32], shares_N: NDArray[np.float64], size: int) -> NDArray[np.bool_]:
    """Return N x size: True outside a piece that is `shares_N` of the size long and lies anywhere within it."""
    lengths_N1 = np.clip(np.rint(shares_N * size), shares_N > 0, size).astype(np.int64)[:, None]
    first_N1 = (draws_N[:, None] * (size - lengths_N1 + 1)).astype(np.int64)
    positions = np.arange(size)
    return (positions < first_N1) | (positions >= first_N1 + lengths_N1)


def _outside(draws_N: NDArray[np.float32], size: int, side: int) -> NDArray[np.bool_]:
    """Return N x size: True where a square of `side`, its centre uniform over the image, does not lie."""
    first = (draws_N * size).astype(np.int64)[:, None] - side // 2
    positions = np.arange(size)
    return (positions < first) | (positions >= first + side)
