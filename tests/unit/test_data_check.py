"""`linne data check`: what it prints, writes, and exits with."""

import json

import numpy as np
import pytest
from PIL import Image

from linne.cli import main


@pytest.fixture
def folder(tmp_path):
    """Two classes of twelve different pictures in train and test."""
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for label in ("cat", "dog"):
            (tmp_path / "set" / split / label).mkdir(parents=True)
            for k in range(12):
                coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
                coarse.resize((40, 40), Image.Resampling.BICUBIC).save(tmp_path / "set" / split / label / f"{k}.png")
    return tmp_path / "set"


def leak(folder):
    (folder / "train/cat/copy.png").write_bytes((folder / "test/cat/3.png").read_bytes())


def run(capsys, *words):
    with pytest.raises(SystemExit) as left:
        main(["data", "check", *map(str, words)])
    said = capsys.readouterr()
    return left.value.code or 0, said.out, said.err


def test_a_clean_source_exits_with_0_and_says_so(capsys, folder):
    code, out, err = run(capsys, folder)
    assert code == 0
    assert out.startswith(f"{folder}: 72 images of 2 classes (train 24, val 24, test 24)\n")
    assert out.endswith("\nverdict: nothing found that stands in the way of training\n")
    assert err == ""


def test_a_leak_exits_with_3_after_the_report_and_says_what_to_type(capsys, folder):
    leak(folder)
    code, out, err = run(capsys, folder)
    assert code == 3
    assert "stop     the same image in more than one split: 1 image of test (4.2 %)\n" in out
    assert "         train/cat/copy.png (train) = test/cat/3.png (test)\n" in out
    assert err.startswith(f"error: `{folder}` did not pass its check\n")
    assert f"linne data check {folder} --html check.html --quarantine leave-out.json" in err


def test_json_goes_to_stdout_alone_and_strict_stops_at_warnings(capsys, folder):
    (folder / "train/dog/bad.png").write_bytes(b"nothing")
    code, out, _ = run(capsys, folder, "--json")
    assert code == 0
    report = json.loads(out)
    assert (report["severity"], report["num_images"]) == ("warning", 73)
    assert report["findings"][0]["kind"] == "unreadable"
    assert report["quarantine"] == {
        "train/dog/bad.png": f"cannot be read: {report['findings'][0]['groups'][0]['note']}"
    }
    assert run(capsys, folder, "--strict")[0] == 3


def test_the_list_it_writes_makes_the_next_check_pass(capsys, folder, tmp_path):
    leak(folder)
    listed, page = tmp_path / "leave-out.json", tmp_path / "check.html"
    code, _, err = run(capsys, folder, "--quarantine", listed, "--html", page)
    assert code == 3
    assert f"`linne train {folder} --quarantine {listed}` leaves out what it lists" in err
    assert json.loads(listed.read_bytes())["images"] == {"train/cat/copy.png": "same image as test/cat/3.png in test"}
    assert page.stat().st_size > 10_000
    assert run(capsys, folder, "--without", listed)[0] == 0


def test_a_second_list_holds_what_the_first_left_out(capsys, folder, tmp_path):
    leak(folder)
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    run(capsys, folder, "--quarantine", first)
    (folder / "train/dog/bad.png").write_bytes(b"nothing")
    run(capsys, folder, "--without", first, "--quarantine", second)
    assert list(json.loads(second.read_bytes())["images"]) == ["train/cat/copy.png", "train/dog/bad.png"]


def test_a_list_that_is_there_is_refused_before_anything_is_read(capsys, folder, tmp_path):
    (tmp_path / "mine.json").write_text("{}")
    code, out, err = run(capsys, tmp_path / "no such folder", "--quarantine", tmp_path / "mine.json")
    assert (code, out) == (1, "")
    assert f"error: `{tmp_path / 'mine.json'}` is there already" in err
    assert (tmp_path / "mine.json").read_text() == "{}"
