"""The main job end to end: train, evaluate, predict; and what happens when it goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import linne
from linne.bundle import open_bundle
from linne.errors import CheckFailed, LinneError, SourceError
from linne.log import Narrator, Run
from linne.planning import collect, make_plan
from linne.recipes import recipe_document
from linne.training.loop import Trained
from linne.training.loop import train as train_loop

SYNTHETIC = "synthetic:classes=3,size=12,count=120"
# The precision is fixed because the choice depends on what else the processor is doing.
FAST = {"optim.epochs": 3, "data.batch_size": 32, "device.precision": "fp32"}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def train_only(recipe: str | None = None, **overrides) -> tuple[Run, Trained]:
    """Train on the synthetic set without the final evaluation and report, which take longer than this training."""
    plan = make_plan(*collect(None if recipe else SYNTHETIC, recipe, {}, {} if recipe else {**FAST, **overrides}))
    run = Run.create(None, "test")
    run.write_json("recipe.json", recipe_document(plan.recipe, plan.reasons))
    trained = train_loop(plan.recipe, plan.source, run, Narrator(quiet=True))
    run.close()
    return run, trained


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights_of(bundle: Path) -> dict[str, np.ndarray]:
    return open_bundle(bundle).weights()


def assert_same_weights(first: Path, second: Path) -> None:
    a, b = weights_of(first), weights_of(second)
    assert a.keys() == b.keys()
    for name in a:
        assert np.array_equal(a[name], b[name]), name


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> linne.TrainResult:
    return linne.train("digits", epochs=8, output=tmp_path_factory.mktemp("run") / "digits", quiet=True)


def test_digits_are_learnt_and_everything_is_left_in_the_run_folder(trained):
    assert trained.report.accuracy > 0.97, "8 epochs reach 99.2 % on average; a k-nearest-neighbour reaches 98 %"
    names = {path.name for path in trained.run.iterdir()}
    expected = {"recipe.json", "metrics.jsonl", "bundle", "report.md", "report.html", "plots", "evaluation.json"}
    assert expected <= names
    assert {path.suffix for path in (trained.run / "plots").iterdir()} == {".png"}


def test_measurements_are_written_as_they_come(trained):
    rows = rows_of(trained.run)
    epochs = [row for row in rows if row["event"] == "epoch"]
    steps = [row for row in rows if row["event"] == "step"]
    assert [row["epoch"] for row in epochs] == list(range(1, 9))
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"]
    assert steps[-1]["step"] == epochs[-1]["step"]
    assert all(row["images_per_second"] > 0 for row in steps)
    assert rows[-1]["event"] == "end"
    assert rows[-1]["reason"] == "finished"


def test_the_test_split_is_scored_once_and_the_score_goes_into_the_bundle(trained):
    bundle = open_bundle(trained.bundle)
    assert bundle.metrics["test"]["accuracy"] == trained.report.accuracy
    assert "val" in bundle.metrics
    assert trained.report.split == "test"
    assert trained.report.num_examples == 450


def test_the_bundle_evaluates_to_the_score_that_training_reported(trained):
    assert linne.evaluate(trained.bundle, "digits").accuracy == trained.report.accuracy


def test_the_test_at_the_end_looks_at_several_views_where_asked_and_validation_at_one():
    result = linne.train(SYNTHETIC, overrides={**FAST, "augment.flip": True, "tta": "crops"}, quiet=True)
    assert result.report.tta == "crops"
    assert open_bundle(result.bundle).metrics["test"]["tta"] == "crops"
    again, once = (linne.evaluate(result.bundle, SYNTHETIC, tta=tta, quiet=True) for tta in ("crops", None))
    assert (again.loss, again.accuracy) == (result.report.loss, result.report.accuracy)
    assert once.loss != again.loss
    assert linne.evaluate(result.bundle, SYNTHETIC, split="val", quiet=True).accuracy == result.val_accuracy


def test_the_bundle_predicts_an_image_file_by_name(trained, tmp_path):
    from linne.data import open_source

    split = open_source("digits").splits["test"]
    right = 0
    for position in range(20):
        Image.fromarray(split.pixels(position, 1)[..., 0]).save(tmp_path / f"{position:02}.png")
    for position, prediction in enumerate(linne.predict(trained.bundle, tmp_path, top=3)):
        assert prediction.error is None
        assert len(prediction.labels) == 3
        assert prediction.probabilities[0] >= prediction.probabilities[1]
        right += prediction.labels[0] == str(split.labels_N[position])
    assert right >= 18


@pytest.mark.parametrize("loader", ["resident", "streaming"])
def test_a_run_repeats_bit_for_bit_from_its_recipe(loader):
    first_run, first = train_only(**{"data.loader": loader, "augment.flip": True, "optim.ema_decay": 0.9})
    second_run, second = train_only(str(first_run.path / "recipe.json"))
    assert first_run.path != second_run.path
    assert_same_weights(first.bundle.path, second.bundle.path)


def test_another_seed_gives_other_weights_and_the_same_held_out_examples():
    bundles = [train_only(seed=seed)[1].bundle for seed in (0, 1)]
    first, second = (bundle.weights() for bundle in bundles)
    assert not np.array_equal(first["head.weight"], second["head.weight"])
    assert len({bundle.provenance["source"]["fingerprint"] for bundle in bundles}) == 1


@pytest.mark.parametrize(
    "augment", [{}, {"augment.policy": "rand", "augment.mixup_alpha": 0.2, "augment.cutmix_alpha": 1.0}], ids=str
)
def test_both_loaders_train_the_same_weights(augment):
    bundles = [train_only(**{"data.loader": loader, **augment})[1].bundle for loader in ("resident", "streaming")]
    assert_same_weights(bundles[0].path, bundles[1].path)


@pytest.mark.parametrize(
    "changes",
    [
        {"optim.optimizer": "adamw", "optim.lr": 0.002},
        {"optim.schedule": "cosine", "optim.warmup_epochs": 1},
        {"optim.schedule": "step", "optim.step_epochs": 2},
        {"optim.schedule": "wsd"},
        {"optim.schedule": "plateau", "optim.plateau_epochs": 1},
        {"optim.optimizer": "muon", "optim.lr": 0.01},
        {"optim.optimizer": "lamb", "optim.lr": 0.02},
        {"optim.optimizer": "lion", "optim.lr": 0.001},
        {"optim.loss": "bce", "augment.cutmix_alpha": 1.0},
        {"optim.loss": "focal", "optim.class_balance": 0.99},
        {"optim.logit_adjustment": 1.0},
        {"optim.clip_norm": 1.0},
        {"optim.clip_value": 0.1},
        {"optim.clip_agc": 0.1},
        {"optim.sam_rho": 0.05},
        {"optim.layer_decay": 0.8},
        {"optim.ema_decay": 0.9},
        {"optim.average_epochs": 3, "optim.swa_lr": 0.3},
        {"augment.cutout": 4},
        {"augment.erase": 0.5},
        {"data.balance": "root"},
        {"data.repeats": 3},
        {"augment.rotate_degrees": 10, "augment.brightness": 0.2},
        {"augment.policy": "trivial"},
        {"augment.mixup_alpha": 0.2},
        {"model.name": "mlp"},
        {"model.dropout": 0.2},
        {"model.freeze": 2},
        {"model.freeze": "backbone", "model.unfreeze_epochs": 2},
        {"device.checkpoint_activations": True},
        {"device.channels_last": False},
        {"data.val_fraction": None},
        {"data.channels": 1},
        {"data.height": 20, "data.width": 10},
        {"data.crop_pct": 0.8},
    ],
    ids=str,
)
def test_every_choice_of_the_recipe_learns(changes):
    run, trained = train_only(**{"optim.epochs": 6, **changes})
    losses = [row["train_loss"] for row in rows_of(run.path) if row["event"] == "epoch"]
    assert losses[-1] < 0.9 * losses[0]
    assert trained.ending == "finished"


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_schedule_free_learns_and_keeps_the_average(optimizer):
    pytest.importorskip("schedulefree", reason="needs `linne[schedule-free]`")
    run, trained = train_only(**{"optim.schedule": "schedule-free", "optim.optimizer": optimizer, "optim.epochs": 6})
    accuracies = [row["val_accuracy"] for row in rows_of(run.path) if row["event"] == "epoch"]
    assert max(accuracies) > 0.9
    assert trained.ending == "finished"


@pytest.mark.long
def test_a_student_learns_what_a_teacher_of_another_size_and_colour_answers():
    _, teacher = train_only(**{"optim.epochs": 6, "data.height": 16, "data.width": 16, "data.channels": 1})
    path = str(teacher.bundle.path)
    distilled = {"distill.bundle": path, "distill.weight": 1.0, "augment.mixup_alpha": 0.2, "optim.epochs": 6}
    run, trained = train_only(**distilled)
    assert rows_of(run.path)[-2]["val_accuracy"] > 0.9, "from the teacher alone: the labels have no weight"
    _, again = train_only(str(run.path / "recipe.json"))
    assert_same_weights(trained.bundle.path, again.bundle.path)


def test_averaged_weights_are_kept_with_running_statistics_of_their_own():
    run, trained = train_only(**{"optim.epochs": 6, "optim.average_epochs": 2})
    assert rows_of(run.path)[-2]["val_accuracy"] == 1.0, "without statistics of their own they answer at random"
    assert not torch.equal(trained.kept.weights["stem.1.running_mean"], torch.zeros(16))


def test_without_validation_the_last_epoch_is_kept():
    _, trained = train_only(**{"data.val_fraction": None})
    assert trained.kept.epoch == 3
    assert trained.kept.scores is None


def test_a_loss_that_is_no_number_stops_the_run_says_where_and_keeps_the_last_good_epoch():
    overrides = {**FAST, "optim.optimizer": "sgd", "optim.schedule": "step", "optim.step_epochs": 1}
    # The rate grows ten-thousandfold an epoch: the first epoch learns, a later one must overflow.
    overrides |= {"optim.lr": 0.05, "optim.step_factor": 1e30, "optim.epochs": 4}
    with pytest.raises(CheckFailed) as caught:
        linne.train(SYNTHETIC, output="run", overrides=overrides, quiet=True)
    assert caught.value.exit_code == 3
    assert "the loss became" in caught.value.message
    assert "in epoch" in caught.value.message
    assert "the weights of epoch 1 are kept" in caught.value.message
    assert caught.value.hint == "try a lower learning rate: --lr 0.005"
    assert open_bundle("run/bundle").provenance["finished"] is False
    assert rows_of(Path("run"))[-1]["reason"] == "diverged"


@pytest.mark.parametrize("val_fraction", [0.1, None])
def test_weights_that_are_no_numbers_never_replace_good_ones(val_fraction):
    # One step an epoch, so that the loss is still finite when the weights no longer are.
    overrides = {**FAST, "data.batch_size": 1000, "optim.optimizer": "sgd", "optim.schedule": "step"}
    overrides |= {"optim.step_epochs": 2, "optim.lr": 0.05, "optim.step_factor": 1e38, "optim.epochs": 6}
    overrides |= {"data.val_fraction": val_fraction}
    with pytest.raises(CheckFailed, match="the weights of epoch 2 are kept"):
        linne.train(SYNTHETIC, output="run", overrides=overrides, quiet=True)
    assert all(np.isfinite(weight).all() for weight in weights_of(Path("run/bundle")).values())


def test_a_loss_that_is_no_number_in_the_first_epoch_leaves_no_bundle_and_says_so():
    with pytest.raises(CheckFailed, match="in epoch 1; there is no bundle, since no epoch was done"):
        linne.train(SYNTHETIC, output="run", lr=1e30, overrides={**FAST, "optim.schedule": "constant"}, quiet=True)
    assert not Path("run/bundle").exists()


def interrupt_when(ready: Callable[[], bool]) -> None:
    """Press Ctrl-C in this process as soon as `ready()`."""

    def wait_and_press() -> None:
        while not ready():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=wait_and_press, daemon=True).start()


def says(file: str, text: str) -> Callable[[], bool]:
    path = Path(file).resolve()
    return lambda: path.is_file() and text in path.read_text()


LOADERS = [{"data.loader": "resident"}, {"data.loader": "streaming", "data.num_workers": 2}]


@pytest.mark.parametrize("data", LOADERS, ids=str)
def test_ctrl_c_after_an_epoch_leaves_a_usable_bundle(capfd, data):
    interrupt_when(says("run/metrics.jsonl", '"epoch": 1,'))
    result = linne.train(SYNTHETIC, output="run", overrides={**FAST, "optim.epochs": 2000, **data})
    assert result.interrupted
    assert result.signal_number == signal.SIGINT
    assert result.bundle == Path("run/bundle")
    assert open_bundle(result.bundle).provenance["finished"] is False
    assert next(linne.predict(result.bundle, _one_picture())).error is None
    said = capfd.readouterr().err
    assert "interrupted: the weights of epoch" in said
    assert "bundle  run/bundle\nreport  run/report.html" in said


def test_ctrl_c_in_the_first_epoch_says_that_there_is_no_bundle(capfd):
    interrupt_when(says("run/metrics.jsonl", '"event": "step"'))
    many = "synthetic:classes=3,size=12,count=20000"
    result = linne.train(many, output="run", overrides={**FAST, "data.batch_size": 4, "log_every": 1})
    assert result.interrupted
    assert result.bundle is None
    assert not Path("run/bundle").exists()
    assert "there is no bundle in run" in capfd.readouterr().err


@pytest.mark.long
def test_a_terminated_run_keeps_its_bundle_and_exits_as_terminated():
    words = [sys.executable, "-m", "linne", "train", SYNTHETIC, "--output", "run", "--epochs", "100000"]
    words += ["--set", "data.loader=streaming", "--set", "data.num_workers=2", "--set", "device.precision=fp32"]
    child = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    epoch_is_done = says("run/metrics.jsonl", '"epoch": 1,')
    while not epoch_is_done():
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.05)
    child.terminate()
    _, said = child.communicate(timeout=60)
    assert child.returncode == 143
    assert "interrupted: the weights of epoch" in said
    assert open_bundle("run/bundle").weights()


def _one_picture() -> Path:
    path = Path("picture.png")
    Image.new("RGB", (12, 12), (200, 10, 10)).save(path)
    return path


def test_an_output_folder_that_exists_is_refused_and_left_as_it_was():
    Path("run").mkdir()
    Path("run/mine.txt").write_text("keep me")
    with pytest.raises(LinneError, match="the output folder `run` exists already"):
        linne.train(SYNTHETIC, output="run", overrides=FAST, quiet=True)
    assert [path.name for path in Path("run").iterdir()] == ["mine.txt"]


def test_runs_are_numbered_by_themselves():
    names = [linne.train(SYNTHETIC, overrides={**FAST, "optim.epochs": 1}, quiet=True).run.name for _ in range(2)]
    assert names == ["synthetic-small-1", "synthetic-small-2"]


def test_a_batch_larger_than_the_set_shrinks_to_it_and_the_rate_with_it(capfd):
    result = linne.train(SYNTHETIC, batch_size=4096, epochs=1)
    recipe = json.loads((result.run / "recipe.json").read_text())["recipe"]
    num_train = len(linne.data.open_source(SYNTHETIC).splits["train"])
    assert recipe["data"]["batch_size"] == num_train
    assert recipe["optim"]["lr"] == pytest.approx(0.2 * num_train / 128, rel=1e-4)
    assert f"all {num_train} training images: there are no more" in capfd.readouterr().err


def test_an_earlier_recipe_with_fewer_epochs_keeps_its_share_of_warm_up():
    run, _ = train_only(**{"optim.epochs": 10})
    recipe = json.loads((run.path / "recipe.json").read_text())["recipe"]["optim"]
    given, reasons = collect(None, str(run.path / "recipe.json"), {"optim.epochs": 1}, {})
    assert given["optim.warmup_epochs"] == pytest.approx(recipe["warmup_epochs"] / 10)
    assert "the same share of other epochs" in reasons["optim.warmup_epochs"]


def make_folder(root: Path, count: int, first: int = 0) -> None:
    """Add `count` images to each of two classes, dark and light."""
    draw = np.random.default_rng(first)
    for value, label in enumerate("ab"):
        (root / label).mkdir(parents=True, exist_ok=True)
        for index in range(first, first + count):
            pixels = draw.integers(0, 60, (12, 12, 3), dtype=np.uint8) + np.uint8(120 * value)
            Image.fromarray(pixels).save(root / label / f"{index}.png")


def test_evaluation_finds_the_held_out_images_again_after_the_folder_has_grown():
    make_folder(Path("photos"), 40)
    result = linne.train("photos", overrides=FAST, quiet=True)
    make_folder(Path("photos"), 60, first=1000)
    for spelling in ("photos", "./photos", "folder:photos", "photos/", str(Path("photos").resolve())):
        report = linne.evaluate(result.bundle, spelling, quiet=True)
        assert report.num_examples == result.report.num_examples
        assert report.accuracy == result.report.accuracy


@pytest.mark.long
def test_repeating_a_run_uses_its_splits_although_the_folder_has_grown(capfd):
    make_folder(Path("photos"), 40)
    first = linne.train("photos", overrides=FAST, quiet=True)
    make_folder(Path("photos"), 60, first=1000)
    second = linne.train(recipe=str(first.run / "recipe.json"))
    assert_same_weights(first.bundle, second.bundle)
    assert "left out" in capfd.readouterr().err


@pytest.mark.long
def test_repeating_a_run_with_another_split_makes_that_split(capfd):
    make_folder(Path("photos"), 40)
    first = linne.train("photos", overrides=FAST, quiet=True)
    linne.train(recipe=str(first.run / "recipe.json"), overrides={"data.val_fraction": None}, output="all")
    counts = [json.loads((run / "recipe.json").read_text())["source"]["counts"] for run in (first.run, Path("all"))]
    assert counts[1]["train"] == counts[0]["train"] + counts[0]["val"]
    assert "val" not in counts[1]
    assert "not what the earlier run trained on" not in capfd.readouterr().err


@pytest.mark.long
def test_a_source_that_changed_since_the_recipe_was_written_is_pointed_out(capfd):
    make_folder(Path("photos"), 40)
    first = linne.train("photos", overrides=FAST, quiet=True)
    Image.new("RGB", (12, 12), (9, 9, 9)).save("photos/a/3.png")
    linne.train(recipe=str(first.run / "recipe.json"))
    assert "the source is not what the earlier run trained on" in capfd.readouterr().err


def test_a_run_that_cannot_begin_leaves_no_folder_behind():
    make_folder(Path("photos"), 20)
    for index in range(19):
        Path(f"photos/a/{index}.png").write_bytes(b"broken")
    with pytest.raises(SourceError, match="images cannot be read"):
        linne.train("photos", output="run", overrides=FAST, quiet=True)
    assert not Path("run").exists()


def test_the_number_of_threads_is_as_before_after_a_run():
    before = torch.get_num_threads()
    train_only(**{"device.num_threads": before + 1})
    assert torch.get_num_threads() == before


def test_every_value_has_a_reason_and_given_ones_say_so():
    result = linne.train(SYNTHETIC, epochs=1, overrides={"optim.weight_decay": 0.01}, quiet=True)
    document = json.loads((result.run / "recipe.json").read_text())
    assert document["reasons"]["optim.epochs"] == "given"
    assert document["reasons"]["optim.weight_decay"] == "given"
    assert document["reasons"]["optim.lr"]
    assert document["recipe"]["optim"]["weight_decay"] == 0.01


def test_a_recipe_from_a_file_fixes_what_it_says_and_leaves_the_rest_to_be_chosen():
    Path("mine.py").write_text("def tiny():\n    return {'model.name': 'mlp', 'optim.epochs': 2}\n")
    result = linne.train(SYNTHETIC, recipe="mine.py:tiny", epochs=1, quiet=True)
    document = json.loads((result.run / "recipe.json").read_text())
    assert document["recipe"]["model"]["name"] == "mlp"
    assert document["recipe"]["optim"]["epochs"] == 1
    assert document["reasons"]["model.name"] == "recipe mine.py:tiny"
    assert document["reasons"]["optim.epochs"] == "given"
