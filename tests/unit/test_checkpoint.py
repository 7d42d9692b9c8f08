"""When checkpoints are written, which stay, and what a disk that refuses comes to."""

from __future__ import annotations

import json
import math
import os
import resource
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from linne import models
from linne.data import open_source
from linne.data.loading.loader import make_batches
from linne.device import Device
from linne.errors import LinneError
from linne.log import Narrator, Run
from linne.recipe import CheckpointConfig, DataConfig, ModelConfig, Recipe
from linne.training import checkpoint
from linne.training.checkpoint import MOST_FAILURES, Keeper
from linne.training.checkpoint_format import KEPT, find_checkpoints, newest_good, read_checkpoint
from linne.training.progress import Progress
from linne.training.resume import Recorder
from linne.training.state import Scores, TrainState
from linne.training.waiting import Waiting

CPU = Device.pick("cpu")
DATA = DataConfig(source="synthetic:classes=3,size=12,count=60", height=12, width=12, batch_size=16)


@pytest.fixture
def make_keeper(tmp_path):
    """Make the keeper of a small network that has not been trained yet."""
    keepers: list[Keeper] = []

    def make(**config) -> Keeper:
        keepers.append(new_keeper(tmp_path, **config))
        return keepers[-1]

    yield make
    for keeper in keepers:
        keeper.run.close()


def new_keeper(folder: Path, **config) -> Keeper:
    recipe = Recipe(data=DATA, model=ModelConfig(name="mlp"), checkpoint=CheckpointConfig(**config))
    source = open_source(DATA.source)
    train, _ = make_batches(source, recipe, CPU)
    state = TrainState.create(models.build(models.describe_recipe(recipe, source.num_classes)), recipe, CPU)
    recorder = Recorder(Run(folder), recipe, source, CPU, state, {"train": train})
    return Keeper.open(recorder.run, recipe.checkpoint, Narrator(), recorder, None)


def step_on(keeper: Keeper, steps: int, *, epochs: int = 0) -> TrainState:
    """Change the weights, as so many steps would."""
    state = keeper.recorder.state
    for parameter in state.parameters:
        parameter.data.add_(1)
    state.step, state.epoch = state.step + steps, state.epoch + epochs
    return state


def save(keeper: Keeper, steps: int = 1) -> None:
    step_on(keeper, steps)
    keeper.save(Progress(0.0, Waiting(CPU)))
    keeper.wait()


def train_on(keeper: Keeper) -> None:
    """Take a checkpoint whenever one is due."""
    for _ in range(500):
        if keeper.is_due(step_on(keeper, 1)):
            keeper.save(Progress(0.0, Waiting(CPU)))
        time.sleep(0.02)


def steps_on_disk(keeper: Keeper) -> list[int]:
    return [read_checkpoint(path).step for path in find_checkpoints(keeper.run.checkpoints)]


def test_one_is_due_after_so_many_steps_since_the_last(make_keeper):
    keeper = make_keeper(every_steps=5)
    assert not keeper.is_due(step_on(keeper, 4))
    assert keeper.is_due(step_on(keeper, 1))
    save(keeper, steps=2)
    assert not keeper.is_due(step_on(keeper, 3))
    assert keeper.is_due(step_on(keeper, 1)), "a step before the interval is over, so that it may take one to write"


class SlowDisk:
    """A disk that has nothing before it is told to go on, `seconds` before it says so."""

    def __init__(self, monkeypatch, seconds: float = 0.0) -> None:
        self.go_on, real = threading.Event(), checkpoint.write_checkpoint

        def write(*given):
            self.go_on.wait()
            time.sleep(seconds)
            return real(*given)

        monkeypatch.setattr(checkpoint, "write_checkpoint", write)


def test_training_waits_for_the_disk_only_where_a_step_more_could_be_lost_beyond_the_interval(make_keeper, monkeypatch):
    keeper, disk = make_keeper(every_steps=5, every_minutes=None), SlowDisk(monkeypatch, 0.05)
    step_on(keeper, 3)
    keeper.save(Progress(0.0, Waiting(CPU)))
    step_on(keeper, 1)
    keeper.keep_up()  # or this would never end
    assert keeper.newest is None
    step_on(keeper, 1)
    disk.go_on.set()
    keeper.keep_up()
    assert steps_on_disk(keeper) == [3]
    assert not keeper.is_due(step_on(keeper, 0))


def test_minutes_are_an_interval_too(make_keeper, monkeypatch):
    keeper, disk = make_keeper(every_minutes=60), SlowDisk(monkeypatch)
    step_on(keeper, 3)
    keeper.save(Progress(0.0, Waiting(CPU)))
    keeper.keep_up()
    assert keeper.newest is None
    keeper._safe_time -= 3600
    disk.go_on.set()
    keeper.keep_up()
    assert steps_on_disk(keeper) == [3]


@pytest.mark.parametrize(("every_steps", "lead"), [(100, 11), (12, 6), (1, 0)])
def test_the_next_is_begun_earlier_by_what_the_last_took_and_by_half_of_the_interval_at_most(
    make_keeper, every_steps, lead
):
    keeper = make_keeper(every_steps=every_steps)
    writing = checkpoint._Write(keeper.recorder.take(Progress(0.0, Waiting(CPU))), 0.0, seconds=2.0)
    step_on(keeper, 10)
    keeper._set_lead(writing)
    assert keeper.lead_steps == lead
    writing.steps_meanwhile, writing.seconds_meanwhile = 5, 1.0  # and then training waited for a second
    keeper._set_lead(writing)
    assert keeper.lead_steps == lead
    save(keeper, steps=0)
    keeper.lead_steps = lead
    assert not keeper.is_due(step_on(keeper, every_steps - lead - 1))
    assert keeper.is_due(step_on(keeper, 1))


def test_one_is_due_after_so_many_minutes_and_at_the_end_of_an_epoch_at_most_every_half_minute(make_keeper):
    keeper = make_keeper(every_minutes=2)
    state = step_on(keeper, 10)
    started = time.monotonic()
    for seconds, anywhere, at_epoch_end in (
        (5, False, False),
        (31, False, True),
        (119, False, True),
        (121, True, True),
    ):
        keeper.last_time = started - seconds
        assert keeper.is_due(state) is anywhere
        assert keeper.is_due(state, at_epoch_end=True) is at_epoch_end


def test_none_is_ever_due_where_none_are_to_be_kept(make_keeper):
    keeper = make_keeper(every_steps=1, keep=None)
    assert not keeper.is_due(step_on(keeper, 10), at_epoch_end=True)
    keeper.save_now(Progress(0.0, Waiting(CPU)))
    assert not keeper.run.checkpoints.exists()


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_stay_and_each_is_whole(make_keeper, keep):
    keeper = make_keeper(keep=keep)
    for _ in range(5):
        save(keeper)
    assert steps_on_disk(keeper) == [5, 4, 3][:keep]
    assert keeper.newest == find_checkpoints(keeper.run.checkpoints)[0]


def test_a_copy_is_not_touched_by_the_steps_that_follow(make_keeper):
    keeper = make_keeper()
    state = step_on(keeper, 1)
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    keeper.save(Progress(0.0, Waiting(CPU)))
    step_on(keeper, 1)  # while it is written
    keeper.wait()
    saved = read_checkpoint(keeper.newest).state["model"]
    assert all(torch.equal(saved[name], value) for name, value in before.items())


def test_the_two_newest_never_share_a_file_and_the_kept_weights_are_not_written_every_time(make_keeper):
    keeper = make_keeper(keep=2)
    step_on(keeper, 0, epochs=1).keep(Scores(0.9, 0.5, 50))
    inodes = []
    for _ in range(5):
        save(keeper)
        inodes.append((keeper.newest / KEPT).stat().st_ino)
    assert inodes[0] == inodes[2] == inodes[4]
    assert inodes[1] == inodes[3] != inodes[0]
    step_on(keeper, 0, epochs=1).keep(Scores(0.95, 0.4, 50))
    save(keeper)
    assert (keeper.newest / KEPT).stat().st_ino not in inodes
    expected = keeper.recorder.state.kept.weights
    assert all(torch.equal(expected[name], found) for name, found in read_checkpoint(keeper.newest).kept.items())


def test_what_a_killed_process_left_and_damaged_ones_go_with_the_next_that_is_written(make_keeper):
    keeper = make_keeper()
    save(keeper, steps=10)
    save(keeper, steps=10)
    partial = keeper.run.checkpoints / ".epoch-0000-step-00000030.partial-12345678"
    partial.mkdir()
    os.truncate(find_checkpoints(keeper.run.checkpoints)[0] / "state.safetensors", 10)
    found, _ = newest_good(keeper.run.checkpoints)
    again = Keeper.open(keeper.run, keeper.config, keeper.narrator, keeper.recorder, found)
    keeper.recorder.state.step = found.step
    save(again, steps=3)
    assert steps_on_disk(again) == [13, 10]
    assert not partial.exists()


def test_weights_that_are_no_numbers_never_get_into_a_checkpoint(make_keeper, capsys):
    keeper = make_keeper()
    save(keeper)
    keeper.recorder.state.parameters[0].data[0] = math.nan
    save(keeper)
    assert steps_on_disk(keeper) == [1]
    assert (
        "the checkpoint at step 2 could not be written: weights hold values that are not numbers; the last one is"
        in (capsys.readouterr().err)
    )


def test_a_disk_that_refuses_is_tried_again_later_and_training_goes_on_meanwhile(make_keeper, capsys):
    keeper = make_keeper(every_steps=1)
    keeper.run.checkpoints.write_text("a file, where the folder should be")
    save(keeper)
    said = capsys.readouterr().err
    assert "warning: the checkpoint at step 1 could not be written: " in said
    assert "; there is none yet" in said
    assert not keeper.is_due(step_on(keeper, 5)), "not at once"
    keeper.not_before = time.monotonic()
    keeper.run.checkpoints.unlink()
    assert keeper.is_due(step_on(keeper, 1))
    save(keeper)
    assert steps_on_disk(keeper) == [8]
    assert keeper.is_due(step_on(keeper, 1)), "what went wrong before counts no more"


def test_a_full_disk_is_called_one_whoever_met_it(make_keeper, capsys):
    keeper = make_keeper()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # as a full disk, with a name of its own
    try:
        save(keeper)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "the checkpoint at step 1 could not be written: file too large; there is none yet" in capsys.readouterr().err
    assert list(keeper.run.checkpoints.iterdir()) == []


def test_training_ends_and_says_how_to_go_on_when_too_many_in_a_row_could_not_be_written(make_keeper, tmp_path, capsys):
    keeper = replace(make_keeper(every_steps=1), retry_seconds=0.0)
    save(keeper)
    keeper.run.checkpoints.rename(tmp_path / "aside")
    keeper.run.checkpoints.write_text("in the way")
    with pytest.raises(LinneError, match=f"{MOST_FAILURES} checkpoints in a row could not be written: ") as caught:
        train_on(keeper)
    assert caught.value.hint == f"make room on the disk, then: linne train --output {tmp_path} --resume"
    assert capsys.readouterr().err.count("could not be written") == MOST_FAILURES - 1
    (tmp_path / "checkpoints").unlink()
    (tmp_path / "aside").rename(tmp_path / "checkpoints")
    assert newest_good(tmp_path / "checkpoints")[0].step == 1, "the one that was good is as it was"


def test_the_last_checkpoint_of_a_run_is_not_written_twice(make_keeper):
    keeper = make_keeper()
    save(keeper)
    before = keeper.newest.stat().st_mtime_ns
    keeper.save_now(Progress(0.0, Waiting(CPU)))
    assert keeper.newest.stat().st_mtime_ns == before
    step_on(keeper, 1)
    keeper.save_now(Progress(0.0, Waiting(CPU)))
    assert steps_on_disk(keeper) == [2, 1]


def test_what_a_checkpoint_costs_is_among_the_measurements(make_keeper, tmp_path):
    keeper = make_keeper()
    save(keeper)
    keeper.run.close()
    (row,) = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert (row["event"], row["step"]) == ("checkpoint", 1)
    assert row["size_bytes"] > 1000
    assert 0 <= row["blocked_seconds"] < 5
    assert 0 < row["write_seconds"] < 60
