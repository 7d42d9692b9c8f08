"""Cross-validation: a run a fold, each image answered once by a network that did not learn from it, and one summary."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import statistics
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import linne
from linne import metrics
from linne.cli import cli
from linne.cross_validation import FoldResult, summarise
from linne.errors import LinneError, RecipeError

SOURCE = "synthetic:classes=3,size=12,count=90"
FAST = {"model": "mlp", "epochs": 2, "device": "cpu", "overrides": {"device.precision": "fp32"}}


def fold(number: int, num_right: int, num_examples: int, test: float | None = None) -> FoldResult:
    return FoldResult(
        fold=number,
        run=f"fold-{number}",
        num_examples=num_examples,
        num_right=num_right,
        accuracy=num_right / num_examples,
        accuracy_interval=metrics.wilson_interval(num_right, num_examples),
        test_accuracy=test,
    )


def test_folds_are_summarised_by_their_mean_their_deviation_and_all_images_together():
    report = summarise("photos", [fold(1, 8, 10, 0.7), fold(2, 9, 10, 0.9), fold(3, 3, 4, 0.8)], [])
    accuracies = [0.8, 0.9, 0.75]
    assert report.mean == pytest.approx(np.mean(accuracies))
    assert report.standard_deviation == pytest.approx(np.std(accuracies, ddof=1))
    assert (report.num_right, report.num_examples, report.accuracy) == (20, 24, 20 / 24)
    assert report.accuracy_interval == metrics.wilson_interval(20, 24)
    assert report.to_markdown() == (
        "# 3 folds of photos\n\n"
        "| fold | images | accuracy | on test |\n"
        "|---|--:|--:|--:|\n"
        "| 1 | 10 | 80.0 % | 70.0 % |\n"
        "| 2 | 10 | 90.0 % | 90.0 % |\n"
        "| 3 | 4 | 75.0 % | 80.0 % |\n"
        "| mean +- sd |  | 81.7 % +- 7.6 % | 80.0 % +- 10.0 % |\n"
        "| out of fold | 24 | 83.3 % |  |\n\n"
        "Out of fold 83.3 % right (20 of 24; 95 % interval 64.1 to 93.3 %).\n\n"
        "Each image was answered by the network that did not learn from it. It had a part in choosing that network's "
        "epoch, so expect a little less on new images.\n"
    )


def test_a_source_without_a_test_split_has_none_in_the_table():
    rows = summarise("photos", [fold(1, 8, 10), fold(2, 9, 10)], []).rows()
    assert [row[3] for row in rows] == ["on test", "-", "-", "-", ""]


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"overrides": {"data.fold": 2}}, "data.fold names one fold, and all are asked for", "`linne.train`"),
        ({"folds": 1}, "data.folds is 1, expected 2 to 1000", None),
        ({"resume": True}, "nothing says which runs to go on with", "--output DIR --resume"),
        ({"resume": True, "output": "none"}, "there are no folds in `none` to go on with", "`--resume auto`"),
    ],
    ids=str,
)
def test_what_cannot_be_cross_validated_is_refused(options, message, hint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LinneError) as caught:
        linne.cross_validate(SOURCE, quiet=True, **options)
    assert caught.value.message == message
    assert hint is None or hint in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_opened_sources_and_several_processes_are_refused(monkeypatch):
    images = np.zeros((20, 8, 8), np.uint8)
    source = linne.from_arrays(images, np.arange(20) % 2)
    with pytest.raises(LinneError, match="the source is a Source, whose splits are made already; expected a text"):
        linne.cross_validate(source)
    place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    for name, value in {**place, "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    for options, number in (({}, 5), ({"folds": 4}, 4), ({"overrides": {"data.folds": 3}}, 3)):
        with pytest.raises(LinneError) as caught:
            linne.cross_validate(SOURCE, **options)
        assert caught.value.hint == f"train each by itself: --set data.folds={number} --set data.fold=1"


@pytest.fixture(scope="module")
def validated(tmp_path_factory) -> linne.CrossValidation:
    """Three folds, trained."""
    folder = tmp_path_factory.mktemp("folds") / "cv"
    return linne.cross_validate(SOURCE, folds=3, output=folder, quiet=True, **FAST)


def answers_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "out-of-fold.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.long
def test_every_image_that_does_not_test_is_answered_once_by_the_fold_that_held_it_out(validated):
    folder, report = validated.folder, validated.report
    answers = answers_of(folder)
    names = [row["image"] for row in answers]
    source = linne.open_source(SOURCE)
    pool = [split.example_name(n) for name, split in source.splits.items() if name != "test" for n in range(len(split))]
    assert sorted(names) == sorted(pool)
    for number in (1, 2, 3):
        opened = linne.open_source(SOURCE, folds=3, fold=number)
        val = opened.splits["val"]
        held_out = {val.example_name(n): opened.labels[val.labels_N[n]] for n in range(len(val))}
        mine = [row for row in answers if row["fold"] == str(number)]
        assert {row["image"]: row["label"] for row in mine} == held_out
        right = sum(row["label"] == row["predicted"] for row in mine)
        assert report.folds[number - 1].num_right == right
        measured = linne.evaluate(folder / f"fold-{number}/bundle", SOURCE, split="val", quiet=True)
        assert report.folds[number - 1].accuracy == measured.accuracy == right / len(mine)
        tested = json.loads((folder / f"fold-{number}/evaluation.json").read_text())
        assert (tested["split"], tested["accuracy"]) == ("test", report.folds[number - 1].test_accuracy)
    assert report.num_right == sum(row["label"] == row["predicted"] for row in answers)


@pytest.mark.long
def test_what_is_most_worth_a_look_is_on_top_of_the_answers(validated):
    answers = answers_of(validated.folder)
    wrong = [row["label"] != row["predicted"] for row in answers]
    assert wrong == sorted(wrong, reverse=True)
    sure = [float(row["probability"]) for row in answers]
    assert all(1 / 3 <= p <= 1 for p in sure)
    of_wrong, of_right = sure[: sum(wrong)], sure[sum(wrong) :]
    assert of_wrong == sorted(of_wrong, reverse=True)
    assert of_right == sorted(of_right)


@pytest.mark.long
def test_the_summary_is_written_and_all_folds_have_one_recipe(validated):
    folder = validated.folder
    written = json.loads((folder / "folds.json").read_text())
    assert written == json.loads(json.dumps(validated.report.to_dict()))
    assert written["mean"] == statistics.mean(each["accuracy"] for each in written["folds"])
    assert (folder / "folds.md").read_text() == validated.report.to_markdown()
    recipes = [json.loads((folder / f"fold-{k}/recipe.json").read_text())["recipe"] for k in (1, 2, 3)]
    assert [recipe["data"].pop("fold") for recipe in recipes] == [1, 2, 3]
    assert recipes[0] == recipes[1] == recipes[2]


@pytest.mark.long
def test_a_cross_validation_that_was_cut_off_goes_on_with_the_fold_that_is_not_finished(validated, tmp_path):
    folder = Path(shutil.copytree(validated.folder, tmp_path / "cv"))
    for name in ("folds.json", "folds.md", "out-of-fold.csv"):
        (folder / name).unlink()
    shutil.rmtree(folder / "fold-2")
    kept = (folder / "fold-1/bundle/model.safetensors").stat().st_mtime_ns
    ended = CliRunner().invoke(cli, ["train", "--output", str(folder), "--resume"], prog_name="linne")
    assert ended.exit_code == 0, ended.output
    assert (folder / "fold-1/bundle/model.safetensors").stat().st_mtime_ns == kept
    for name in ("folds.json", "folds.md", "out-of-fold.csv"):
        assert (folder / name).read_bytes() == (validated.folder / name).read_bytes()
    for said in ("fold 1 of 3\n", "nothing is left to do", "\nfold 2 of 3\n", "\nfold 3 of 3\n", "mean +- sd"):
        assert said in ended.stderr
    with pytest.raises(RecipeError) as caught:
        linne.cross_validate(SOURCE, folds=4, output=folder, resume="auto", quiet=True)
    assert caught.value.message == f"`{folder}` holds 3 folds, and 4 are asked for"
    assert caught.value.hint == "use --folds 3"


@pytest.mark.long
def test_a_signal_ends_the_fold_at_hand_and_begins_no_other(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    measured = Path("cv/fold-2/metrics.jsonl")

    def interrupt() -> None:
        while not (measured.is_file() and '"epoch": 1,' in measured.read_text()):
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGUSR1)

    threading.Thread(target=interrupt, daemon=True).start()
    # Fewer epochs would be over before the signal comes.
    result = linne.cross_validate(SOURCE, folds=3, output="cv", **{**FAST, "epochs": 100})
    assert result.signal_number == signal.SIGUSR1
    assert result.report is None
    assert len(result.runs) == 2
    assert sorted(path.name for path in Path("cv").iterdir()) == ["fold-1", "fold-2"]
    assert capfd.readouterr().err.endswith("to go on: linne train --output cv --resume\n")
    assert result.to_dict()["interrupted"] is True


@pytest.mark.long
def test_the_command_line_trains_all_folds_by_either_spelling_and_one_where_it_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["train", SOURCE, "--model", "mlp", "--epochs", "1", "--device", "cpu"]
    ended = CliRunner().invoke(cli, [*words, "--set", "data.folds=2", "--quiet"], prog_name="linne")
    assert ended.exit_code == 0, ended.output
    folder = Path(ended.stdout.strip()).parent
    assert sorted(path.name for path in folder.iterdir()) == [
        *("fold-1", "fold-2", "folds.json", "folds.md", "out-of-fold.csv")
    ]
    one = [*words, "--folds", "2", "--set", "data.fold=2", "--output", "one", "--json"]
    ended = CliRunner().invoke(cli, one, prog_name="linne")
    assert ended.exit_code == 0, ended.output
    assert json.loads(ended.stdout)["run"] == "one"
    explained = CliRunner().invoke(cli, [*words, "--folds", "2", "--explain", "--json"], prog_name="linne")
    fields = json.loads(explained.stdout)
    assert [fields[path]["value"] for path in ("data.folds", "data.fold")] == [2, 1]
    assert "the first fold; the others differ from it in data.fold alone" in explained.stderr
