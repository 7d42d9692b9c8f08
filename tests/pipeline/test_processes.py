"""Several processes train what one trains: the same batches, the same weights, every example counted once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import run_together

from linne.bundle import open_bundle
from linne.log import Narrator, Run
from linne.planning import collect, make_plan

pytestmark = pytest.mark.long

SOURCE = "synthetic:classes=3,size=12,count=118"
"""85 images to train on in batches of 28 and 29, which four processes cannot share evenly."""
FIXED = {
    "data.batch_size": 30,
    "data.val_fraction": 0.2,
    "optim.epochs": 2,
    "optim.schedule": "constant",
    "optim.optimizer": "sgd",  # Adam divides small gradients by their own size, and with it their rounding by itself
    "optim.lr": 0.05,
    "device.precision": "fp32",
    "device.num_threads": 1,
    "log_every": 1,
}
SUMMING = 2e-6
"""Of a tensor's norm: sums of float32 in another order. Found: 3e-7 after six steps."""
THROUGH_BATCH_NORM = 1e-3
"""The same, after batch norms and maxima have magnified it. Found: 6e-4."""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def train_here(overrides: dict, folder: str) -> tuple[dict, list[dict]]:
    """Train in this process, alone or as one of several, and return the kept weights and the measurements."""
    from linne.training.distributed import joined
    from linne.training.loop import train

    plan = make_plan(*collect(SOURCE, None, {"device.name": "cpu"}, {**FIXED, **overrides}))
    with joined() as world:
        Path(folder).mkdir(parents=True, exist_ok=True)
        run = Run(Path(folder), writes=world.is_first)
        trained = train(plan.recipe, plan.source, run, Narrator(quiet=True), world=world)
        run.close()
    assert trained.kept is not None
    assert (trained.bundle is not None) == world.is_first
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    return {name: tensor.numpy() for name, tensor in trained.kept.weights.items()}, rows


def largest_difference(first: dict, second: dict) -> float:
    assert first.keys() == second.keys()
    norm = np.linalg.norm
    shares = {name: norm(first[name] - second[name]) / max(norm(first[name]), 1e-6) for name in first}
    return float(max(shares.values()))


NETWORKS = {
    "without batch norm": {"model.name": "mlp"},
    "batch norm over all": {"model.name": "small"},
    "streaming": {"model.name": "small", "data.loader": "streaming", "data.num_workers": 2},
    "augmented and mixed": {
        "model.name": "mlp",
        "augment.flip": True,
        "augment.crop_padding": 2,
        "augment.mixup_alpha": 0.4,
        "augment.cutmix_alpha": 1.0,
    },
    "views compared": {"model.name": "mlp", "augment.policy": "augmix", "augment.consistency": 12.0},
    "in parts, with averages": {"model.name": "mlp", "device.micro_batch": 7, "optim.ema_decay": 0.9},
    "frozen, then not": {"model.name": "small", "model.freeze": "backbone", "model.unfreeze_epochs": 2},
    # Of full size: three steps at 8 x 8 magnify rounding beyond any bound. That they share growing images evenly is
    # tested without a network, to the bit.
    "tuned at the end": {"model.name": "small", "augment.size_start": 0.99, "augment.size_tune_epochs": 1},
    "recomputed": {"model.name": "small", "device.checkpoint_activations": True},
    "streaming and mixed": {"model.name": "mlp", "data.loader": "streaming", "augment.mixup_alpha": 0.4},
}


QUICK = ("without batch norm", "batch norm over all", "streaming and mixed")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS])
def test_two_and_four_processes_train_the_weights_that_one_trains(name):
    network = NETWORKS[name]
    alone, rows = train_here(network, "alone")
    for size in (2, 4) if name in QUICK[:2] else (2,):
        found = run_together(train_here, size, network, f"of-{size}")
        for weights, _ in found:
            assert largest_difference(weights, found[0][0]) == 0, "all processes hold the same"
        assert largest_difference(alone, found[0][0]) < (
            SUMMING if network["model.name"] == "mlp" else THROUGH_BATCH_NORM
        )
        their_rows = found[0][1]
        for mine, theirs in zip(rows, their_rows, strict=True):
            for name in {"loss", "train_loss", "val_loss"} & mine.keys():
                assert theirs[name] == pytest.approx(mine[name], rel=1e-3), "what batch norm magnifies"
            assert theirs.get("val_accuracy") == mine.get("val_accuracy"), "every example counts once"


def test_two_processes_mix_the_same_pretrained_weights_in():
    from safetensors.torch import save_file

    from linne import models

    size = {"num_classes": 3, "channels": 3, "height": 12, "width": 12}
    save_file(models.build(models.describe("mlp", **size)).state_dict(), "start.safetensors")
    network = {"model.name": "mlp", "model.weights": "start.safetensors", "model.prove_weights": False}
    mixed = {**network, "model.mixout": 0.5}
    alone, _ = train_here(mixed, "alone")
    for weights, _ in run_together(train_here, 2, mixed, "of-2"):
        assert largest_difference(alone, weights) < SUMMING
    assert largest_difference(alone, train_here(network, "plain")[0]) > 100 * SUMMING, "or nothing was mixed"


def test_batch_norm_over_parts_trains_other_weights_alike_in_all_processes():
    network = {"model.name": "small", "model.sync_batch_norm": False}
    alone, _ = train_here(network, "alone")
    found = run_together(train_here, 2, network, "of-2")
    assert largest_difference(found[0][0], found[1][0]) == 0
    assert largest_difference(alone, found[0][0]) > 10 * THROUGH_BATCH_NORM


def test_two_processes_shorten_a_training_at_the_same_step_by_the_first_ones_clock():
    # Nobody has the time for so many epochs.
    found = run_together(train_here, 2, {"model.name": "mlp", "optim.minutes": 0.01, "optim.epochs": 5000}, "of-2")
    assert largest_difference(found[0][0], found[1][0]) == 0
    rows = found[0][1]
    shortened = [row for row in rows if row["event"] == "shortened"]
    assert shortened
    assert [row["step"] for row in rows if row["event"] == "step"][-1] == shortened[-1]["steps"]
    assert rows[-1]["reason"] == "finished"


def test_sharded_weights_train_as_whole_ones_do():
    network = {"model.name": "small", "device.parallel": "fsdp"}
    alone, _ = train_here(network, "alone")
    found = run_together(train_here, 2, network, "of-2")
    assert largest_difference(found[0][0], found[1][0]) == 0
    assert largest_difference(alone, found[0][0]) < THROUGH_BATCH_NORM


def end_early(folder: str) -> tuple[str, int | None]:
    """Train as one of several; the last process is sent SIGTERM, and the others are not."""
    from linne.training.distributed import joined
    from linne.training.loop import train

    overrides = {**FIXED, "optim.epochs": 100_000, "model.name": "mlp"}
    plan = make_plan(*collect(SOURCE, None, {"device.name": "cpu"}, overrides))
    with joined() as world:
        Path(folder).mkdir(parents=True, exist_ok=True)
        run = Run(Path(folder), writes=world.is_first)
        if world.rank == world.size - 1:
            threading.Timer(2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        trained = train(plan.recipe, plan.source, run, Narrator(quiet=True), world=world)
        run.close()
    return trained.ending, trained.signal_number


def test_a_signal_to_one_process_ends_all_at_the_same_step():
    assert run_together(end_early, 2, "run") == [("interrupted", signal.SIGTERM)] * 2
    open_bundle(Path("run/bundle"))


def go_on(output: str, epochs: int, first: bool, parallel: str = "ddp") -> None:
    """Begin a run, or go on with it for more epochs, in however many processes this one is of."""
    import linne

    fixed = {**FIXED, "model.name": "mlp", "log_samples": True, "device.parallel": parallel}
    checkpoints = {"checkpoint.every_steps": 1, "checkpoint.keep": 50, "checkpoint.keep_after": True}
    changed = {} if first else {"resume": True, "allow_change": ["optim.epochs"]}
    overrides = {**fixed, **checkpoints, "optim.epochs": epochs}
    linne.train(SOURCE, device="cpu", output=output, overrides=overrides, quiet=True, **changed)


def forget_after(run: Path, step: int) -> None:
    """Leave the checkpoints up to `step` alone, as if the run had died there."""
    for checkpoint in (run / "checkpoints").glob("epoch-*"):
        if int(checkpoint.name.rpartition("-")[2]) > step:
            shutil.rmtree(checkpoint)
    (run / "checkpoints" / "latest").unlink()


def samples_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]


def test_a_run_goes_on_with_more_processes_and_fewer_from_the_middle_of_an_epoch(tmp_path):
    go_on("undisturbed", 5, True)
    go_on("moved", 3, True)  # three steps an epoch
    for size, step, epochs in ((2, 4, 4), (4, 8, 5), (1, 11, 5)):
        forget_after(tmp_path / "moved", step)
        if size == 1:
            shutil.rmtree(tmp_path / "moved" / "bundle")  # else it is finished
        run_together(go_on, size, "moved", epochs, False)
    samples = samples_of(tmp_path / "undisturbed")
    assert len(samples) == 15
    assert samples_of(tmp_path / "moved") == samples
    first, second = (open_bundle(tmp_path / run / "bundle").weights() for run in ("undisturbed", "moved"))
    assert largest_difference(first, second) < 10 * SUMMING, "fifteen steps rather than six"


@pytest.mark.slow
def test_sharded_weights_go_on_with_more_processes_and_fewer(tmp_path):
    go_on("undisturbed", 3, True, "fsdp")
    run_together(go_on, 2, "moved", 2, True, "fsdp")
    forget_after(tmp_path / "moved", 4)
    go_on("moved", 3, False, "fsdp")  # alone, with whole weights again
    forget_after(tmp_path / "moved", 7)
    shutil.rmtree(tmp_path / "moved" / "bundle")
    run_together(go_on, 2, "moved", 3, False, "fsdp")
    assert samples_of(tmp_path / "moved") == samples_of(tmp_path / "undisturbed")
    first, second = (open_bundle(tmp_path / run / "bundle").weights() for run in ("undisturbed", "moved"))
    assert largest_difference(first, second) < 10 * SUMMING


def with_other_files(folder: str) -> None:
    """Train as one of several, each of which has another set under the same name."""
    import linne

    count = 100 - int(os.environ["RANK"])
    (Path(folder) / os.environ["RANK"]).mkdir(parents=True)
    os.chdir(Path(folder) / os.environ["RANK"])
    images = np.random.default_rng(0).integers(0, 255, (count, 8, 8, 3), np.uint8)
    for number, pixels in enumerate(images):
        place = Path("photos") / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number}.png")
    linne.train("photos/", device="cpu", output="run", overrides={"optim.epochs": 1}, quiet=True)


def test_processes_that_have_other_images_do_not_begin():
    with pytest.raises(AssertionError) as failed:
        run_together(with_other_files, 2, "machines")
    assert "linne.errors.LinneError: process 1 of 2, on `" in str(failed.value)
    assert "is not the one that the first process has: images, labels or splits differ" in str(failed.value)
