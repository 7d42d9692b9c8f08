"""Training-time augmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from linne.data.loading import augment_policy as policies
from linne.data.loading.augment import (
    AUGMIX_STREAM,
    ERASE_STREAM,
    NOTHING,
    POLICY_STREAM,
    SHIFT_Y,
    Augmentation,
    Plan,
    blank,
    erasing,
    frame_draws,
    gather,
    make_plan,
    resized_crop_box,
    uniforms,
)
from linne.device import Device
from linne.errors import RecipeError
from linne.recipe import AugmentConfig, DataConfig, Recipe
from linne.recipe_values import LIMITS

CPU = Device.pick("cpu")
EVERYTHING = {
    "flip": True,
    "crop_padding": 2,
    "cutout": 3,
    "rotate_degrees": 20.0,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.4,
    "hue": 0.1,
}


def numbered(count: int, height: int, width: int, channels: int = 1) -> torch.Tensor:
    """Images whose every pixel has another value, modulo 251."""
    values = torch.arange(count * height * width * channels) % 251
    return values.to(torch.uint8).view(count, height, width, channels)


def test_random_numbers_belong_to_the_example_and_not_to_the_batch():
    together = uniforms(3, 1, np.arange(100))
    alone = uniforms(3, 1, np.array([42]))
    assert np.array_equal(together[42], alone[0])


@pytest.mark.parametrize("change", [{"seed": 4}, {"epoch": 2}])
def test_another_seed_or_epoch_draws_other_numbers(change):
    base = {"seed": 3, "epoch": 1}
    ids = np.arange(1000)
    first = uniforms(base["seed"], base["epoch"], ids)
    base |= change
    second = uniforms(base["seed"], base["epoch"], ids)
    assert not np.any(np.all(first == second, axis=1))


def test_random_numbers_are_uniform_and_independent_between_places():
    draws = uniforms(0, 0, np.arange(50_000)).astype(np.float64)
    assert draws.min() >= 0
    assert draws.max() < 1
    # Deviation of a mean of 50,000 uniforms is 0.0013; of a correlation 0.0045. Five of each.
    assert np.abs(draws.mean(0) - 0.5).max() < 0.0065
    correlations = np.corrcoef(draws.T) - np.eye(draws.shape[1])
    assert np.abs(correlations).max() < 0.0225


def test_without_augmentation_the_images_come_as_they_are():
    images = numbered(5, 4, 6)
    picked = gather(images, torch.tensor([3, 0]), NOTHING)
    assert torch.equal(picked, images[[3, 0]])
    assert make_plan(uniforms(0, 0, np.arange(2)), AugmentConfig(), 4, 6) == NOTHING


@pytest.mark.parametrize("channels", [1, 3])
def test_a_flip_mirrors_about_half_of_the_images_left_to_right(channels):
    images = numbered(400, 5, 7, channels)
    plan = make_plan(uniforms(0, 0, np.arange(400)), AugmentConfig(flip=True), 5, 7)
    out = gather(images, torch.arange(400), plan)
    mirrored = torch.tensor([torch.equal(o, i.flip(1)) for o, i in zip(out, images, strict=True)])
    same = torch.tensor([torch.equal(o, i) for o, i in zip(out, images, strict=True)])
    assert torch.all(mirrored ^ same)
    assert 150 < mirrored.sum() < 250


def mirrored_in(epoch: int, ids: np.ndarray, **fields) -> torch.Tensor:
    """Whether each of the images `ids`, which all look alike, is mirrored in an epoch."""
    image = numbered(1, 12, 10, 3)
    rows = torch.zeros(len(ids), dtype=torch.int64)
    taken, _ = augmentation(flip=True, **fields).take(image, rows, ids, epoch)
    assert all(torch.equal(one, image[0]) or torch.equal(one, image[0].flip(1)) for one in taken)
    return (taken == image.flip(2)).all(dim=(1, 2, 3))


def test_with_alternating_flips_each_image_is_seen_both_ways_in_any_two_epochs():
    ids = np.arange(500)
    first, *later = (mirrored_in(epoch, ids, alternate=True) for epoch in range(5))
    for epoch, found in enumerate(later, 1):
        assert torch.equal(found, first if epoch % 2 == 0 else ~first)
    assert torch.equal(first, mirrored_in(0, ids)), "the first epoch is that of flips drawn anew each time"
    assert 200 < first.sum() < 300
    drawn_anew = mirrored_in(1, ids)
    assert not torch.equal(drawn_anew, ~first)


def test_an_alternating_flip_is_decided_by_seed_image_and_epoch_alone_and_moves_no_shift():
    ids = np.arange(60)
    together = mirrored_in(3, ids, alternate=True)
    assert torch.equal(mirrored_in(3, ids[::-1], alternate=True), together.flip(0))
    assert torch.equal(mirrored_in(3, ids[17:18], alternate=True), together[17:18])
    assert torch.equal(mirrored_in(3, ids, alternate=True), together)
    assert not torch.equal(mirrored_in(3, ids, alternate=True, seed=1), together)
    draws, plain = (
        frame_draws(0, 3, ids, AugmentConfig(flip=True, crop_padding=2, alternate=alternate)) for alternate in (1, 0)
    )
    assert np.array_equal(draws[:, SHIFT_Y:], plain[:, SHIFT_Y:])
    assert draws.dtype == np.float32
    assert ((draws >= 0) & (draws < 1)).all()


def test_alternating_flips_without_flips_are_refused():
    with pytest.raises(RecipeError) as caught:
        AugmentConfig(alternate=True)
    assert caught.value.message == (
        "augment.alternate mirrors each image in every other epoch, and augment.flip=false mirrors none"
    )
    assert caught.value.hint == "use --set augment.flip=true, or --set augment.alternate=false"


def test_a_single_image_is_mirrored_like_any_other_and_without_a_warning():
    images = numbered(20, 3, 4)
    config = AugmentConfig(flip=True)
    draws = uniforms(0, 0, np.arange(20))
    together = gather(images, torch.arange(20), make_plan(draws, config, 3, 4))
    alone = [gather(images, torch.tensor([k]), make_plan(draws[k : k + 1], config, 3, 4)) for k in range(20)]
    assert torch.equal(torch.cat(alone), together)


def test_a_shift_moves_by_up_to_the_padding_and_reflects_the_border():
    images = numbered(300, 9, 8)
    plan = make_plan(uniforms(0, 0, np.arange(300)), AugmentConfig(crop_padding=2), 9, 8)
    out = gather(images, torch.arange(300), plan)
    padded = torch.nn.functional.pad(images.permute(0, 3, 1, 2).float(), (2, 2, 2, 2), mode="reflect")
    shifts = set()
    for index in range(300):
        found = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if torch.equal(padded[index, :, y : y + 9, x : x + 8].permute(1, 2, 0).byte(), out[index])
        ]
        assert found, f"image {index} is no shift of the original"
        shifts.update(found)
    assert shifts == {(y, x) for y in range(5) for x in range(5)}


def test_a_shift_larger_than_the_image_still_reads_only_its_pixels():
    images = numbered(50, 2, 1)
    plan = make_plan(uniforms(0, 0, np.arange(50)), AugmentConfig(crop_padding=7), 2, 1)
    assert gather(images, torch.arange(50), plan).shape == (50, 2, 1, 1)


def boxes_of(plan: Plan, height: int, width: int) -> np.ndarray:
    """Return N x 4: top, left, height and width of what is blanked, 0 high where nothing is."""
    rows, cols = (~keep.numpy() for keep in (plan.keep_rows_BH, plan.keep_cols_BW))
    for hidden in (rows, cols):  # each one piece
        assert (np.abs(np.diff(hidden.astype(int), axis=1, prepend=0, append=0)).sum(axis=1) <= 2).all()
    return np.stack([rows.argmax(1), cols.argmax(1), rows.sum(1), cols.sum(1)], axis=1)


@pytest.mark.parametrize(("height", "width"), [(400, 400), (300, 500)])
def test_erasing_blanks_rectangles_as_its_authors_define_them(height, width):
    plan = erasing(uniforms(0, 0, np.arange(4000), ERASE_STREAM), 0.5, height, width, NOTHING)
    boxes = boxes_of(plan, height, width)
    hit = boxes[:, 2] > 0
    assert hit.mean() == pytest.approx(0.5, abs=0.04)  # five deviations of a binomial
    assert (boxes[~hit, 3] == 0).all()
    top, left, high, wide = boxes[hit].astype(float).T
    area, aspect = high * wide / (height * width), high / wide
    # Sides are rounded to pixels, of which the shortest side has about 30.
    assert 0.018 < area.min() < 0.03
    assert 0.37 < area.max() < 0.41
    # Uniform in 0.02 to 0.4: its mean and deviation, the mean within five deviations of itself.
    assert area.mean() == pytest.approx(0.21, abs=0.013)
    assert area.std() == pytest.approx(0.38 / np.sqrt(12), rel=0.05)
    assert 0.28 < aspect.min() < 0.4
    assert 2.5 < aspect.max() < 3.5
    small = area < 0.1  # all aspects fit: the logarithm is uniform between -log and log of 10/3
    assert np.log(aspect[small]).std() == pytest.approx(2 * np.log(10 / 3) / np.sqrt(12), rel=0.12)
    assert (top + high <= height).all()
    assert (left + wide <= width).all()
    # Anywhere within the image: the share of the room before it is uniform.
    for before, room in ((top, height - high), (left, width - wide)):
        share = (before / np.maximum(room, 1))[room > 50]
        assert share.mean() == pytest.approx(0.5, abs=0.04)
        assert share.std() == pytest.approx(1 / np.sqrt(12), rel=0.06)


def test_an_erased_part_reads_as_the_mean_and_the_rest_as_it_was():
    images = torch.ones(50, 3, 12, 10)
    plan = erasing(uniforms(0, 0, np.arange(50), ERASE_STREAM), 1.0, 12, 10, NOTHING)
    blanked = blank(images, plan)
    for image, (top, left, high, wide) in zip(blanked, boxes_of(plan, 12, 10).tolist(), strict=True):
        assert high > 0
        assert (image[:, top : top + high, left : left + wide] == 0).all()
        assert image.sum() == 3 * (12 * 10 - high * wide)


def test_erasing_is_decided_by_the_image_alone_and_moves_no_other_number():
    images, rows, ids = numbered(20, 12, 10), torch.arange(20), np.arange(20)
    _, plain = augmentation(flip=True, crop_padding=2).take(images, rows, ids, 5)
    _, erased = augmentation(flip=True, crop_padding=2, erase=0.5).take(images, rows, ids, 5)
    _, alone = augmentation(flip=True, crop_padding=2, erase=0.5).take(images, rows[7:8], ids[7:8], 5)
    assert torch.equal(plain.rows_BH, erased.rows_BH)
    assert torch.equal(plain.cols_BW, erased.cols_BW)
    assert torch.equal(erased.keep_rows_BH[7:8], alone.keep_rows_BH)
    assert torch.equal(erased.keep_cols_BW[7:8], alone.keep_cols_BW)


def test_erasing_draws_after_all_operations_of_a_policy():
    assert POLICY_STREAM + LIMITS["augment.rand_num_ops"][1] == ERASE_STREAM
    assert AUGMIX_STREAM > ERASE_STREAM


def test_cutout_blanks_one_square_whose_centre_lies_in_the_image():
    images = torch.ones(200, 3, 12, 10)
    plan = make_plan(uniforms(0, 0, np.arange(200)), AugmentConfig(cutout=4), 12, 10)
    blanked = blank(images, plan) == 0
    counts = blanked[:, 0].sum((1, 2))
    assert torch.equal(blanked[:, 0], blanked[:, 2])
    assert counts.min() >= 4, "a corner of the square is inside even when its centre is on the border"
    assert counts.max() == 16
    for index in range(200):
        rows, cols = blanked[index, 0].any(1), blanked[index, 0].any(0)
        assert torch.equal(blanked[index, 0], rows[:, None] & cols[None]), "the blank part is a rectangle"


def test_a_random_crop_keeps_the_area_and_the_aspect_asked_for():
    for draws in uniforms(0, 0, np.arange(500)):
        top, left, height, width = resized_crop_box(draws, 0.25, 200, 100)
        assert 0 <= top <= 200 - height
        assert 0 <= left <= 100 - width
        assert 0.24 <= height * width / 20_000 <= 1
        assert abs(height / width - 2) < 0.05


def augmentation(channels: int = 3, seed: int = 0, **fields) -> Augmentation:
    level = (0.4,) * channels
    data = DataConfig(source="synthetic", height=12, width=10, channels=channels, mean=level, std=level)
    return Augmentation(Recipe(data=data, augment=AugmentConfig(**fields), seed=seed), CPU)


def photos(count: int, channels: int = 3) -> torch.Tensor:
    """Smooth images, so that a warp keeps most of them."""
    coarse = np.random.default_rng(7).integers(0, 256, (count, channels, 4, 4)).astype(np.float32)
    fine = torch.nn.functional.interpolate(torch.from_numpy(coarse), (12, 10), mode="bilinear")
    return fine.permute(0, 2, 3, 1).byte().contiguous()


@pytest.mark.parametrize("policy", ["rand", "trivial", "augmix", None])
def test_what_happens_to_an_image_does_not_depend_on_its_batch(policy):
    augment = augmentation(**EVERYTHING, policy=policy)
    images, rows, ids = photos(60), torch.arange(60), np.arange(100, 160)
    together, plan = augment.take(images, rows, ids, epoch=3)
    assert not torch.equal(together, images)
    for chosen in (torch.tensor([41]), torch.arange(59, -1, -1), torch.arange(0, 60, 7)):
        some, some_plan = augment.take(images, chosen, ids[chosen.numpy()], epoch=3)
        assert torch.equal(some, together[chosen])
        assert torch.equal(some_plan.keep_rows_BH, plan.keep_rows_BH[chosen])


@pytest.mark.parametrize(
    "change",
    [{name: value} for name, value in EVERYTHING.items() if name != "cutout"]
    + [{"policy": "rand"}, {"policy": "rand", "rand_magnitude": 25}, {"policy": "rand", "rand_num_ops": 1}]
    + [{"policy": "trivial"}, {"policy": "augmix"}, {"policy": "augmix", "augmix_severity": 8}]
    + [{"policy": "augmix", "augmix_width": 2}, {"policy": "augmix", "augmix_depth": 2}]
    + [{"policy": "augmix", "augmix_alpha": 0.5}],
    ids=str,
)
def test_every_field_has_an_effect_of_its_own_that_changes_with_the_epoch_and_the_seed(change):
    images, rows, ids = photos(40), torch.arange(40), np.arange(40)
    results = [
        augmentation(seed=seed, **change).take(images, rows, ids, epoch)[0] for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    others = [augmentation().take(images, rows, ids, 0)[0], augmentation(policy="rand").take(images, rows, ids, 0)[0]]
    if change.keys() > {"policy"} and change["policy"] == "augmix":
        others.append(augmentation(policy="augmix").take(images, rows, ids, 0)[0])
    assert torch.equal(others[0], images)
    if change != {"policy": "rand"}:
        results += others
    for index, first in enumerate(results):
        assert not any(torch.equal(first, second) for second in results[index + 1 :])


def test_switching_one_thing_on_moves_no_other():
    images, rows, ids = photos(40), torch.arange(40), np.arange(40)
    _, plain = augmentation(flip=True, crop_padding=2, cutout=3).take(images, rows, ids, 5)
    _, more = augmentation(**EVERYTHING, policy="rand", mixup_alpha=0.2).take(images, rows, ids, 5)
    for part in ("rows_BH", "cols_BW", "keep_rows_BH", "keep_cols_BW"):
        assert torch.equal(getattr(plain, part), getattr(more, part))


def test_each_operation_of_rand_augment_is_drawn_by_itself():
    images, rows, ids = photos(100), torch.arange(100), np.arange(100)
    found, _ = augmentation(policy="rand", rand_num_ops=3, rand_magnitude=14).take(images, rows, ids, 2)
    planes = images.permute(0, 3, 1, 2).contiguous()
    for layer in range(3):
        draws = uniforms(0, 2, ids, POLICY_STREAM + layer)
        planes = policies.apply(planes, draws, policies.rand(12, 10), 14, torch.full((3,), 0.4 * 255), CPU)
    assert torch.equal(found, planes.permute(0, 2, 3, 1))


def test_streams_of_random_numbers_share_none():
    ids = np.arange(2000)
    streams = [uniforms(3, 1, ids, stream) for stream in range(5)]
    correlations = np.corrcoef(np.concatenate(streams, axis=1).astype(np.float64).T) - np.eye(40)
    assert np.abs(correlations).max() < 5.5 / np.sqrt(2000)  # 780 pairs: the largest of so many reaches 3.4
    # The first stream is what runs were trained with before there were others.
    assert uniforms(3, 1, np.array([5]))[0, :3].tolist() == pytest.approx([0.52853155, 0.57880074, 0.21966064])


def test_strengths_are_even_over_their_range():
    images = torch.full((2000, 12, 10, 1), 100, dtype=torch.uint8)
    bright, _ = augmentation(1, brightness=0.5).take(images, torch.arange(2000), np.arange(2000), 0)
    levels = bright[:, 0, 0, 0].float() / 100
    assert levels.min() >= 0.49
    assert levels.max() <= 1.5
    assert torch.all((torch.histc(levels, 5, 0.5, 1.5) - 400).abs() < 5 * 18)


@pytest.mark.parametrize("policy", ["rand", "trivial", "augmix"])
def test_a_grey_image_and_its_repetition_in_three_colours_stay_the_same(policy):
    # The resident loader keeps a grey set grey for a colour model, the streaming one decodes to colour.
    images, rows, ids = photos(80, 1), torch.arange(80), np.arange(80)
    grey, _ = augmentation(3, **EVERYTHING, policy=policy).take(images, rows, ids, 0)
    colour, _ = augmentation(3, **EVERYTHING, policy=policy).take(images.expand(-1, -1, -1, 3), rows, ids, 0)
    assert torch.equal(grey.expand(-1, -1, -1, 3), colour)


def test_what_a_turned_image_leaves_open_is_the_mean_which_normalises_to_nothing():
    images = torch.full((50, 12, 10, 3), 255, dtype=torch.uint8)
    turned, _ = augmentation(rotate_degrees=90.0).take(images, torch.arange(50), np.arange(50), 0)
    assert turned.min() == round(0.4 * 255)
    assert turned[:, 5:7, 4:6].min() == 255


def test_mixing_that_is_off_hands_the_batch_through():
    images, labels = torch.ones(4, 3, 12, 10), torch.arange(4)
    same, mixture = augmentation(policy="rand").mix(images, labels, np.arange(4), 0)
    assert same is images
    assert mixture is None
    mixed, mixture = augmentation(mixup_alpha=0.2).mix(images, labels, np.arange(4), 0)
    assert mixed.shape == images.shape
    assert torch.equal(mixture.labels_N, labels.roll(1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"erase": 1.5}, "augment.erase is 1.5, expected more than 0 and at most 1, or none"),
        ({"erase": 0.5, "cutout": 3}, "augment.cutout and augment.erase both blank a part of the image"),
        ({"rotate_degrees": 200.0}, "augment.rotate_degrees is 200, expected more than 0 and at most 180, or none"),
        ({"brightness": 0.0}, "augment.brightness is 0, expected more than 0 and at most 1, or none"),
        ({"hue": 0.6}, "augment.hue is 0.6, expected more than 0 and at most 0.5, or none"),
        ({"mixup_alpha": -1.0}, "augment.mixup_alpha is -1, expected more than 0 and at most 100, or none"),
        ({"rand_magnitude": 31}, "augment.rand_magnitude is 31, expected 0 to 30"),
        ({"rand_num_ops": 0}, "augment.rand_num_ops is 0, expected 1 to 8"),
        ({"augmix_severity": 11}, "augment.augmix_severity is 11, expected 1 to 10"),
        ({"augmix_width": 0}, "augment.augmix_width is 0, expected 1 to 8"),
        ({"augmix_depth": 9}, "augment.augmix_depth is 9, expected 1 to 8"),
        ({"augmix_alpha": 0.0}, "augment.augmix_alpha is 0, expected 0.1 to 100"),
        (
            {"policy": "augmix", "consistency": -1.0},
            "augment.consistency is -1, expected more than 0 and at most 1000, or none",
        ),
        (
            {"consistency": 12.0, "policy": "trivial"},
            "augment.consistency compares the answers to an image and to two of AugMix's mixtures, and "
            "augment.policy is trivial",
        ),
        (
            {"policy": "augmix", "consistency": 12.0, "cutmix_alpha": 1.0},
            "augment.consistency compares views of one image, and augment.cutmix_alpha mixes it with another",
        ),
    ],
    ids=str,
)
def test_a_strength_that_makes_no_sense_is_refused_with_what_would(change, message):
    with pytest.raises(RecipeError) as caught:
        AugmentConfig(**change)
    assert caught.value.message == message
