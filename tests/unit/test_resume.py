"""So many steps, and so many more from a checkpoint, are all of them in one go, to the bit."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from linne import models
from linne.data import open_source
from linne.data.loading.loader import Batches, make_batches
from linne.data.source import Source
from linne.device import Device
from linne.errors import RecipeError
from linne.log import Run
from linne.recipe import DataConfig, DeviceConfig, ModelConfig, OptimConfig, Recipe
from linne.training.checkpoint_format import Checkpoint, read_checkpoint, write_checkpoint
from linne.training.interrupt import Interrupt
from linne.training.progress import Progress
from linne.training.resume import Recorder, bad_images, random_state, seed_others, set_random_state
from linne.training.state import TrainState
from linne.training.step import refresh_average, train_step
from linne.training.waiting import Waiting

CPU = Device.pick("cpu")
SOURCE = "synthetic:classes=3,size=12,count=96"


def make_recipe(*, batch_size: int = 16, model: str = "small", device: DeviceConfig | None = None, **optim) -> Recipe:
    return Recipe(
        data=DataConfig(source=SOURCE, height=12, width=12, batch_size=batch_size),
        model=ModelConfig(name=model, dropout=0.2 if model == "small" else None),
        optim=OptimConfig(epochs=4, **{"lr": 0.01, **optim}),
        device=device or DeviceConfig(channels_last=True),
    )


class Training:
    """A run without a loop around it: steps, a checkpoint, steps."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.recipe, self.run = recipe, Run(folder)
        self.source: Source = open_source(SOURCE)
        torch.manual_seed(3)
        self.batches: Batches = make_batches(self.source, recipe, CPU)[0]
        network = models.build(models.describe_recipe(recipe, self.source.num_classes))
        self.state = TrainState.create(network, recipe, CPU)
        self.recorder = Recorder(self.run, recipe, self.source, CPU, self.state, {"train": self.batches})
        self.progress = Progress(0.0, Waiting(CPU))

    def steps(self, count: int) -> None:
        state, size = self.state, len(self.batches)
        for _ in range(count):
            batch = next(itertools.islice(self.batches.epoch(state.epoch, state.batch), 1))
            self.progress.add(train_step(state, batch, self.recipe, CPU, size), len(batch.labels_N))
            state.batch += 1
            if state.batch == size:
                with Interrupt() as interrupt:
                    refresh_average(state, self.batches, self.recipe, CPU, interrupt)
                state.epoch, state.batch = state.epoch + 1, 0
                state.keep(None)
                if state.plateau is not None:
                    state.plateau.update(1.0)

    def write(self) -> Checkpoint:
        return read_checkpoint(write_checkpoint(self.run.checkpoints, self.recorder.take(self.progress)))


def everything(training: Training) -> dict[str, torch.Tensor]:
    contents = training.recorder.take(training.progress)
    return {**contents.tensors, **{f"kept/{name}": value for name, value in (contents.kept or {}).items()}}


def assert_same(first: Training, second: Training) -> None:
    ours, theirs = everything(first), everything(second)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert (first.state.step, first.state.epoch, first.state.lr) == (
        second.state.step,
        second.state.epoch,
        second.state.lr,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd"},
        {"optimizer": "sgd", "momentum": 0.0},
        {"optimizer": "adamw", "weight_decay": 0.1, "schedule": "one-cycle"},
        {"optimizer": "sgd", "ema_decay": 0.95, "clip_norm": 0.5},
        {"optimizer": "muon", "average_epochs": 2},
        {"optimizer": "lion", "schedule": "plateau", "plateau_epochs": 1, "layer_decay": 0.8},
        {"optimizer": "lamb", "sam_rho": 0.05},
        {"optimizer": "adamw", "schedule": "schedule-free"},
        {"optimizer": "adamw", "device": DeviceConfig(precision="fp16"), "model": "mlp"},
        {"optimizer": "adamw", "device": DeviceConfig(precision="bf16")},
    ],
    ids=str,
)
def test_a_run_that_was_cut_in_mid_epoch_goes_on_to_the_bit(tmp_path, changes):
    if changes.get("schedule") == "schedule-free":
        pytest.importorskip("schedulefree", reason="needs `linne[schedule-free]`")
    assert_goes_on(tmp_path, make_recipe(**changes), steps_before=9)


@pytest.mark.parametrize("steps_before", [0, 1, 5])
def test_a_run_may_be_cut_before_its_first_step_after_it_and_between_two_epochs(tmp_path, steps_before):
    assert_goes_on(tmp_path, make_recipe(optimizer="sgd", ema_decay=0.9), steps_before)


def assert_goes_on(tmp_path: Path, recipe: Recipe, steps_before: int) -> None:
    whole = Training(tmp_path / "whole", recipe)
    whole.steps(16)
    cut = Training(tmp_path / "cut", recipe)
    cut.steps(steps_before)
    checkpoint = cut.write()
    torch.manual_seed(99)  # another process
    again = Training(tmp_path / "again", recipe)
    again.steps(2)  # whatever was there before
    again.progress = again.recorder.restore(checkpoint)
    again.steps(16 - steps_before)
    assert_same(whole, again)
    kept = whole.state.kept, again.state.kept
    assert kept[0].epoch == kept[1].epoch
    assert len(again.progress.unread) == 16


def test_the_pretrained_weights_that_a_run_mixes_in_come_from_the_checkpoint(tmp_path):
    recipe = make_recipe(optimizer="sgd").override({"model.weights": "default", "model.mixout": 0.3})
    whole = Training(tmp_path / "whole", recipe)
    whole.steps(16)
    cut = Training(tmp_path / "cut", recipe)
    cut.steps(9)
    checkpoint = cut.write()
    again = Training(tmp_path / "again", recipe)
    mixout = again.state.mixout
    mixout.load({name: torch.zeros_like(tensor) for name, tensor in mixout.state().items()})  # no file is read again
    again.progress = again.recorder.restore(checkpoint)
    again.steps(7)
    assert_same(whole, again)
    assert all(torch.equal(tensor, mixout.state()[name]) for name, tensor in whole.state.mixout.state().items())

    plain = Training(tmp_path / "plain", make_recipe(optimizer="sgd"))
    with pytest.raises(RecipeError, match=r"holds no pretrained weights for model\.mixout to mix in") as caught:
        again.recorder.restore(plain.write())
    assert caught.value.hint == "train anew in another folder, with --output DIR, or use --set model.mixout=0"


def test_momentum_lies_in_memory_as_before_so_that_the_same_kernels_take_it(tmp_path):
    training = Training(tmp_path, make_recipe(optimizer="sgd"))
    training.steps(2)
    strides = [state["momentum_buffer"].stride() for state in training.state.stepper.optimizer.state.values()]
    training.recorder.restore(training.write())
    after = [state["momentum_buffer"].stride() for state in training.state.stepper.optimizer.state.values()]
    assert strides == after
    assert any(len(stride) == 4 and stride[1] == 1 for stride in strides), "channels last"


def test_options_that_the_recipe_changed_are_taken_from_it_and_the_others_go_on(tmp_path):
    training = Training(tmp_path, make_recipe(optimizer="adamw", weight_decay=0.1))
    training.steps(3)
    training.state.stepper.optimizer.param_groups[0]["eps"] = 1e-7  # as an optimiser that changes its own options
    checkpoint = training.write()
    again = Training(tmp_path, make_recipe(optimizer="adamw", weight_decay=0.2))
    again.recorder.restore(checkpoint)
    group = again.state.stepper.optimizer.param_groups[0]
    assert (group["weight_decay"], group["eps"], group["betas"]) == (0.2, 1e-7, (0.9, 0.999))


@pytest.mark.parametrize(("asked_now", "found"), [(None, 4), (8, 8)])
def test_how_much_fits_the_memory_is_remembered_unless_the_recipe_says_something_new(tmp_path, asked_now, found):
    training = Training(tmp_path, make_recipe(model="mlp"))
    training.steps(1)
    training.state.micro_batch = 4
    training.state.skips.add(1)
    again = Training(tmp_path, make_recipe(model="mlp", device=DeviceConfig(micro_batch=asked_now)))
    again.recorder.restore(training.write())
    assert again.state.micro_batch == found
    assert (again.state.skips.total, again.state.skips.in_a_row) == (1, 1)


def test_an_average_that_begins_in_mid_run_begins_at_the_weights_of_then(tmp_path):
    training = Training(tmp_path, make_recipe())
    training.steps(3)
    again = Training(tmp_path, make_recipe(ema_decay=0.9))
    again.recorder.restore(training.write())
    for mine, theirs in zip(again.state.ema.model.parameters(), training.state.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_another_batch_size_goes_on_at_the_same_share_of_the_epoch(tmp_path):
    training = Training(tmp_path, make_recipe(batch_size=8))
    per_epoch = len(training.batches)
    training.steps(per_epoch + per_epoch // 2)
    again = Training(tmp_path, make_recipe(batch_size=4))
    again.recorder.restore(training.write())
    now = len(again.batches)
    assert now > per_epoch
    assert again.state.epoch == 1
    assert again.state.batch == round(per_epoch // 2 * now / per_epoch)
    assert again.state.step == now + again.state.batch


def test_a_checkpoint_of_another_network_or_optimiser_is_refused_in_words(tmp_path):
    training = Training(tmp_path, make_recipe())
    training.steps(1)
    checkpoint = training.write()
    for changes in ({"model": "mlp"}, {"optimizer": "sgd", "weight_decay": 0.1}):
        other = Training(tmp_path, make_recipe(**changes))
        with pytest.raises(RecipeError, match="does not fit this model and optimiser: ") as caught:
            other.recorder.restore(checkpoint)
        assert caught.value.hint == "train anew in another folder: --output DIR"


def test_every_generator_that_a_network_may_draw_from_goes_on_where_it_was():
    seed_others(5)
    torch.manual_seed(5)
    random.gauss(0, 1)  # keeps the second of a pair
    np.random.standard_normal()
    saved = random_state(CPU)

    def draws() -> tuple[float, ...]:
        return random.gauss(0, 1), random.random(), np.random.standard_normal(), np.random.rand(), float(torch.rand(()))

    first = draws()
    set_random_state(saved, CPU)
    assert draws() == first


def test_unreadable_images_that_were_met_are_in_the_checkpoint(tmp_path):
    training = Training(tmp_path, make_recipe())
    training.batches.bad_images[7] = "`picture 7` is broken"
    assert bad_images(training.write()) == {("train", 7): "`picture 7` is broken"}
    assert bad_images(None) == {}


def test_clocks_go_on_as_if_no_time_had_passed_and_losses_that_nobody_read_are_there(tmp_path):
    training = Training(tmp_path, make_recipe())
    training.steps(3)
    before = training.progress.to_plain()
    after = training.recorder.restore(training.write()).to_plain()
    assert torch.equal(before["unread"], after["unread"])
    for name in ("run_seconds", "seconds", "unread_seconds", "waited_seconds"):
        assert after[name] == pytest.approx(before[name], abs=5)
    assert after["unread_images"] == before["unread_images"] > 0
