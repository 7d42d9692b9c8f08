"""Processes share every batch without gaps or repeats, whatever the loader and the source."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from linne.data import open_source
from linne.data.loading.loader import make_batches
from linne.data.loading.sharing import Share
from linne.data_verbs import pack_data
from linne.device import Device
from linne.errors import RecipeError
from linne.recipe import AugmentConfig, DataConfig, Recipe

CPU = Device.pick("cpu")


@given(st.integers(1, 60), st.integers(1, 8))
def test_the_parts_of_a_batch_make_it_whole_again_and_their_weighted_means_its_mean(count, size):
    batch = np.random.default_rng(count).permutation(1000)[:count]
    shares = [Share(rank, size) for rank in range(size)]
    parts = [share.of(batch) for share in shares]
    assert np.concatenate(parts).tolist() == batch.tolist()
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    means = [share.weight(batch) * part.mean() if len(part) else 0.0 for share, part in zip(shares, parts, strict=True)]
    assert sum(means) / size == pytest.approx(batch.mean())


@given(st.integers(2, 40), st.integers(1, 6))
def test_before_each_part_comes_the_example_that_its_first_is_mixed_with(count, size):
    batch = np.arange(count)
    for rank in range(size):
        neighbour, *part = Share(rank, size).after_neighbour(batch)
        assert part == Share(rank, size).of(batch).tolist()
        if part:
            assert neighbour == (part[0] - 1) % count


def write_shards(folder):
    """Write WebDataset shards, five to train on and one to validate on, of 7 to 12 images each."""
    random = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 1)):
        for number in range(count):
            with tarfile.open(folder / f"{split}-{number:03}.tar", "w") as tar:
                for key in range(7 + number):
                    stream = io.BytesIO()
                    Image.fromarray(random.integers(0, 256, (9, 9, 3), np.uint8)).save(stream, "PNG")
                    for name, content in (("png", stream.getvalue()), ("cls", b"%d" % (key % 3))):
                        member = tarfile.TarInfo(f"{key:04}.{name}")
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))


@pytest.fixture(scope="module", params=["webdataset", "packed"])
def source(request, tmp_path_factory):
    """WebDataset shards of others, and a set that linne packed."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "webdataset":
        write_shards(folder)
    else:
        pack_data("synthetic:classes=3,size=9,count=70", folder / "set", quiet=True)
        folder = folder / "set"
    return open_source(f"webdataset:{folder}")


def batches_of(source, share: Share, loader: str, augment: AugmentConfig, **data):
    spec = {"height": 9, "width": 9, "batch_size": 11, "loader": loader, "cache": False, **data}
    recipe = Recipe(data=DataConfig(source="x", **spec), augment=augment)
    return make_batches(source, recipe, CPU, share=share)


@pytest.mark.parametrize("loader", ["resident", "streaming"])
@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize(
    "augment",
    [
        AugmentConfig(),
        AugmentConfig(flip=True, crop_padding=1, mixup_alpha=0.5, cutmix_alpha=1.0),
        AugmentConfig(flip=True, alternate=True, mixup_alpha=0.5, policy="augmix", size_start=0.5, size_hold=0.0),
    ],
    ids=["as they are", "augmented and mixed", "growing"],
)
def test_shards_are_gone_through_as_one_process_goes_through_them(source, loader, size, augment):
    train, val = batches_of(source, Share(), loader, augment)
    parts = [batches_of(source, Share(rank, size), loader, augment) for rank in range(size)]
    for epoch in (0, 3):
        for whole, *shared in zip(train.epoch(epoch), *(mine.epoch(epoch) for mine, _ in parts), strict=True):
            assert torch.equal(whole.images_NCHW, torch.cat([batch.images_NCHW for batch in shared]))
            assert torch.equal(whole.labels_N, torch.cat([batch.labels_N for batch in shared]))
            assert sum(batch.weight for batch in shared) == pytest.approx(size)
            if whole.mixture is not None:
                assert torch.equal(whole.mixture.labels_N, torch.cat([batch.mixture.labels_N for batch in shared]))
                assert torch.equal(whole.mixture.shares_N, torch.cat([batch.mixture.shares_N for batch in shared]))
    counted = [batch for _, mine in parts for batch in mine.in_order() if batch.weight > 0]
    assert sum(len(batch.labels_N) for batch in counted) == val.num_examples == len(source.splits["val"])
    images = {image.numpy().tobytes() for batch in counted for image in batch.images_NCHW}
    assert images == {image.numpy().tobytes() for batch in val.in_order() for image in batch.images_NCHW}


@pytest.mark.parametrize("loader", ["resident", "streaming"])
@pytest.mark.parametrize("data", [{"balance": "class"}, {"balance": "root", "repeats": 3}], ids=str)
def test_processes_share_batches_of_drawn_images_too(source, loader, data):
    augment = AugmentConfig(flip=True, crop_padding=1, mixup_alpha=0.5)
    train, _ = batches_of(source, Share(), loader, augment, **data)
    parts = [batches_of(source, Share(rank, 3), loader, augment, **data)[0] for rank in range(3)]
    for whole, *shared in zip(train.epoch(1), *(mine.epoch(1) for mine in parts), strict=True):
        assert torch.equal(whole.images_NCHW, torch.cat([batch.images_NCHW for batch in shared]))
        assert torch.equal(whole.labels_N, torch.cat([batch.labels_N for batch in shared]))
        assert whole.positions_N.tolist() == shared[0].positions_N.tolist()


def test_batches_smaller_than_the_number_of_processes_are_refused():
    source = open_source("synthetic:classes=3,size=9,count=70")
    recipe = Recipe(data=DataConfig(source="x", height=9, width=9, batch_size=3))
    with pytest.raises(RecipeError) as refused:
        make_batches(source, recipe, CPU, share=Share(0, 4))
    assert str(refused.value) == "a batch of 3 cannot be shared by 4 processes"
    assert refused.value.hint == "use --batch-size 8 or more, or fewer processes"
