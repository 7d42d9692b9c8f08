"""`linne data split`: split files that are made once and used by every verb."""

import hashlib
import json

import pytest

from linne.cli import main
from linne.data import open_source
from linne.data.manifest import read_manifest
from linne.data.split_files import write_splits
from linne.errors import SourceError

PIXEL = b"P6 1 1 255\n\0\0\0"


@pytest.fixture
def folder(tmp_path):
    """Four pictures of each of twelve patients, of two classes."""
    root = tmp_path / "set"
    for label in ("cat", "dog"):
        (root / label).mkdir(parents=True)
        for k in range(24):
            (root / label / f"patient{k // 4 + 6 * (label == 'dog')}_{k}.ppm").write_bytes(PIXEL)
    return root


def run(capsys, *words):
    """Return the exit code, stdout and stderr of `linne data split` with `words`."""
    with pytest.raises(SystemExit) as left:
        main(["data", "split", *map(str, words)])
    captured = capsys.readouterr()
    return left.value.code or 0, captured.out, captured.err


def test_a_written_split_is_the_one_that_opening_with_the_file_gives(folder, tmp_path, capsys):
    file = tmp_path / "splits.json"
    code, out, err = run(capsys, folder, file, "--test", "0.25", "--val", "none", "--seed", "7")
    assert (code, out) == (0, f"{file}  train 36  test 12\n")
    assert err == (
        "test: 12 of 48 examples held out of train, 0.25 of each class (chosen by name and split_seed 7)\n"
        f"\nuse it: `linne train {folder} --splits-file {file}`\n"
    )
    direct = open_source(str(folder), test_fraction=0.25, val_fraction=None, split_seed=7)
    assert open_source(str(folder), splits_file=file).fingerprint == direct.fingerprint


def test_folds_are_written_as_one_file_each_with_the_same_test_images(folder, tmp_path, capsys):
    code, out, _ = run(capsys, folder, tmp_path / "cv", "--folds", "3", "--group-by", r"patient(\d+)_", "--json")
    assert code == 0
    written = json.loads(out)
    assert [one["path"] for one in written] == [str(tmp_path / f"cv-fold{k}.json") for k in (1, 2, 3)]
    for one in written:
        with open(one["path"], "rb") as file:
            assert hashlib.sha256(file.read()).hexdigest() == one["sha256"]
    places = [read_manifest(tmp_path / f"cv-fold{k}.json").places for k in (1, 2, 3)]
    of = [{split: {name for name in p if p[name][0] == split} for split in ("train", "val", "test")} for p in places]
    assert of[0]["test"] == of[1]["test"] == of[2]["test"]
    assert of[0]["val"] | of[1]["val"] | of[2]["val"] | of[0]["test"] == set(places[0])
    for p in places:
        by_patient = {}
        for name, (split, _) in p.items():
            by_patient.setdefault(name.partition("_")[0], set()).add(split)
        assert all(len(splits) == 1 for splits in by_patient.values())


def test_a_file_that_is_there_is_never_replaced(folder, tmp_path, capsys):
    (tmp_path / "cv-fold2.json").write_text("precious", "utf-8")
    code, out, err = run(capsys, folder, tmp_path / "cv.json", "--folds", "3")
    assert (code, out) == (1, "")
    assert f"`{tmp_path}/cv-fold2.json` is there already" in err
    assert "remove it, or name another file" in err
    assert [path.name for path in tmp_path.glob("cv*")] == ["cv-fold2.json"]
    assert (tmp_path / "cv-fold2.json").read_text("utf-8") == "precious"


def test_a_split_file_for_a_folder_that_is_not_there_is_an_error(folder, tmp_path):
    with pytest.raises(SourceError, match="cannot be written: no such file or directory"):
        write_splits(str(folder), tmp_path / "none/splits.json")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--folds", "1"), "folds is 1, expected 2 or more"),
        (("--test", "1.5"), "test_fraction is 1.5, expected more than 0 and less than 1"),
        (("--group-by", "patient"), "group_by `patient` is no column, and as a regular expression has no group"),
        (("--group-by", r"person(\d+)"), r"group_by `person(\d+)` finds nothing in 48 of 48 examples of train"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(folder, tmp_path, capsys, words, said):
    code, out, err = run(capsys, folder, tmp_path / "splits.json", *words)
    assert (code, out) == (1, "")
    assert f"error: {said}" in err
    assert "\nhint: " in err or words[0] in ("--folds", "--test")
    assert not list(tmp_path.glob("splits*"))
