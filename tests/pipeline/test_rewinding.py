"""A loss or gradient that is no number sends training back to a checkpoint, on all processes alike."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import run_together

import linne
from linne.bundle import open_bundle
from linne.errors import RecipeError
from linne.log import Narrator, Run
from linne.planning import collect, make_plan
from linne.training import loop, rewinding, step
from linne.training.checkpoint_format import Checkpoint, find_checkpoints, read_checkpoint
from linne.training.distributed import joined
from linne.training.loop import Trained

pytestmark = pytest.mark.long

SOURCE = "synthetic:classes=3,size=12,count=118"
FAST = {
    "data.batch_size": 30,  # three steps an epoch
    "data.val_fraction": 0.2,
    "model.name": "mlp",
    "optim.epochs": 5,
    "optim.optimizer": "sgd",
    "optim.lr": 0.05,
    "optim.schedule": "constant",
    "optim.nonfinite": "rewind",
    "device.precision": "fp32",
    "device.num_threads": 1,
    "checkpoint.every_steps": 1,
    "checkpoint.keep": 50,
    "log_samples": True,
}
NAN = float("nan")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def poison(monkeypatch, at: dict[int, int], *, rank: int = 0, only: int = 0) -> None:
    """Have the images of some steps, from 1, be no numbers, the first so many times that each is taken."""
    real, left = loop.train_step, dict(at)

    def train_step(state, batch, *rest):
        if left.get(state.step + 1, 0) > 0 and rank == only:
            left[state.step + 1] -= 1
            batch = replace(batch, images_NCHW=torch.full_like(batch.images_NCHW, NAN))
        return real(state, batch, *rest)

    monkeypatch.setattr(loop, "train_step", train_step)


def train_here(folder: str, checkpoint: Checkpoint | None = None, **overrides) -> tuple[Run, Trained]:
    plan = make_plan(*collect(SOURCE, None, {"device.name": "cpu"}, {**FAST, **overrides}))
    with joined() as world:
        Path(folder).mkdir(parents=True, exist_ok=True)
        run = Run(Path(folder), writes=world.is_first)
        if checkpoint is not None:
            run.cut(checkpoint.state["log_bytes"])
        narrator = Narrator(quiet=not world.is_first)
        trained = loop.train(plan.recipe, plan.source, run, narrator, checkpoint, world=world)
        run.close()
    return run, trained


def rows_of(folder: str, event: str | None = None, file: str = "metrics.jsonl") -> list[dict]:
    rows = [json.loads(line) for line in (Path(folder) / file).read_text().splitlines()]
    return [row for row in rows if event is None or row["event"] == event]


def assert_same(first: Trained, second: Trained) -> None:
    assert first.kept.epoch == second.kept.epoch
    for name, weight in first.kept.weights.items():
        assert torch.equal(weight, second.kept.weights[name]), name


def test_training_goes_back_and_on_with_half_the_rate_and_says_so(monkeypatch, capsys):
    poison(monkeypatch, {8: 1})
    run, trained = train_here("run", log_every=1)
    assert trained.ending == "finished"
    rewind = {"event": "rewind", "step": 8, "to_step": 7, "lr_factor": 0.5}
    assert rows_of("run", "rewind") == [rewind]
    rates = {row["step"]: row["lr"] for row in rows_of("run", "step")}
    assert [rates[number] for number in range(1, 16)] == [0.05] * 7 + [0.025] * 8
    said = "warning: the loss or a gradient became nan at step 8, in epoch 3: going back to step 7, with the learning "
    assert said + "rate x 0.5 from there on (1 of 3 times)" in capsys.readouterr().err
    assert [row["step"] for row in rows_of("run", file="samples.jsonl")] == list(range(1, 16))
    assert read_checkpoint(find_checkpoints(run.checkpoints)[0]).state["rewinds"] == [rewind]


CHANGES = [
    {},
    {"model.name": "small", "model.dropout": 0.2, "optim.ema_decay": 0.9},
    {"data.loader": "streaming", "data.num_workers": 2, "augment.mixup_alpha": 0.4},
    {"optim.optimizer": "adamw", "optim.schedule": "plateau", "optim.plateau_epochs": 1, "optim.patience": 9},
    {"optim.average_epochs": 3, "optim.swa_lr": 0.3, "optim.optimizer": "lion"},
    {"model.name": "small", "model.freeze": "backbone", "model.unfreeze_epochs": 2},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_everything_is_as_it_was_but_the_learning_rate(monkeypatch, changes):
    kept = {"checkpoint.every_steps": 4, "checkpoint.keep_after": True}
    _, whole = train_here("whole", **kept, **changes)
    for module in (rewinding, step):
        monkeypatch.setattr(module, "LR_FACTOR", 1.0)
    poison(monkeypatch, {3: 1, 11: 2})
    _, again = train_here("again", **kept, **changes)
    assert len(rows_of("again", "rewind")) == 3
    assert_same(whole, again)
    first, second = (read_checkpoint(find_checkpoints(Path(name) / "checkpoints")[0]) for name in ("whole", "again"))
    for name, weight in first.state["model"].items():
        assert torch.equal(weight, second.state["model"][name]), name
    samples = [(Path(name) / "samples.jsonl").read_bytes() for name in ("whole", "again")]
    assert samples[0] == samples[1]


def test_what_was_gone_back_for_survives_a_resume(monkeypatch):
    poison(monkeypatch, {5: 1, 8: 1})
    run, whole = train_here("run", log_every=1)
    rows = rows_of("run", "rewind")
    assert [row["lr_factor"] for row in rows] == [0.5, 0.25]
    (later,) = [path for path in find_checkpoints(run.checkpoints) if read_checkpoint(path).step == 9]
    _, again = train_here("run", read_checkpoint(later), log_every=1)
    assert rows_of("run", "rewind") == rows
    assert rows_of("run", "step")[-1]["lr"] == 0.25 * 0.05
    assert_same(whole, again)


def test_before_the_first_checkpoint_training_goes_back_to_its_start(monkeypatch):
    poison(monkeypatch, {1: 1})
    _, trained = train_here("run", **{"checkpoint.every_steps": None})
    assert trained.ending == "finished"
    assert [(row["step"], row["to_step"]) for row in rows_of("run", "rewind")] == [(1, 0)]


def test_a_fourth_time_ends_the_run_and_says_how_often_it_went_back(monkeypatch):
    poison(monkeypatch, {5: 9})
    _, trained = train_here("run", log_every=1)
    assert trained.ending == "diverged"
    said = "the loss or a gradient became nan at step 5, in epoch 2; training had gone back 3 times before"
    assert trained.problem == said
    assert [row["lr_factor"] for row in rows_of("run", "rewind")] == [0.5, 0.25, 0.125]


def test_no_checkpoint_holds_what_is_no_number_though_losses_are_read_seldom(monkeypatch):
    poison(monkeypatch, {4: 1})
    taken = []
    real = loop.Recorder.take
    monkeypatch.setattr(loop.Recorder, "take", lambda self, progress: taken.append(real(self, progress)) or taken[-1])
    run, trained = train_here("run", log_every=1000)
    assert [(row["step"], row["to_step"]) for row in rows_of("run", "rewind")] == [(4, 3)]
    assert len(taken) > 12
    assert trained.ending == "finished"
    for path in find_checkpoints(run.checkpoints):
        assert all(value.isfinite().all() for value in read_checkpoint(path).state["model"].values())


def test_a_signal_after_a_step_that_was_not_finite_leaves_the_checkpoint_before_it(monkeypatch):
    poison(monkeypatch, {8: 1})
    poisoned = loop.train_step

    def train_step(state, *rest):
        loss = poisoned(state, *rest)
        if state.step == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss

    monkeypatch.setattr(loop, "train_step", train_step)
    _, trained = train_here("run", log_every=1000)
    assert trained.ending == "interrupted"
    assert read_checkpoint(trained.checkpoint).step == 7


def test_going_back_needs_checkpoints():
    with pytest.raises(RecipeError) as refused:
        make_plan(*collect(SOURCE, None, {}, {**FAST, "checkpoint.keep": "none"}))
    said = "optim.nonfinite=rewind goes back to a checkpoint, and checkpoint.keep=none leaves none"
    assert refused.value.message == said
    assert refused.value.hint == "use --set checkpoint.keep=2, or --set optim.nonfinite=raise"


def test_without_a_checkpoint_that_is_whole_it_ends_as_it_would_have(monkeypatch):
    poison(monkeypatch, {5: 1})
    monkeypatch.setattr(rewinding, "newest_good", lambda folder: (None, ["checkpoint `x` cannot be used: damaged"]))
    _, trained = train_here("run", log_every=1)
    assert trained.ending == "diverged"
    assert trained.problem.endswith("at step 5, in epoch 2; there is no checkpoint to go back to")


def poisoned_together(policy: str, parallel: str) -> tuple:
    """Train as one of two, of which the second alone meets images that are no numbers, once."""
    with pytest.MonkeyPatch.context() as patch:
        poison(patch, {5: 1}, rank=int(os.environ["RANK"]), only=1)
        changes = {"optim.nonfinite": policy, "device.parallel": parallel, "log_every": 3}
        _, trained = train_here("run", **changes)
    weights = {name: value.numpy() for name, value in trained.kept.weights.items()}
    return trained.ending, trained.problem, trained.kept.epoch, weights


@pytest.mark.parametrize(
    ("policy", "parallel"), [("raise", "ddp"), ("skip", "ddp"), ("rewind", "ddp"), ("rewind", "fsdp")]
)
def test_what_one_process_meets_all_decide_alike(policy, parallel):
    first, second = run_together(poisoned_together, 2, policy, parallel)
    assert first[:3] == second[:3]
    assert all(np.array_equal(value, second[3][name]) for name, value in first[3].items())
    assert all(np.isfinite(value).all() for value in first[3].values())
    if policy == "raise":
        assert first[:3] == ("diverged", "the loss became nan at step 5, in epoch 2", 1)
        return
    assert first[:2] == ("finished", None)
    assert len(rows_of("run", "rewind")) == (policy == "rewind")
    if policy == "rewind":
        (row,) = rows_of("run", "rewind")
        assert (row["step"], row["lr_factor"]) == (5, 0.5)
        assert row["to_step"] <= 4
    else:
        assert rows_of("run", "step")[-1]["skipped"] == 1


def train_with_budget(output: str, **given) -> linne.TrainResult:
    budget = {"optim.minutes": 0.05, "optim.epochs": 5000, "optim.schedule": "cosine"}  # no machine has the time
    fields = {**FAST, **budget, "device.name": "cpu", "log_every": 1}
    Path("plan.py").write_text(f"def plan():\n    return {fields!r}\n")
    return linne.train(**{"source": SOURCE, "recipe": "plan.py:plan", **given}, output=output, quiet=True)


def test_a_training_with_a_budget_goes_back_ends_in_time_and_repeats_to_the_bit_where_numbers_fail_again(monkeypatch):
    with monkeypatch.context() as patch:
        poison(patch, {8: 1})
        first = train_with_budget("first")
    assert rows_of("first", "rewind") == [{"event": "rewind", "step": 8, "to_step": 7, "lr_factor": 0.5}]
    (end,), cuts = rows_of("first", "end"), rows_of("first", "shortened")
    assert end["reason"] == "finished"
    steps = rows_of("first", "step")
    assert [row["step"] for row in steps] == list(range(1, cuts[-1]["steps"] + 1))
    assert steps[7]["lr"] < 0.51 * steps[6]["lr"]
    assert steps[-1]["lr"] < 0.05 * steps[7]["lr"], "the schedule comes to its end"
    recipe = json.loads((first.run / "recipe.json").read_text())["recipe"]
    assert recipe["optim"]["shortened"][-1] == cuts[-1]["steps"] / 3
    repeat = {"source": None, "recipe": str(first.run / "recipe.json")}
    with monkeypatch.context() as patch:
        poison(patch, {8: 1})
        train_with_budget("again", **repeat)
    assert Path("again/samples.jsonl").read_bytes() == Path("first/samples.jsonl").read_bytes()
    assert rows_of("again", "rewind") == rows_of("first", "rewind")
    assert [(row["loss"], row["lr"]) for row in rows_of("again", "step")] == [(row["loss"], row["lr"]) for row in steps]
    ours, theirs = (open_bundle(Path(name) / "bundle").files["model.safetensors"] for name in ("first", "again"))
    assert ours == theirs
    train_with_budget("sound", **repeat)  # nothing fails: the rate is not halved, all else is as it was
    assert rows_of("sound", "rewind") == []
    rates = [row["lr"] for row in rows_of("sound", "step")]
    assert rates == [row["lr"] * (1 if row["step"] < 8 else 2) for row in steps]
