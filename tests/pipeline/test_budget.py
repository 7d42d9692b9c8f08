"""A training that is too slow for its budget ends in fewer steps, and repeats and goes on as any other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import linne
from linne.bundle import open_bundle
from linne.training.checkpoint_format import find_checkpoints, read_checkpoint

pytestmark = pytest.mark.long

SOURCE = "synthetic:classes=3,size=12,count=120"
FIELDS = {
    "model.name": "mlp",
    "optim.minutes": 0.01,
    "optim.epochs": 2000,  # for which no machine has the time
    "optim.schedule": "cosine",
    "optim.ema_decay": 0.9,
    "data.batch_size": 16,
    "device.name": "cpu",
    "device.precision": "fp32",
    "checkpoint.every_steps": 5,
    "checkpoint.keep": 1000,
    "checkpoint.keep_after": True,
    "log_samples": True,
    "log_every": 3,
}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def train_with_budget(output: str, **fields) -> linne.TrainResult:
    Path("plan.py").write_text(f"def plan():\n    return { ({**FIELDS, **fields})!r}\n")
    return linne.train(SOURCE, recipe="plan.py:plan", output=output)


def rows_of(run: Path, *events: str) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    times = ("seconds", "images_per_second", "data_wait")
    return [{k: v for k, v in row.items() if k not in times} for row in rows if row["event"] in events]


def cuts_of(run: Path) -> list[float]:
    cuts: list[float] = json.loads((run / "recipe.json").read_text())["recipe"]["optim"]["shortened"]
    return cuts


def assert_same_training(first: Path, second: Path) -> None:
    ours, theirs = (open_bundle(run / "bundle") for run in (first, second))
    assert ours.files["model.safetensors"] == theirs.files["model.safetensors"]
    assert (first / "samples.jsonl").read_bytes() == (second / "samples.jsonl").read_bytes()
    assert rows_of(first, "step", "epoch") == rows_of(second, "step", "epoch")
    assert cuts_of(first) == cuts_of(second)


def test_a_shortened_training_ends_with_its_schedule_and_repeats_to_the_bit_without_the_clock(capsys):
    first = train_with_budget("first")
    said = capsys.readouterr().err
    assert "time is short: " in said
    shortened, (end,) = rows_of(first.run, "shortened"), rows_of(first.run, "end")
    steps = rows_of(first.run, "step")
    assert end["reason"] == "finished"
    assert shortened[0]["before"] == 2000 * 6  # 92 images to train on, 16 at once
    assert steps[-1]["step"] == shortened[-1]["steps"] < 2000 * 6
    assert steps[-1]["lr"] < 0.05 * steps[0]["lr"]
    assert cuts_of(first.run) == [n / 6 for row in shortened for n in (row["step"], row["steps"])]
    assert f"epochs of {end['epochs']}," not in said
    assert f"kept epoch {end['best_epoch']} of {end['epochs']}" in said
    assert "shortened from 2000 epochs to" in (first.run / "report.md").read_text()
    reasons = json.loads((first.run / "recipe.json").read_text())["reasons"]
    assert reasons["optim.shortened"] == "as decided by the clock"
    provenance = open_bundle(first.run / "bundle").provenance
    assert (provenance["finished"], provenance["recipe"]["optim"]["shortened"]) == (True, cuts_of(first.run))
    again = linne.train(recipe=str(first.run / "recipe.json"), output="again", quiet=True)
    assert rows_of(again.run, "shortened") == []
    assert_same_training(first.run, again.run)


def killed(run: Path, name: str, step: int) -> Path:
    """Return a copy of `run` as a process leaves it that is killed after its last checkpoint up to `step`."""
    copy = Path(shutil.copytree(run, name))
    for path in find_checkpoints(copy / "checkpoints"):
        if read_checkpoint(path).step > step:
            shutil.rmtree(path)
    for left in ("bundle", "plots"):
        shutil.rmtree(copy / left)
    (copy / "report.html").unlink()
    return copy


def test_a_shortened_training_goes_on_where_it_was_and_what_it_then_decides_is_written_down_too():
    whole = train_with_budget("whole", **{"optim.minutes": 0.02})
    last = rows_of(whole.run, "end")[0]["epochs"] * 6
    middle = killed(whole.run, "middle", last // 2)
    document = json.loads((middle / "recipe.json").read_text())
    document["recipe"]["optim"]["shortened"] = None  # it is written at the end
    (middle / "recipe.json").write_text(json.dumps(document))
    before = list(read_checkpoint(find_checkpoints(middle / "checkpoints")[0]).state["cuts"])
    linne.train(output=middle, resume=True, quiet=True)
    assert cuts_of(middle)[: len(before)] == before
    assert rows_of(middle, "end")[0]["reason"] == "finished"
    again = linne.train(recipe=str(middle / "recipe.json"), output="again", quiet=True)
    assert_same_training(middle, again.run)
    cut_off = killed(again.run, "cut-off", last // 3)
    linne.train(output=cut_off, resume=True, quiet=True)
    assert_same_training(again.run, cut_off)


def test_a_finished_shortened_training_is_finished_and_can_be_trained_on_with_more_epochs(capsys):
    first = train_with_budget("first", **{"optim.epochs": 1500})
    capsys.readouterr()
    linne.train(output=first.run, resume=True)
    assert "is finished: nothing is left to do" in capsys.readouterr().err
    epochs = rows_of(first.run, "end")[0]["epochs"] + 2
    linne.train(output=first.run, resume=True, epochs=epochs, allow_change=["optim.epochs"], quiet=True)
    assert rows_of(first.run, "epoch")[-1]["epoch"] == epochs
    document = json.loads((first.run / "recipe.json").read_text())
    assert (document["recipe"]["optim"]["minutes"], document["recipe"]["optim"]["shortened"]) == (None, None)


def test_a_training_in_time_repeats_without_the_clock_too():
    first = train_with_budget("first", **{"optim.minutes": 60.0, "optim.epochs": 2})
    assert cuts_of(first.run) == [0.0, 2.0]
    again = linne.train(recipe=str(first.run / "recipe.json"), output="again", quiet=True)
    assert_same_training(first.run, again.run)
