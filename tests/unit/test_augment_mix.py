"""mixup and CutMix."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from linne.data.loading.augment import MIX_STREAM, uniforms
from linne.data.loading.augment_mix import mix, plan_mix
from linne.device import Device

CPU = Device.pick("cpu")
SHARES = np.random.default_rng(0).random((4000, 8), np.float32)


def batch(count: int = 6, height: int = 9, width: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(np.random.default_rng(1).normal(size=(count, 3, height, width))).float(), torch.arange(
        count
    )


def test_mixup_is_torchvisions_for_the_same_share():
    images, labels = batch()
    mixed, mixture = mix(images, labels, SHARES[:6], 0.4, None, CPU)
    own = mixture.shares_N[:, None, None, None]
    # The formula of torchvision's MixUp, which draws one share for a whole batch.
    assert torch.allclose(mixed, images.roll(1, 0) * (1 - own) + images * own, atol=1e-6)
    assert torch.equal(mixture.labels_N, torch.tensor([5, 0, 1, 2, 3, 4]))


def test_cutmix_pastes_one_box_of_the_image_before_and_counts_its_pixels():
    images, labels = batch(300)
    mixed, mixture = mix(images, labels, SHARES[:300], None, 1.0, CPU)
    own, other = (mixed == images).all(1), (mixed == images.roll(1, 0)).all(1)
    assert torch.all(own ^ other), "every pixel comes whole from one of the two"
    assert torch.allclose(own.float().mean((1, 2)), mixture.shares_N, atol=1e-6)
    for index in range(300):
        rows, columns = other[index].any(1), other[index].any(0)
        assert torch.equal(other[index], rows[:, None] & columns[None]), "what is pasted is a box"
        assert rows.int().diff().abs().sum() <= 2
        assert columns.int().diff().abs().sum() <= 2


def test_a_cutmix_box_is_torchvisions_for_the_same_numbers():
    height, width = 33, 20
    rows, columns, _, shares = plan_mix(SHARES[:200], None, 1.0, height, width)
    for index in range(200):
        # With alpha 1 the share is the random number itself; the rest is torchvision.transforms.v2.CutMix.make_params.
        share, centre_y, centre_x = SHARES[index, 1], int(SHARES[index, 2] * height), int(SHARES[index, 3] * width)
        half = 0.5 * np.sqrt(1 - np.float64(share))
        half_y, half_x = int(half * height), int(half * width)
        top, bottom = max(centre_y - half_y, 0), min(centre_y + half_y, height)
        left, right = max(centre_x - half_x, 0), min(centre_x + half_x, width)
        assert np.flatnonzero(rows[index]).tolist() == list(range(top, bottom))
        assert np.flatnonzero(columns[index]).tolist() == list(range(left, right))
        assert shares[index] == pytest.approx(1 - (bottom - top) * (right - left) / (height * width), abs=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_shares_follow_the_beta_distribution(alpha: float):
    _, _, _, shares = plan_mix(SHARES, alpha, None, 8, 8)
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)); five deviations of a mean of 4,000.
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(shares.mean() - 0.5) < 5 * np.sqrt(variance / 4000)
    assert abs(shares.var() / variance - 1) < 0.1


def test_with_both_each_image_has_one_of_them_evenly():
    rows, columns, own, _ = plan_mix(SHARES, 0.8, 1.0, 16, 16)
    is_box = own == 0
    assert abs(is_box.mean() - 0.5) < 0.05
    assert rows[~is_box].all()
    assert columns[~is_box].all()


def test_an_images_share_and_box_are_its_own_and_only_the_partner_is_the_batchs():
    ids = np.array([7, 3, 90, 41])
    alone = plan_mix(uniforms(0, 2, ids[2:3], MIX_STREAM), 0.3, 1.0, 8, 8)
    together = plan_mix(uniforms(0, 2, ids, MIX_STREAM), 0.3, 1.0, 8, 8)
    assert all(np.array_equal(part[2], one[0]) for part, one in zip(together, alone, strict=True))


def test_one_image_is_mixed_with_itself():
    images, labels = batch(1)
    for alphas in ((0.5, None), (None, 0.5)):
        mixed, mixture = mix(images, labels, SHARES[:1], *alphas, CPU)
        assert torch.allclose(mixed, images, atol=1e-6)
        assert torch.equal(mixture.labels_N, labels)


def test_the_layout_that_the_model_wants_is_kept():
    images, labels = batch()
    mixed, _ = mix(images.to(memory_format=torch.channels_last), labels, SHARES[:6], 0.4, 1.0, CPU)
    assert mixed.is_contiguous(memory_format=torch.channels_last)
