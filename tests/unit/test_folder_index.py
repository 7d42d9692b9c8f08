"""A large folder: opened from its index while nothing changed, looked through again when something did."""

import os
import time

import pytest

from linne.data import open_source
from linne.data.index import LEAST_FILES
from linne.data.sources.folder import open_folder

PIXEL = b"P6 1 1 255\n\0\0\0"
NUM_CLASSES = 40


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """As many files as an index begins with; one of them so large that contents are not hashed."""
    root = tmp_path_factory.mktemp("large")
    for k in range(NUM_CLASSES):
        folder = root / f"class {k}"
        folder.mkdir()
        (folder / "0000.ppm").write_bytes(PIXEL)
        for j in range(1, LEAST_FILES // NUM_CLASSES):
            os.link(folder / "0000.ppm", folder / f"{j:04}.ppm")  # many times quicker than as many files
    (root / "class 0/notes.txt").write_bytes(b"")
    for name in ("class 1/0007.ppm", "class 3/0100.ppm"):
        (root / name).unlink()
        (root / name).write_bytes(PIXEL)
    with open(root / "class 1/0007.ppm", "ab") as file:
        file.truncate(257 * 2**20)
    time.sleep(2.1)  # until the times of change are ones that can be trusted
    return root


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    monkeypatch.setenv("LINNE_CACHE", str(tmp_path / "cache"))
    return made


def facts(source):
    splits = {name: (split.indices_N.tolist(), split.labels_N.tolist()) for name, split in source.splits.items()}
    return source.labels, splits, source.fingerprint, source.channels, source.image_size, source.same_size, source.notes


def test_a_large_folder_opened_from_its_index_is_the_same_source(folder, tmp_path):
    first = open_source(str(folder))
    assert len(list((tmp_path / "cache/index").iterdir())) == 2, "what it holds, and how it was split"
    again = open_source(str(folder))
    assert facts(again) == facts(first)
    names = [again.splits["train"].store.name(k) for k in (0, 500, LEAST_FILES - 1)]
    assert names == ["class 0/0000.ppm", "class 1/0000.ppm", "class 9/0499.ppm"]
    assert again.splits["val"].load(3) == PIXEL
    other = open_source(str(folder), split_seed=1)
    assert other.fingerprint != first.fingerprint
    assert other.splits["test"].indices_N.tolist() != first.splits["test"].indices_N.tolist()
    assert facts(open_source(str(folder), split_seed=1)) == facts(other)


def test_the_index_is_what_is_opened(folder):
    """Shown by what an index cannot see: a file outside the sample that was changed in place."""
    before = open_folder(str(folder), None)
    victim = folder / "class 3/0100.ppm"
    victim.write_bytes(PIXEL + b"more")
    try:
        after = open_folder(str(folder), None)
        assert after.given["train"].store.sizes_N.tolist() == before.given["train"].store.sizes_N.tolist()
    finally:
        victim.write_bytes(PIXEL)


def test_a_file_added_anywhere_is_seen_and_said(folder):
    before = open_source(str(folder))
    new = folder / "class 5/new.ppm"
    new.write_bytes(PIXEL)
    try:
        after = open_source(str(folder))
    finally:
        new.unlink()
    assert sum(map(len, after.splits.values())) == sum(map(len, before.splits.values())) + 1
    assert after.fingerprint != before.fingerprint
    assert f"looked through all files again: `{folder}/class 5` changed since they were indexed" in after.notes


def test_a_small_folder_is_looked_through_each_time(tmp_path, monkeypatch):
    monkeypatch.setenv("LINNE_CACHE", str(tmp_path / "cache"))
    for name in ("a/1.ppm", "b/1.ppm"):
        (tmp_path / "set" / name).parent.mkdir(parents=True)
        (tmp_path / "set" / name).write_bytes(PIXEL)
    open_source(str(tmp_path / "set"))
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_a_folder_with_links_that_were_followed_is_looked_through_each_time(folder, tmp_path):
    link = folder / "class 7/link.ppm"
    try:
        link.symlink_to("0001.ppm")
    except OSError:
        pytest.skip("this user may not make symbolic links")
    try:
        time.sleep(2.1)  # else the folder's time alone would keep it from being indexed
        open_folder(str(folder), None)
        assert not (tmp_path / "cache").exists()
    finally:
        link.unlink()
