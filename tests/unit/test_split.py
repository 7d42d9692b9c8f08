"""Which examples are held out, and splits that are saved and had again."""

import hashlib
import json
import shutil

import pytest

from linne.data import open_source, save_manifest
from linne.errors import RecipeError, SourceError

PIXEL = b"P6 1 1 255\n\0\0\0"


@pytest.fixture
def folder(tmp_path):
    """Twenty images of each of two classes."""
    root = tmp_path / "set"
    for label in ("cat", "dog"):
        (root / label).mkdir(parents=True)
        for k in range(20):
            (root / label / f"{k}.ppm").write_bytes(PIXEL)
    return root


def names_of(split):
    return [split.example_name(position) for position in range(len(split))]


def split_names(source):
    return {name: sorted(names_of(split)) for name, split in source.splits.items()}


def refusal(action):
    with pytest.raises(SourceError) as caught:
        action()
    assert "\n" not in caught.value.message
    return caught.value.message, caught.value.hint


# Making splits


def test_another_seed_holds_out_others(folder):
    assert split_names(open_source(str(folder))) != split_names(open_source(str(folder), split_seed=1))


def test_the_same_seed_holds_out_the_same_wherever_the_folder_lies(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert split_names(open_source(str(folder))) == split_names(open_source(str(tmp_path / "elsewhere")))


def test_no_example_is_in_two_splits_and_none_is_lost(folder):
    splits = split_names(open_source(str(folder)))
    everything = [name for names in splits.values() for name in names]
    assert len(everything) == len(set(everything)) == 40


def test_without_a_val_fraction_there_is_no_val_split(folder):
    assert {n: len(s) for n, s in open_source(str(folder), val_fraction=None).splits.items()} == {
        "train": 34,
        "test": 6,
    }


@pytest.mark.parametrize("option", ["val_fraction", "test_fraction"])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.5, 2.0])
def test_a_fraction_out_of_range_is_refused(folder, option, value):
    with pytest.raises(RecipeError, match=f"{option} is {value:g}, expected more than 0 and less than 1"):
        open_source(str(folder), **{option: value})


def test_classes_too_small_to_hold_one_out_are_named(folder):
    (folder / "emu").mkdir()
    (folder / "emu/1.ppm").write_bytes(PIXEL)
    source = open_source(str(folder))
    assert "test has no example of `emu`: too few images to hold one out" in source.notes
    assert "val has no example of `emu`: too few images to hold one out" in source.notes
    assert 2 in source.splits["train"].labels_N


def test_a_set_too_small_to_split_trains_on_all_and_says_so(tmp_path):
    for name in ("a/1.ppm", "b/1.ppm"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(PIXEL)
    source = open_source(str(tmp_path))
    assert list(source.splits) == ["train"]
    assert source.notes == (
        "no test split: 2 examples in train are too few to hold any out",
        "no val split: 2 examples in train are too few to hold any out",
    )


# Manifests


@pytest.mark.parametrize("option", [{"group_by": "(.)"}, {"folds": 3, "fold": 1}])
def test_a_manifest_and_what_would_make_other_splits_are_not_taken_together(folder, tmp_path, option):
    save_manifest(open_source(str(folder)), tmp_path / "splits.json")
    with pytest.raises(RecipeError) as refused:
        open_source(str(folder), splits_file=tmp_path / "splits.json", **option)
    name = next(iter(option))
    assert refused.value.message == f"splits_file says who is in which split, and {name} would make other splits"
    assert refused.value.hint == "leave one of them out"


def test_a_manifest_gives_the_same_source_again(folder, tmp_path):
    source = open_source(str(folder), split_seed=3)
    save_manifest(source, tmp_path / "splits.json")
    again = open_source(str(folder), splits_file=tmp_path / "splits.json")
    assert split_names(again) == split_names(source)
    assert again.fingerprint == source.fingerprint
    assert again.labels == source.labels
    assert again.notes[-1] == f"splits as in `{tmp_path}/splits.json`: train 30, val 4, test 6"


def test_a_manifest_is_plain_json_of_relative_names_and_its_hash_is_returned(folder, tmp_path):
    digest = save_manifest(open_source(str(folder)), tmp_path / "splits.json")
    data = (tmp_path / "splits.json").read_bytes()
    content = json.loads(data)
    assert content["format"] == 1
    assert content["labels"] == ["cat", "dog"]
    assert content["splits"]["test"]["cat"][0].startswith("cat/")
    assert str(tmp_path).encode() not in data
    assert digest == hashlib.sha256(data).hexdigest()
    assert save_manifest(open_source(str(folder)), tmp_path / "again.json") == digest
    assert [path.name for path in tmp_path.glob("*.partial")] == []


def test_a_manifest_holds_for_a_copy_that_spells_letters_otherwise(folder, tmp_path):
    (folder / "cat/caf\u00e9.ppm").write_bytes(PIXEL)
    source = open_source(str(folder))
    save_manifest(source, tmp_path / "splits.json")
    (folder / "cat/caf\u00e9.ppm").rename(folder / "cat/cafe\u0301.ppm")
    again = open_source(str(folder), splits_file=tmp_path / "splits.json")
    assert again.notes[-1].startswith("splits as in"), "nothing is gone, nothing is new"
    assert {n: len(s) for n, s in again.splits.items()} == {n: len(s) for n, s in source.splits.items()}
    (folder / "cat/caf\u00e9.ppm").write_bytes(PIXEL)
    if len(list((folder / "cat").glob("caf*"))) == 2:  # a file system that tells them apart
        both = open_source(str(folder), splits_file=tmp_path / "splits.json")
        assert split_names(both) == split_names(source), "the one that is spelt as listed is the one that is meant"
        assert both.notes[-1].startswith("left out 1 example that")


def test_images_added_later_are_left_out_and_counted(folder, tmp_path):
    source = open_source(str(folder))
    save_manifest(source, tmp_path / "splits.json")
    for name in ("cat/new.ppm", "dog/new.ppm", "emu/new.ppm"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(PIXEL)
    again = open_source(str(folder), splits_file=tmp_path / "splits.json")
    assert split_names(again) == split_names(source)
    assert again.labels == ("cat", "dog"), "a class that came later is not one of the model's"
    assert again.fingerprint == source.fingerprint, "what is left out does not count"
    assert again.notes[-1] == f"left out 3 examples that `{tmp_path}/splits.json` does not list"


def test_a_training_image_that_is_gone_is_noted(folder, tmp_path):
    source = open_source(str(folder))
    save_manifest(source, tmp_path / "splits.json")
    gone = names_of(source.splits["train"])[0]
    (folder / gone).unlink()
    again = open_source(str(folder), splits_file=tmp_path / "splits.json")
    assert again.notes[-1] == (
        f"`{tmp_path}/splits.json` lists 1 training example that this source no longer has: `{gone}`"
    )
    assert split_names(again)["test"] == split_names(source)["test"]


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_judging_image_that_is_gone_is_an_error_that_names_it(folder, tmp_path, split):
    source = open_source(str(folder))
    save_manifest(source, tmp_path / "splits.json")
    gone = names_of(source.splits[split])[0]
    (folder / gone).unlink()
    message, hint = refusal(lambda: open_source(str(folder), splits_file=tmp_path / "splits.json"))
    assert message == (
        f"`{tmp_path}/splits.json` lists 1 example for val or test that this source no longer has: `{gone}`"
    )
    assert hint == "put back what is missing, or train again to make new splits"


def test_a_manifest_of_another_source_is_refused(folder, tmp_path):
    save_manifest(open_source("synthetic"), tmp_path / "splits.json")
    message, hint = refusal(lambda: open_source(str(folder), splits_file=tmp_path / "splits.json"))
    assert message == f"nothing that `{tmp_path}/splits.json` lists for train is in this source"
    assert hint == "is it another source's?"


def test_an_example_with_another_label_than_its_manifest_is_an_error(tmp_path):
    save_manifest(open_source("synthetic:classes=2,size=4,count=40"), tmp_path / "splits.json")
    text = (tmp_path / "splits.json").read_text("utf-8")
    swapped = text.replace("stripes-0", "x").replace("stripes-1", "stripes-0").replace('"x"', '"stripes-1"')
    (tmp_path / "splits.json").write_text(swapped, "utf-8")
    message, hint = refusal(
        lambda: open_source("synthetic:classes=2,size=4,count=40", splits_file=tmp_path / "splits.json")
    )
    assert message.startswith(
        f"40 examples changed class since `{tmp_path}/splits.json` was written: `synthetic[0]` is `stripes-0`, was"
    )
    assert hint == "train again, without the split file"


def test_the_manifest_of_a_named_set_keeps_its_official_test_images(tmp_path):
    source = open_source("digits", split_seed=5)
    save_manifest(source, tmp_path / "splits.json")
    again = open_source("digits", splits_file=tmp_path / "splits.json")
    assert split_names(again) == split_names(source)
    assert again.fingerprint == source.fingerprint


GOOD = {"format": 1, "labels": ["cat", "dog"], "splits": {"train": {"cat": ["cat/0.ppm"], "dog": ["dog/0.ppm"]}}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not JSON as linne writes it: Expecting value"),
        ("[1, 2]", "cannot be used: expected the fields format, labels and splits, and no other"),
        ("{", "is not JSON as linne writes it: Expecting property name"),
        ("[" * 100_000, "is not JSON as linne writes it: "),
        ('{"format": NaN}', "is not JSON as linne writes it: NaN is not a JSON value"),
        ('{"format": 1, "format": 1}', "is not JSON as linne writes it: a field is there twice"),
        (json.dumps({**GOOD, "format": 2}), "has format 2, this linne reads 1"),
        (json.dumps({**GOOD, "format": True}), "cannot be used: format is True, expected 1"),
        (json.dumps({**GOOD, "format": "1"}), "cannot be used: format is '1', expected 1"),
        (json.dumps({**GOOD, "more": 1}), "cannot be used: expected the fields format"),
        (json.dumps({**GOOD, "labels": ["cat", "cat"]}), "cannot be used: labels are not a list of different texts"),
        (json.dumps({**GOOD, "labels": "cat"}), "cannot be used: labels are not a list of different texts"),
        (json.dumps({**GOOD, "splits": {"val": {}}}), "cannot be used: splits are not train with any of val, test"),
        (json.dumps({**GOOD, "splits": {"train": {}, "dev": {}}}), "cannot be used: splits are not train with any of"),
        (
            json.dumps({**GOOD, "splits": {"train": {"cat": [1]}}}),
            "cannot be used: train is not a list of names for each",
        ),
        (
            json.dumps({**GOOD, "splits": {"train": {"emu": []}}}),
            "cannot be used: train has the class `emu`, which is not",
        ),
        (
            json.dumps({**GOOD, "splits": {"train": {"cat": ["a"]}, "test": {"cat": ["a"]}}}),
            "has `a` twice: in train and in test",
        ),
    ],
)
def test_a_split_file_that_is_not_one_is_refused(folder, tmp_path, text, said):
    (tmp_path / "splits.json").write_text(text, "utf-8")
    message, _ = refusal(lambda: open_source(str(folder), splits_file=tmp_path / "splits.json"))
    assert message.startswith(f"split file `{tmp_path}/splits.json` {said}")


def test_a_missing_split_file_is_an_error(folder, tmp_path):
    message, _ = refusal(lambda: open_source(str(folder), splits_file=tmp_path / "none.json"))
    assert message == f"split file `{tmp_path}/none.json` cannot be read: no such file or directory"


def test_a_manifest_that_cannot_be_written_is_an_error(folder, tmp_path):
    message, _ = refusal(lambda: save_manifest(open_source(str(folder)), tmp_path / "no" / "splits.json"))
    assert message == f"`{tmp_path}/no/splits.json` cannot be written: no such file or directory"
