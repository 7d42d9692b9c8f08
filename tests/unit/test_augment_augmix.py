"""AugMix over a batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

from linne.data.loading import augment_augmix as chains
from linne.data.loading import augment_policy as policies
from linne.data.loading.augment import AUGMIX_STREAM, uniforms
from linne.data.loading.augment_augmix import DEPTH, MOST_DEPTH, OWN, SHARE, augmix, chain_depths, mixing_shares, table
from linne.device import Device
from linne.recipe import AugmentConfig
from linne.recipe_values import LIMITS

CPU = Device.pick("cpu")
FILL = torch.tensor([120.0, 110.0, 100.0])
TORCHVISION = {
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateX",
    "translate_y": "TranslateY",
    "autocontrast": "AutoContrast",
}


def config(**fields) -> AugmentConfig:
    return AugmentConfig(policy="augmix", **{f"augmix_{name}": value for name, value in fields.items()})


def draws_of(count: int, seed: int = 0) -> Callable[[int], np.ndarray]:
    return lambda stream: uniforms(seed, 0, np.arange(count), AUGMIX_STREAM + stream)


def photos(count: int) -> torch.Tensor:
    coarse = np.random.default_rng(7).integers(0, 256, (count, 3, 4, 4)).astype(np.float32)
    return torch.nn.functional.interpolate(torch.from_numpy(coarse), (12, 9), mode="bilinear").byte()


def test_the_table_is_torchvisions_without_the_operations_that_are_tested_with():
    from torchvision.transforms import AugMix

    ours, theirs = table(224, 300), AugMix(all_ops=False)._augmentation_space(10, (224, 300))
    assert {TORCHVISION.get(name, name.capitalize()) for name in ours} == set(theirs)
    levels, positive = np.linspace(0, 30, 10, dtype=np.float32), np.zeros(10, np.bool_)
    for name, scale in ours.items():
        strengths, signed = theirs[TORCHVISION.get(name, name.capitalize())]
        found = scale.at(levels, positive)
        wanted = np.broadcast_to(strengths.numpy(), 10)
        assert np.allclose(np.round(found) if name == "posterize" else found, wanted, rtol=1e-5, atol=1e-5), name
        assert scale.signed == signed, name


@pytest.mark.parametrize("fields", [{}, {"severity": 10, "width": 2, "depth": 4, "alpha": 0.3}], ids=str)
def test_an_image_is_mixed_with_its_chains_as_the_paper_says(fields):
    images, draw, asked = photos(40), draws_of(40), config(**fields)
    alpha, severity = asked.augmix_alpha, asked.augmix_severity
    found = augmix(images, draw, asked, table(12, 9), FILL, CPU)
    names = list(table(12, 9))
    for index, image in enumerate(images):
        numbers = np.stack([draw(stream)[index] for stream in range(8 * MOST_DEPTH)]).astype(np.float64)
        gammas = stats.gamma.ppf([numbers[k * MOST_DEPTH, SHARE] for k in range(asked.augmix_width)], alpha)
        weights = gammas / gammas.sum()
        mix = torch.zeros(image.shape)
        for chain, weight in enumerate(weights):
            changed = image[None]
            first = chain * MOST_DEPTH
            for step in range(asked.augmix_depth or 1 + int(3 * numbers[first, DEPTH])):
                op, level, sign = numbers[first + step, :3]
                name = names[int(op * len(names))]
                scale = table(12, 9)[name]
                part = (0.1 + (severity - 0.1) * level) / 10
                strength = scale.weakest + part * (scale.strongest - scale.weakest)
                strength = np.array([-strength if scale.signed and sign < 0.5 else strength], np.float32)
                if name in policies.GEOMETRY:
                    matrices = torch.from_numpy(policies.GEOMETRY[name](strength, 12, 9))
                    changed = policies.ops.warp(changed, matrices, FILL)
                else:
                    changed = policies.PIXELS[name](changed, torch.from_numpy(strength))
            mix += float(weight) * changed[0]
        m = float(stats.beta.ppf(numbers[0, OWN], alpha, alpha))
        wanted = (1 - m) * image + m * mix
        # Rounded to the nearest level; the levels' float32 may round a turned pixel to the next.
        assert (found[index] - wanted).abs().max() <= 1.01
        assert (found[index] - wanted).abs().mean() <= 0.3


@pytest.mark.parametrize("alpha", [0.1, 1.0, 3.0])
def test_shares_are_dirichlet_and_beta(alpha):
    shares_WB = mixing_shares(draws_of(20_000), config(alpha=alpha))
    own_B = shares_WB.sum(0)
    assert np.isfinite(shares_WB).all()
    assert own_B.min() >= 0
    assert own_B.max() <= 1 + 1e-12
    # The largest distance of 20,000 draws from their law: 0.0138 is passed once in a thousand tests.
    assert stats.kstest(own_B, stats.beta(alpha, alpha).cdf).statistic < 0.0138
    for shares_B in shares_WB:  # each part of a Dirichlet variable is a Beta variable
        assert stats.kstest(shares_B / own_B, stats.beta(alpha, 2 * alpha).cdf).statistic < 0.0138
    assert abs(np.corrcoef(shares_WB[0] / own_B, own_B)[0, 1]) < 5 / np.sqrt(20_000)


def test_chains_have_one_to_three_operations_evenly_or_as_many_as_asked():
    draw = draws_of(9000)
    for chain in range(3):
        counts = np.bincount(chain_depths(draw, chain, config()), minlength=4)
        assert counts[0] == 0
        assert np.abs(counts[1:] - 3000).max() < 5 * 45  # five deviations of a binomial count
    assert set(chain_depths(draw, 0, config(depth=5)).tolist()) == {5}


def test_no_two_operations_of_the_longest_chains_share_their_random_numbers():
    assert LIMITS["augment.augmix_depth"][1] == MOST_DEPTH
    used = []
    real = draws_of(4)

    def draw(stream: int) -> np.ndarray:
        used.append(stream)
        return real(stream)

    augmix(photos(4), draw, config(width=8, depth=8), table(12, 9), FILL, CPU)
    assert set(used) == set(range(64))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 2, 33])
def test_a_batch_of_any_size_keeps_its_shape_and_layout_and_is_not_written_to(count, channels):
    images = photos(count)[:, :channels].contiguous()
    before = images.clone()
    result = augmix(images, draws_of(count), config(), table(12, 9), FILL[:channels], CPU)
    assert result.shape == images.shape
    assert result.dtype == torch.uint8
    assert result.is_contiguous()
    assert torch.equal(images, before)
    assert not torch.equal(result, images)


def test_images_of_one_colour_that_no_operation_changes_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(chains, "apply_at", lambda images, *_: images)
    images = torch.arange(0, 250, 10, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 12, 9).contiguous()
    assert torch.equal(augmix(images, draws_of(25), config(), table(12, 9), FILL, CPU), images)
