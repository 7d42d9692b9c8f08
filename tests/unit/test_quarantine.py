"""A quarantine list is written once, read strictly, and leaves out exactly what it names."""

import json
import os

import pytest
from PIL import Image

from linne.data import open_source, save_manifest
from linne.data.quarantine import read_quarantine, save_quarantine
from linne.errors import SourceError


@pytest.fixture
def folder(tmp_path):
    """Two classes of six images each, split by linne."""
    for number, label in enumerate(("cat", "dog")):
        (tmp_path / "set" / label).mkdir(parents=True)
        for k in range(6):
            Image.new("RGB", (8, 8), (40 * k, 100 * number, 0)).save(tmp_path / "set" / label / f"{k}.png")
    return tmp_path / "set"


def write(path, images, **more):
    path.write_text(json.dumps({"format": 1, "images": images, **more}))
    return path


def names_of(source):
    return {split.example_name(k) for split in source.splits.values() for k in range(len(split))}


def test_what_is_listed_is_left_out_and_nothing_else(tmp_path, folder):
    listed = write(tmp_path / "q.json", {"cat/1.png": "blurred", "dog/4.png": ""})
    source = open_source(str(folder), quarantine=listed)
    assert names_of(open_source(str(folder))) - names_of(source) == {"cat/1.png", "dog/4.png"}
    assert len(names_of(source)) == 10
    assert "left out 2 images on the quarantine list" in source.notes
    assert source.fingerprint != open_source(str(folder)).fingerprint


def test_names_that_are_not_in_the_source_are_counted(tmp_path, folder):
    listed = write(tmp_path / "q.json", {"cat/1.png": "", "cat/gone.png": ""})
    assert "1 name on the quarantine list not in this source" in open_source(str(folder), quarantine=listed).notes


def test_a_list_of_another_source_is_refused(tmp_path, folder):
    listed = write(tmp_path / "q.json", {"a.png": "", "b.png": "", "c.png": ""})
    with pytest.raises(SourceError) as caught:
        open_source(str(folder), quarantine=listed)
    assert caught.value.message == (
        "none of 3 images on the quarantine list is in this source, among them `a.png`, `b.png` and 1 more"
    )
    assert caught.value.hint == "is it another source's list?"


def test_an_empty_list_leaves_everything(tmp_path, folder):
    assert len(names_of(open_source(str(folder), quarantine=write(tmp_path / "q.json", {})))) == 12


def test_a_class_that_would_be_emptied_is_named(tmp_path, folder):
    listed = write(tmp_path / "q.json", {f"dog/{k}.png": "" for k in range(6)})
    with pytest.raises(SourceError, match=r"the quarantine list leaves no training image of `dog`"):
        open_source(str(folder), quarantine=listed)


def test_a_split_that_would_be_emptied_is_named(tmp_path, folder):
    for label in ("cat", "dog"):
        (folder / "test" / label).mkdir(parents=True)
        (folder / "train").mkdir(exist_ok=True)
        (folder / label).rename(folder / "train" / label)
        Image.new("RGB", (9, 9)).save(folder / "test" / label / "1.png")
    listed = write(tmp_path / "q.json", {f"test/{label}/1.png": "" for label in ("cat", "dog")})
    with pytest.raises(SourceError, match=r"the quarantine list leaves no image of test"):
        open_source(str(folder), quarantine=listed)


def test_what_is_saved_is_read_again_and_never_replaced(tmp_path):
    path = tmp_path / "q.json"
    save_quarantine(path, {"é\n.png": "cut short", "\udcff.png": ""}, source="photos/", fingerprint="f")
    assert read_quarantine(path) == {"é\n.png": "cut short", "\udcff.png": ""}
    with pytest.raises(SourceError, match=r"q.json` is there already"):
        save_quarantine(path, {}, source="photos/", fingerprint="f")
    assert len(read_quarantine(path)) == 2
    assert [each.name for each in tmp_path.iterdir()] == ["q.json"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "expected the fields format and images"),
        ('{"images": {}}', "expected the fields format and images"),
        ('{"format": 2, "images": {}}', "format is 2, expected 1"),
        ('{"format": true, "images": {}}', "format is True, expected 1"),
        ('{"format": 1, "images": ["a.png"]}', "images is not a text for each name"),
        ('{"format": 1, "images": {"a.png": 3}}', "images is not a text for each name"),
    ],
)
def test_what_is_no_list_is_refused(tmp_path, text, said):
    (tmp_path / "q.json").write_text(text)
    with pytest.raises(SourceError) as caught:
        read_quarantine(tmp_path / "q.json")
    assert said in caught.value.message


def test_a_list_that_is_not_there_says_how_to_make_one(tmp_path):
    with pytest.raises(SourceError, match=r"cannot be read: no such file or directory") as caught:
        read_quarantine(tmp_path / "q.json")
    assert caught.value.hint.startswith("`linne data check SOURCE --quarantine ")


def test_a_split_file_holds_for_what_is_left(tmp_path, folder):
    source = open_source(str(folder))
    save_manifest(source, tmp_path / "splits.json")
    tested = source.splits["test"].example_name(0)
    listed = write(tmp_path / "q.json", {tested: "blurred"})
    again = open_source(str(folder), splits_file=tmp_path / "splits.json", quarantine=listed)
    assert names_of(source) - names_of(again) == {tested}
    for name, split in again.splits.items():
        before = source.splits[name]
        assert {split.example_name(k) for k in range(len(split))} == {
            before.example_name(k) for k in range(len(before))
        } - {tested}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_refused_rather_than_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for options, what in (
        ({"quarantine": tmp_path / "pipe"}, "quarantine list"),
        ({"splits_file": tmp_path / "pipe"}, "split file"),
    ):
        with pytest.raises(SourceError, match=f"{what} `.*pipe` is not a regular file"):
            open_source("synthetic", **options)
