"""Decoded pixels on disk: had back only when nothing that decides them has changed."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from linne.data import open_source
from linne.data.loading.pixel_cache import PixelCache
from linne.data.loading.resident import load_pixels
from linne.fast_resize import torch_resize
from linne.preprocess import InputSpec, pillow_resize

SPEC = InputSpec(channels=3, height=8, width=8, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture
def photos(tmp_path):
    """Twenty small pictures in two classes."""
    rng = np.random.default_rng(0)
    for number in range(20):
        path = tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


@pytest.fixture
def cache(tmp_path):
    """A cache that keeps whatever was decoded, of files however new."""
    return PixelCache(folder=tmp_path / "pixels", worth_seconds=0, settled_seconds=0)


class Counter:
    """How many images were decoded or had back."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def __call__(self, count: int) -> None:
        self.steps.append(count)

    @property
    def decoded(self) -> int:
        return self.steps.count(1)


def read(photos, cache, spec=SPEC, resize=torch_resize, seed=0):
    """Return (pixels, number of images that had to be decoded) of a run on the folder."""
    splits = open_source(str(photos), split_seed=seed).splits
    counter = Counter()
    return load_pixels([splits["train"], splits["val"]], spec, 3, resize, cache=cache, advance=counter), counter.decoded


def test_a_second_run_decodes_nothing_and_sees_the_same_pixels(photos, cache):
    first, decoded = read(photos, cache)
    assert decoded == len(first.images_NHWC) > 0
    assert first.note is not None
    assert first.note.startswith("pixels  kept for the next run: 0.0 MB in ")
    assert first.note.endswith("; --set data.cache=false keeps none")
    second, decoded = read(photos, cache)
    assert decoded == 0
    assert isinstance(second.images_NHWC, np.memmap)
    assert np.array_equal(first.images_NHWC, second.images_NHWC)
    for before, after in zip(first.rows, second.rows, strict=True):
        assert np.array_equal(before, after)
    assert second.note is not None
    assert second.note.startswith("pixels  0.0 MB decoded by an earlier run, from ")


def test_each_example_finds_its_own_row(photos, cache):
    splits = open_source(str(photos)).splits
    for _ in range(2):  # decoded, then had back
        pixels, _ = read(photos, cache)
        for split, rows_N in zip((splits["train"], splits["val"]), pixels.rows, strict=True):
            for position, row in enumerate(rows_N.tolist()):
                assert np.array_equal(pixels.images_NHWC[row], split.cropped(position, SPEC, torch_resize))


def changed_content(photos):
    path = photos / "cat" / "0.png"
    data, times = path.read_bytes(), os.stat(path)
    path.write_bytes(data[:-20] + bytes(reversed(data[-20:])))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # an unpacked archive sets times back as well


def test_a_file_changed_in_place_is_decoded_again_whatever_its_size_and_date_say(photos, cache):
    read(photos, cache)
    changed_content(photos)
    pixels, decoded = read(photos, cache)
    assert decoded == len(pixels.images_NHWC)


@pytest.mark.parametrize(
    "other",
    [
        {"spec": InputSpec(channels=3, height=8, width=9, mean=(0.5,) * 3, std=(0.5,) * 3)},
        {"spec": InputSpec(channels=3, height=8, width=8, mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=0.5)},
        {"spec": InputSpec(channels=1, height=8, width=8, mean=(0.5,), std=(0.5,))},
        {"resize": pillow_resize},
        {"seed": 1},
    ],
    ids=["size", "crop", "channels", "resize", "split"],
)
def test_what_decides_the_pixels_decides_which_are_had_back(photos, cache, other):
    read(photos, cache)
    _, decoded = read(photos, cache, **other)
    assert decoded > 0
    _, decoded = read(photos, cache)
    assert decoded == 0


def test_unreadable_images_are_remembered_with_their_reasons(photos, cache):
    (photos / "cat" / "0.png").write_bytes(b"no picture")
    (photos / "dog" / "1.png").write_bytes(b"no picture")
    first, _ = read(photos, cache)
    second, decoded = read(photos, cache)
    assert decoded == 0
    assert first.bad_images == second.bad_images
    named = [problem for problems in first.bad_images for problem in problems]
    assert 1 <= len(named) <= 2  # one of them may be held out for the test
    assert all("cannot be read" in problem for problem in named)
    assert sum(int((rows_N == -1).sum()) for rows_N in second.rows) == len(named)


@pytest.mark.parametrize("damage", ["flip", "cut", "facts", "dtype"])
def test_damaged_pixels_are_decoded_again_and_kept_again(photos, cache, damage):
    first, _ = read(photos, cache)
    (place,) = cache.folder.iterdir()
    pixels = place / "pixels.npy"
    data = bytearray(pixels.read_bytes())
    if damage == "flip":
        data[-7] ^= 1
    elif damage == "cut":
        del data[-7:]
    elif damage == "dtype":
        data = data.replace(b"|u1", b"|O1")
    pixels.write_bytes(data)
    if damage == "facts":
        (place / "facts.json").write_text('{"crc32"')
    again, decoded = read(photos, cache)
    assert decoded == len(again.images_NHWC)
    assert np.array_equal(first.images_NHWC, again.images_NHWC)
    assert read(photos, cache)[1] == 0


def test_what_was_decoded_in_no_time_is_not_kept(photos, cache):
    quick = PixelCache(folder=cache.folder, settled_seconds=0)
    pixels, _ = read(photos, quick)
    assert pixels.note is None
    assert not cache.folder.exists()


def test_files_that_changed_this_very_moment_are_not_kept(photos, cache):
    careful = PixelCache(folder=cache.folder, worth_seconds=0, settled_seconds=60)
    assert read(photos, careful)[0].note is None
    assert not cache.folder.exists()


def test_without_a_cache_nothing_is_written_or_looked_for(photos, cache):
    read(photos, cache)
    _, decoded = read(photos, None)
    assert decoded > 0


def test_the_pixels_not_used_for_longest_make_room(photos, cache):
    small = PixelCache(folder=cache.folder, worth_seconds=0, settled_seconds=0, most_bytes=9000)
    sides = (8, 9, 10)  # about 3.4, 4.3 and 5.2 kB
    specs = [InputSpec(channels=3, height=n, width=n, mean=(0.5,) * 3, std=(0.5,) * 3) for n in sides]
    for age, spec in zip((300, 200), specs[:2], strict=True):
        read(photos, small, spec)
        for place in small.folder.iterdir():
            if place.stat().st_mtime > place.parent.stat().st_mtime - 100:
                os.utime(place, (place.stat().st_mtime - age,) * 2)
    read(photos, small, specs[0])  # used again: now the other is the oldest
    read(photos, small, specs[2])
    assert read(photos, small, specs[0])[1] == 0
    assert read(photos, small, specs[1])[1] > 0


def test_a_stray_file_in_the_cache_folder_stops_neither_keeping_nor_making_room(photos, cache):
    cache.folder.mkdir()
    (cache.folder / ".DS_Store").write_bytes(b"macOS")
    kept, _ = read(photos, cache)
    assert kept.note.startswith("pixels  kept for the next run: ")
    least = replace(cache, most_bytes=int(1.5 * kept.images_NHWC.nbytes))
    again, _ = read(photos, least, resize=pillow_resize)
    assert again.note.startswith("pixels  kept for the next run: ")
    assert len([entry for entry in cache.folder.iterdir() if entry.is_dir()]) == 1
    assert (cache.folder / ".DS_Store").is_file()


def test_pixels_that_do_not_fit_are_not_kept_and_it_is_said(photos, cache):
    tiny = PixelCache(folder=cache.folder, worth_seconds=0, settled_seconds=0, most_bytes=100)
    pixels, _ = read(photos, tiny)
    assert pixels.note == "pixels  not kept for the next run: 0.0 MB are more than the disk has to spare"
    assert not list(cache.folder.iterdir())


def test_a_cache_folder_that_cannot_be_written_is_no_error(photos, tmp_path):
    (tmp_path / "file").write_text("")
    blocked = PixelCache(folder=tmp_path / "file" / "pixels", worth_seconds=0, settled_seconds=0)
    pixels, _ = read(photos, blocked)
    assert pixels.note is not None
    assert pixels.note.startswith("pixels  could not be kept in `")
    assert len(pixels.images_NHWC) > 0


def test_a_write_that_was_cut_off_is_never_taken_for_whole(photos, cache):
    read(photos, cache)
    (place,) = cache.folder.iterdir()
    (place / "facts.json").unlink()  # as when a process was killed before the end, had it written in place
    assert cache.load(place) is None
    partial = place.with_name(f"{place.name}.0123.partial")
    partial.mkdir()
    os.utime(partial, (0, 0))
    read(photos, cache)
    assert [entry.name for entry in cache.folder.iterdir()] == [place.name]
