"""From splits to batches: both loaders see every example once and give the same pixels."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from linne.data.loading.loader import make_batches
from linne.data.loading.order import cut, permutation
from linne.data.loading.sizes import resized
from linne.data.source import Source, Split
from linne.device import Device
from linne.errors import ImageError, SourceError
from linne.preprocess import normalise
from linne.recipe import AugmentConfig, DataConfig, DeviceConfig, OptimConfig, Recipe

CPU = Device.pick("cpu")
LOADERS = ("resident", "streaming")


@dataclass
class Pictures:
    """A store of pictures in memory; `broken` ones cannot be read, `lend` says whether the array is offered."""

    images_NHWC: np.ndarray
    lend: bool = True
    broken: set[int] = field(default_factory=set)
    asked: list[int] = field(default_factory=list)
    """Which were loaded, in order."""

    def __len__(self) -> int:
        return len(self.images_NHWC)

    @property
    def array(self):
        return self.images_NHWC if self.lend else None

    def load(self, index: int) -> np.ndarray:
        self.asked.append(index)
        if index in self.broken:
            raise ImageError(f"`{self.name(index)}` cannot be read: it is broken")
        return self.images_NHWC[index]

    def name(self, index: int) -> str:
        return f"picture[{index}]"


def make_source(store: Pictures, num_val: int = 10) -> Source:
    count = len(store)
    labels_N = np.arange(count) % 3
    train, val = np.arange(num_val, count), np.arange(num_val)
    splits = {"train": Split("train", store, train, labels_N[train]), "val": Split("val", store, val, labels_N[val])}
    _, height, width, channels = store.images_NHWC.shape
    return Source("test", ("a", "b", "c"), splits, "0", channels, (height, width), True)


def random_pictures(count: int = 60, height: int = 9, width: int = 7, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, channels), dtype=np.uint8)


def make_recipe(loader: str = "resident", augment: AugmentConfig | None = None, **data) -> Recipe:
    channels = data.pop("channels", 3)
    values = {"height": 9, "width": 7, "batch_size": 8, "max_bad_images": 3, **data}
    spec = {"channels": channels, "mean": (0.4,) * channels, "std": (0.3,) * channels}
    return Recipe(
        data=DataConfig(source="test", loader=loader, **spec, **values),
        optim=OptimConfig(),
        augment=augment or AugmentConfig(),
        device=DeviceConfig(),
        seed=5,
    )


def all_images(batches) -> torch.Tensor:
    return torch.cat([batch.images_NCHW for batch in batches])


@pytest.mark.parametrize("loader", ["resident", "streaming"])
def test_evaluation_batches_are_the_reference_preprocessing_in_order(loader):
    store = Pictures(random_pictures())
    recipe = make_recipe(loader)
    _, val = make_batches(make_source(store), recipe, CPU)
    from linne.data.loading.loader import input_spec

    expected = normalise(store.images_NHWC[:10], input_spec(recipe))
    assert val is not None
    assert np.array_equal(all_images(val.in_order()).numpy(), expected)


@pytest.mark.parametrize("loader", ["resident", "streaming"])
def test_an_epoch_sees_every_example_once_with_its_own_label(loader):
    store = Pictures(random_pictures(61))
    train, _ = make_batches(make_source(store), make_recipe(loader), CPU)
    seen = []
    sizes = []
    for batch in train.epoch(0):
        sizes.append(len(batch.labels_N))
        for image, label in zip(batch.images_NCHW, batch.labels_N, strict=True):
            pixels = ((image * 0.3 + 0.4) * 255).round().byte().permute(1, 2, 0).numpy()
            index = next(i for i in range(61) if np.array_equal(store.images_NHWC[i], pixels))
            assert label == index % 3
            seen.append(index)
    assert sorted(seen) == list(range(10, 61))
    assert len(sizes) == len(train) == 7
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= 8


def test_both_loaders_give_the_same_batches_augmentation_included():
    store = Pictures(random_pictures())
    augment = AugmentConfig(flip=True, crop_padding=2, cutout=3)
    resident, _ = make_batches(make_source(store), make_recipe("resident", augment), CPU)
    streaming, _ = make_batches(make_source(store), make_recipe("streaming", augment), CPU)
    assert torch.equal(all_images(resident.epoch(2)), all_images(streaming.epoch(2)))


DRAWN = [{"balance": "class"}, {"balance": "root"}, {"repeats": 3}, {"balance": "class", "repeats": 2}]


@pytest.mark.parametrize("data", DRAWN, ids=str)
def test_both_loaders_draw_the_same_images_again_and_augment_each_copy_anew(data):
    store = Pictures(random_pictures())
    augment = AugmentConfig(flip=True, crop_padding=2)
    made = [make_batches(make_source(store), make_recipe(name, augment, **data), CPU) for name in LOADERS]
    resident, streaming = ([*batches.epoch(2)] for batches, _ in made)
    assert torch.equal(all_images(resident), all_images(streaming))
    copies: dict[int, list[bytes]] = {}
    for one, other in zip(resident, streaming, strict=True):
        assert one.positions_N.tolist() == other.positions_N.tolist()
        assert one.labels_N.tolist() == other.labels_N.tolist() == ((one.positions_N + 10) % 3).tolist()
        for position, image in zip(one.positions_N.tolist(), one.images_NCHW, strict=True):
            copies.setdefault(position, []).append(image.numpy().tobytes())
    several = [images for images in copies.values() if len(images) > 1]
    if "repeats" in data:
        assert several
        assert sum(len(set(images)) for images in several) > 0.8 * sum(map(len, several))


@pytest.mark.parametrize("loader", ["resident", "streaming"])
@pytest.mark.parametrize("data", DRAWN, ids=str)
def test_an_epoch_of_drawn_images_goes_on_from_any_batch(loader, data):
    recipe = make_recipe(loader, AugmentConfig(flip=True, mixup_alpha=0.3), **data)
    train, _ = make_batches(make_source(Pictures(random_pictures())), recipe, CPU)
    whole = list(train.epoch(1))
    for first in (1, 4):
        rest = list(train.epoch(1, first))
        assert [batch.number for batch in rest] == list(range(first, len(whole)))
        assert torch.equal(all_images(rest), all_images(whole[first:]))


@pytest.mark.parametrize("loader", ["resident", "streaming"])
def test_an_unreadable_image_that_is_drawn_several_times_is_one_unreadable_image(loader):
    store = Pictures(random_pictures(30), lend=False, broken={12})
    train, _ = make_batches(make_source(store), make_recipe(loader, repeats=4, balance="class"), CPU)
    seen = [position for epoch in range(40) for batch in train.epoch(epoch) for position in batch.positions_N.tolist()]
    assert train.bad_images == {2: "`picture[12]` cannot be read: it is broken"}
    assert set(seen) == set(range(20)) - {2}


def test_the_number_of_workers_changes_nothing():
    store = Pictures(random_pictures(), lend=False)
    augment = AugmentConfig(flip=True, resized_crop_area=0.3)
    alone, _ = make_batches(make_source(store), make_recipe("streaming", augment), CPU)
    helped, _ = make_batches(make_source(store), make_recipe("streaming", augment, num_workers=2), CPU)
    assert torch.equal(all_images(alone.epoch(1)), all_images(helped.epoch(1)))


def test_epochs_differ_and_repeat():
    store = Pictures(random_pictures())
    train, _ = make_batches(make_source(store), make_recipe(augment=AugmentConfig(flip=True)), CPU)
    assert torch.equal(all_images(train.epoch(0)), all_images(train.epoch(0)))
    assert not torch.equal(all_images(train.epoch(0)), all_images(train.epoch(1)))


def test_the_resident_loader_borrows_an_array_of_the_right_size_instead_of_copying_it():
    store = Pictures(random_pictures())
    store.images_NHWC.flags.writeable = False  # as a memory-mapped file is
    train, val = make_batches(make_source(store), make_recipe(), CPU)
    for batches in (train, val):
        assert batches._images_NHWC.data_ptr() == store.images_NHWC.ctypes.data


VIEWS = {
    "BGR": lambda images: images[..., ::-1],
    "mirrored": lambda images: images[:, :, ::-1],
    "channels first": lambda images: np.ascontiguousarray(images.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1),
    "Fortran's order": np.asfortranarray,
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("loader", LOADERS)
def test_pixels_may_lie_in_memory_in_any_order(loader, view):
    lying, augment = VIEWS[view](random_pictures()), AugmentConfig(flip=True, crop_padding=2)
    expected, found = (
        make_batches(make_source(Pictures(images)), make_recipe(loader, augment), CPU)[0].epoch(0)
        for images in (np.ascontiguousarray(lying), lying)
    )
    assert torch.equal(all_images(found), all_images(expected))


def test_grey_pictures_feed_a_colour_model_without_a_colour_copy():
    store = Pictures(random_pictures(channels=1))
    train, _ = make_batches(make_source(store), make_recipe(), CPU)
    assert train._images_NHWC.data_ptr() == store.images_NHWC.ctypes.data
    images = all_images(train.epoch(0))
    assert images.shape[1] == 3
    assert torch.equal(images[:, 0], images[:, 2])


@pytest.mark.parametrize("loader", ["resident", "streaming"])
def test_unreadable_images_are_left_out_and_named(loader):
    store = Pictures(random_pictures(), lend=False, broken={2, 30, 31})
    train, val = make_batches(make_source(store), make_recipe(loader), CPU)
    labels = torch.cat([batch.labels_N for batch in train.epoch(0)])
    assert len(labels) == train.num_examples == 48
    assert len(all_images(val.in_order())) == 9
    assert list(train.bad_images.values()) == [f"`picture[{i}]` cannot be read: it is broken" for i in (30, 31)]
    assert list(val.bad_images.values()) == ["`picture[2]` cannot be read: it is broken"]


@pytest.mark.parametrize("loader", ["resident", "streaming"])
def test_too_many_unreadable_images_stop_the_run_and_say_what_to_do(loader):
    store = Pictures(random_pictures(), lend=False, broken=set(range(20, 26)))

    def load() -> None:
        train, _ = make_batches(make_source(store), make_recipe(loader), CPU)
        list(train.epoch(0))

    with pytest.raises(SourceError) as caught:
        load()
    assert "images cannot be read, more than the 3 that data.max_bad_images allows" in caught.value.message
    assert "`picture[" in caught.value.message
    assert "--set data.max_bad_images=" in (caught.value.hint or "")


MIXED = AugmentConfig(flip=True, crop_padding=2, rotate_degrees=10.0, contrast=0.4, policy="rand", mixup_alpha=0.2)


@pytest.mark.parametrize("first", [0, 1, 3, 6, 7])
@pytest.mark.parametrize("loader", ["resident", "streaming"])
def test_an_epoch_that_is_entered_in_the_middle_gives_the_batches_of_a_whole_one(loader, first):
    store = Pictures(random_pictures(61), lend=False, broken={30})
    train, _ = make_batches(make_source(store), make_recipe(loader, MIXED), CPU)
    whole = list(train.epoch(2))
    for ours, expected in zip(train.epoch(2, first), whole[first:], strict=True):
        assert ours.number == expected.number
        assert np.array_equal(ours.positions_N, expected.positions_N)
        assert torch.equal(ours.images_NCHW, expected.images_NCHW)
        assert torch.equal(ours.labels_N, expected.labels_N)
        assert torch.equal(ours.mixture.shares_N, expected.mixture.shares_N)


@pytest.mark.parametrize("loader", LOADERS)
def test_answers_are_compared_over_an_image_and_two_mixtures_of_it_cut_mirrored_and_blanked_alike(loader):
    source, frame = make_source(Pictures(random_pictures(61, 12, 12))), {"flip": True, "cutout": 3}
    size = {"height": 12, "width": 12}

    def batches(**fields):
        train, _ = make_batches(source, make_recipe(loader, AugmentConfig(**frame, **fields), **size), CPU)
        return list(train.epoch(2))

    compared = batches(policy="augmix", consistency=12.0)
    for found, plain, mixed in zip(compared, batches(), batches(policy="augmix"), strict=True):
        first, second = found.views_NCHW
        assert torch.equal(found.images_NCHW, plain.images_NCHW)
        assert torch.equal(first, mixed.images_NCHW)
        assert first.shape == second.shape
        assert not any(torch.equal(one, other) for one, other in zip(first, second, strict=True))
        blanked_NHW = (found.images_NCHW == 0).all(1)  # what normalises to 0 is the mean, which no pixel here has
        assert blanked_NHW.any()
        assert (second.permute(0, 2, 3, 1)[blanked_NHW] == 0).all()
        assert plain.views_NCHW == mixed.views_NCHW == ()


@pytest.mark.parametrize("first", [0, 4])
@pytest.mark.parametrize("loader", LOADERS)
def test_images_grow_in_training_alone_and_are_else_what_they_were(loader, first):
    store = Pictures(random_pictures(61, 24, 32))
    size, growing = {"height": 24, "width": 32}, {"size_start": 0.5, "size_hold": 0.2}
    fields = {"flip": True, "crop_padding": 2, "mixup_alpha": 0.2}
    train, val = make_batches(make_source(store), make_recipe(loader, AugmentConfig(**fields, **growing), **size), CPU)
    plain, _ = make_batches(make_source(store), make_recipe(loader, AugmentConfig(**fields), **size), CPU)
    sizes = []
    for epoch in (0, 4, 9, 10):
        for found, full in zip(train.epoch(epoch, first), plain.epoch(epoch, first), strict=True):
            sizes.append(tuple(found.images_NCHW.shape[2:]))
            assert torch.equal(found.images_NCHW, resized(full.images_NCHW, sizes[-1]))
            assert torch.equal(found.labels_N, full.labels_N)
            assert torch.equal(found.mixture.shares_N, full.mixture.shares_N)
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == ((12, 16), (24, 32))
    assert {batch.images_NCHW.shape[2:] for batch in val.in_order()} == {(24, 32)}


def test_batches_before_the_first_one_asked_for_are_not_decoded():
    store = Pictures(random_pictures(61), lend=False)
    train, _ = make_batches(make_source(store), make_recipe("streaming"), CPU)
    positions = np.concatenate([batch.positions_N for batch in train.epoch(1, 5)])
    assert store.asked == (10 + positions).tolist()  # train begins at picture 10
    assert len(store.asked) == 14


def test_a_batch_without_one_readable_image_keeps_its_number_to_itself():
    order = permutation(5, 0, 50)
    broken = {10 + int(position) for position in cut(order, 8)[2]}
    store = Pictures(random_pictures(), lend=False, broken=broken)
    train, _ = make_batches(make_source(store), make_recipe("streaming", max_bad_images=8), CPU)
    assert [batch.number for batch in train.epoch(0)] == [0, 1, 3, 4, 5, 6]
    assert [batch.number for batch in train.epoch(0, 2)] == [3, 4, 5, 6]


def test_unreadable_images_that_a_run_met_before_it_went_on_still_count():
    store = Pictures(random_pictures(), lend=False, broken={11, 12})
    known = {("train", 40): "`picture[50]` cannot be read", ("val", 3): "`picture[3]` cannot be read"}
    train, val = make_batches(make_source(store), make_recipe("streaming"), CPU, known_bad=known)
    assert val.bad_images == {3: "`picture[3]` cannot be read"}
    with pytest.raises(SourceError, match="4 images cannot be read, more than the 3"):
        list(train.epoch(0))


def test_a_set_smaller_than_a_batch_is_one_batch():
    store = Pictures(random_pictures(13))
    train, _ = make_batches(make_source(store), make_recipe(batch_size=100), CPU)
    assert [len(batch.labels_N) for batch in train.epoch(0)] == [3]


@pytest.mark.parametrize(("count", "size"), [(1, 1), (3, 1), (7, 3), (100, 32), (1347, 64), (64, 64), (65, 64)])
def test_batches_cover_everything_and_differ_by_at_most_one(count, size):
    parts = cut(np.arange(count), size)
    assert np.array_equal(np.concatenate(parts), np.arange(count))
    assert max(map(len, parts)) <= size
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_order_is_a_pure_function_of_seed_and_epoch():
    assert np.array_equal(permutation(1, 2, 50), permutation(1, 2, 50))
    assert not np.array_equal(permutation(1, 2, 50), permutation(2, 1, 50))
    assert sorted(permutation(1, 2, 50)) == list(range(50))
