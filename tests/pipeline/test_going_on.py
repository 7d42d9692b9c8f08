"""A run goes on where it was, in the same process or another one; or says why it cannot."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import linne
from linne.bundle import open_bundle
from linne.errors import CheckFailed, LinneError, RecipeError
from linne.log import Run
from linne.training.checkpoint_format import find_checkpoints, read_checkpoint

pytestmark = pytest.mark.long

SOURCE = "synthetic:classes=3,size=12,count=120"
SMALL = {
    "optim.epochs": 3,
    "data.batch_size": 16,
    "device.precision": "fp32",
    "model.dropout": 0.1,
    "optim.ema_decay": 0.9,
    "checkpoint.every_steps": 4,
    "checkpoint.keep": 100,
    "checkpoint.keep_after": True,
    "log_samples": True,
    "log_every": 3,
}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that nothing came between."""
    run = tmp_path_factory.mktemp("whole") / "run"
    linne.train(SOURCE, output=run, overrides=SMALL, quiet=True)
    return run


@pytest.fixture(scope="module")
def streamed(tmp_path_factory) -> Path:
    """The same, with images that are decoded as they are needed."""
    run = tmp_path_factory.mktemp("streamed") / "run"
    overrides = {**SMALL, "data.loader": "streaming", "data.num_workers": 2}
    linne.train(SOURCE, output=run, overrides=overrides, quiet=True)
    return run


def copied(run: Path, name: str = "run") -> Path:
    return Path(shutil.copytree(run, name))


def forget_after(run: Path, step: int) -> None:
    """Make `run` what a process left that was killed after its checkpoint at `step`."""
    for path in find_checkpoints(run / "checkpoints"):
        if read_checkpoint(path).step > step:
            shutil.rmtree(path)
    (run / "checkpoints" / "latest").write_text(find_checkpoints(run / "checkpoints")[0].name)
    for left in ("bundle", "plots"):
        shutil.rmtree(run / left)
    for left in ("report.html", "report.md", "evaluation.json"):
        (run / left).unlink()


def go_on(run: Path, **options) -> linne.TrainResult:
    return linne.train(output=run, **{"resume": True, "quiet": True, **options})


def rows_of(run: Path, *events: str) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    times = ("seconds", "images_per_second", "data_wait", "blocked_seconds", "write_seconds")
    return [{k: v for k, v in row.items() if k not in times} for row in rows if row["event"] in events]


def assert_same_run(first: Path, second: Path) -> None:
    """Check that two runs came to the same, to the bit, by the same way."""
    ours, theirs = (open_bundle(run / "bundle") for run in (first, second))
    assert ours.files["model.safetensors"] == theirs.files["model.safetensors"]
    assert ours.metrics == theirs.metrics
    assert (first / "samples.jsonl").read_bytes() == (second / "samples.jsonl").read_bytes()
    assert rows_of(first, "step", "epoch") == rows_of(second, "step", "epoch")
    last = [find_checkpoints(run / "checkpoints")[0] for run in (first, second)]
    assert last[0].name == last[1].name
    for name in ("state.safetensors", "kept.safetensors"):
        assert (last[0] / name).read_bytes() == (last[1] / name).read_bytes()


@pytest.mark.parametrize(("loader", "step"), [("whole", 4), ("whole", 12), ("whole", 20), ("streamed", 7)])
def test_a_killed_run_goes_on_to_the_bit_in_mid_epoch_and_at_its_end(loader, step, request):
    whole = request.getfixturevalue(loader)
    run = copied(whole)
    forget_after(run, step)
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"event": "st')  # half a line, as a kill leaves it
    go_on(run)
    assert_same_run(run, whole)
    (resumed,) = rows_of(run, "resume")
    assert resumed["step"] <= step
    assert "weights of epoch 3 kept, resumed once" in (run / "report.md").read_text()


def test_patience_ends_a_run_early_and_finished_also_when_it_went_on_in_between(capsys):
    learns_nothing = {"optim.lr": 1e-9, "optim.epochs": 9, "optim.patience": 2, "optim.schedule": "constant"}
    overrides = {**SMALL, "model.dropout": None, "optim.ema_decay": None, **learns_nothing}
    result = linne.train(SOURCE, output="whole", overrides=overrides)
    assert "ended early: 2 epochs brought no higher validation accuracy" in capsys.readouterr().err
    assert [row["epoch"] for row in rows_of(result.run, "epoch")] == [1, 2, 3]
    assert result.report is not None
    report = (result.run / "report.md").read_text()
    assert "3 epochs" in report
    assert "ended early, of 9 epochs: 2 brought no higher validation accuracy" in report
    run = copied(Path("whole"))
    forget_after(run, 10)  # after one epoch, in the middle of the second
    go_on(run)
    assert_same_run(run, Path("whole"))
    capsys.readouterr()
    go_on(run, quiet=False)
    assert "is finished: nothing is left to do" in capsys.readouterr().err


TECHNIQUES = [
    {"optim.optimizer": "muon", "optim.schedule": "plateau", "optim.plateau_epochs": 1, "optim.clip_agc": 0.1},
    {"optim.optimizer": "lion", "optim.layer_decay": 0.8, "optim.average_epochs": 2, "optim.swa_lr": 0.1},
    {"optim.optimizer": "adamw", "optim.schedule": "schedule-free", "optim.loss": "focal"},
    {"data.balance": "class", "data.repeats": 2, "augment.erase": 0.5, "augment.mixup_alpha": 0.2},
    {
        "model.freeze": "backbone",
        "model.unfreeze_epochs": 2,
        "optim.sam_rho": 0.05,
        "device.checkpoint_activations": True,
    },
    {
        "augment.flip": True,
        "augment.alternate": True,
        "augment.policy": "augmix",
        "augment.size_start": 0.6,
        "augment.size_hold": 0.1,
        "augment.size_until": 0.6,
        "augment.size_tune_epochs": 1,
    },
]
"""What keeps something from one step or epoch to the next."""


@pytest.mark.parametrize("technique", TECHNIQUES, ids=str)
def test_every_technique_goes_on_to_the_bit(technique):
    if technique.get("optim.schedule") == "schedule-free":
        pytest.importorskip("schedulefree", reason="needs `linne[schedule-free]`")
    overrides = {**SMALL, "optim.ema_decay": None, **technique}
    linne.train(SOURCE, output="whole", overrides=overrides, quiet=True)
    run = copied(Path("whole"))
    forget_after(run, 10)  # in mid-epoch, after one epoch with its average, drop or thaw
    go_on(run)
    assert_same_run(run, Path("whole"))


def test_a_run_that_was_cut_after_its_last_step_needs_no_step_to_finish(whole):
    run = copied(whole)
    forget_after(run, 10**6)
    result = go_on(run)
    assert_same_run(run, whole)
    assert result.report.num_examples > 0
    assert (run / "report.html").is_file()


def test_the_recipe_of_a_run_that_was_resumed_repeats_it_to_the_bit(whole):
    run = copied(whole)
    forget_after(run, 8)
    go_on(run)
    linne.train(recipe=str(run / "recipe.json"), output="again", quiet=True)
    assert_same_run(run, Path("again"))


def test_the_same_command_twice_trains_once_and_then_says_that_it_is_done(whole, capfd):
    before = (whole / "metrics.jsonl").read_bytes()
    command = {"source": SOURCE, "output": whole, "resume": "auto", "overrides": {"optim.epochs": 3}}
    result = linne.train(**command)
    assert f"run     {whole} is finished: nothing is left to do" in capfd.readouterr().err
    assert result.report.accuracy == linne.evaluate(result.bundle, SOURCE, quiet=True).accuracy
    assert result.bundle == whole / "bundle"
    assert not result.interrupted
    assert (whole / "metrics.jsonl").read_bytes() == before


def test_resume_auto_begins_where_there_is_nothing_and_plain_resume_says_so():
    with pytest.raises(LinneError, match="there is no run in `run` to go on with") as caught:
        go_on(Path("run"))
    assert caught.value.hint == "`--resume auto` begins one where there is none"
    result = linne.train(SOURCE, output="run", resume="auto", overrides={**SMALL, "optim.epochs": 1}, quiet=True)
    assert result.report is not None
    with pytest.raises(LinneError, match="nothing says which run to go on with"):
        linne.train(SOURCE, resume="auto", quiet=True)


def test_a_folder_of_somebody_else_is_no_place_to_begin():
    Path("run").mkdir()
    Path("run/mine.txt").write_text("keep me")
    with pytest.raises(LinneError, match="the output folder `run` exists already"):
        linne.train(SOURCE, output="run", resume="auto", overrides=SMALL, quiet=True)
    assert [path.name for path in Path("run").iterdir()] == ["mine.txt"]


def test_a_run_killed_before_its_first_checkpoint_begins_again_only_when_asked_to(whole, capfd):
    run = copied(whole)
    forget_after(run, 4)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(LinneError, match="has no checkpoint yet") as caught:
        go_on(run)
    assert caught.value.hint == "`--resume auto` begins it again from its recipe"
    capfd.readouterr()
    go_on(run, resume="auto", quiet=False)
    assert "was ended before its first checkpoint: it begins again" in capfd.readouterr().err
    assert_same_run(run, whole)


def test_what_the_command_does_not_say_is_as_it_was_and_what_it_says_must_be(whole):
    run = copied(whole)
    forget_after(run, 4)
    with pytest.raises(RecipeError) as caught:
        go_on(run, lr=0.05, overrides={"optim.momentum": 0.8})
    was = json.loads((run / "recipe.json").read_text())["recipe"]["optim"]["lr"]
    assert caught.value.message == (
        f"this is not the run in `run`: optim.lr was {was:g} and is 0.05; optim.momentum was 0.9 and is 0.8"
    )
    assert caught.value.hint == (
        "leave it as it was, or train on with the change: --allow-change optim.lr --allow-change optim.momentum"
    )
    assert rows_of(run, "resume") == [], "nothing was touched"
    with pytest.raises(RecipeError, match=r"no recipe field `optim\.rate` that could change"):
        go_on(run, allow_change=["optim.rate"])


def test_an_edited_recipe_is_not_mistaken_for_what_was_trained(whole):
    run = copied(whole)
    forget_after(run, 4)
    document = json.loads((run / "recipe.json").read_text())
    document["recipe"]["seed"] = 77
    (run / "recipe.json").write_text(json.dumps(document))
    with pytest.raises(RecipeError, match="seed was 0 and is 77"):
        go_on(run)


def test_what_changes_nothing_that_is_learnt_may_change_and_is_written_down(whole):
    run = copied(whole)
    forget_after(run, 4)
    go_on(run, overrides={"checkpoint.every_steps": 6, "log_every": 5})
    assert (
        open_bundle(run / "bundle").files["model.safetensors"]
        == (open_bundle(whole / "bundle").files["model.safetensors"])
    )
    document = json.loads((run / "recipe.json").read_text())
    assert document["recipe"]["checkpoint"]["every_steps"] == 6
    change = {"step": 4, "field": "checkpoint.every_steps", "before": 4, "after": 6}
    assert change in document["changes"]


def test_a_finished_run_trains_on_with_more_epochs_where_that_is_allowed(whole):
    run = copied(whole)
    result = go_on(run, epochs=4, allow_change=["optim.epochs"])
    assert [row["epoch"] for row in rows_of(run, "epoch")] == [1, 2, 3, 4]
    assert open_bundle(result.bundle).provenance["recipe"]["optim"]["epochs"] == 4
    assert {path.name for path in run.iterdir() if "bundle" in path.name} == {"bundle"}
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(LinneError, match="is finished, and its checkpoints are gone"):
        go_on(run, epochs=5, allow_change=["optim.epochs"])


def make_photos(seed: int) -> None:
    draw = np.random.default_rng(seed)
    for value, label in enumerate("ab"):
        Path("photos", label).mkdir(parents=True, exist_ok=True)
        for index in range(30):
            pixels = draw.integers(0, 60, (12, 12, 3), dtype=np.uint8) + np.uint8(120 * value)
            Image.fromarray(pixels).save(f"photos/{label}/{index}.png")


def test_images_that_changed_are_noticed_and_trained_on_only_when_that_is_allowed(capfd):
    make_photos(0)
    linne.train("photos", output="run", overrides=SMALL, quiet=True)
    forget_after(Path("run"), 4)
    Image.new("RGB", (12, 12), (9, 9, 9)).save("photos/a/3.png")
    with pytest.raises(
        RecipeError, match=r"images, labels or splits of the source have changed: source\.fingerprint was"
    ):
        go_on(Path("run"))
    result = go_on(Path("run"), allow_change=["source.fingerprint"])
    changes = json.loads(Path("run/recipe.json").read_text())["changes"]
    assert [change["field"] for change in changes] == ["source.fingerprint"]
    known = open_bundle(result.bundle).provenance["source"]["fingerprint"]
    assert known == changes[0]["after"] == json.loads(Path("run/recipe.json").read_text())["source"]["fingerprint"]


def test_a_damaged_checkpoint_is_passed_over_and_that_is_said(whole, capfd):
    run = copied(whole)
    forget_after(run, 12)
    newest, older = find_checkpoints(run / "checkpoints")[:2]
    content = bytearray((newest / "state.safetensors").read_bytes())
    content[len(content) // 2] ^= 4
    (newest / "state.safetensors").write_bytes(content)
    go_on(run, quiet=False)
    said = capfd.readouterr().err
    assert f"warning: checkpoint `{newest}` cannot be used: `state.safetensors` was altered or damaged" in said
    assert f"warning: going back to `{older}`" in said
    assert_same_run(run, whole)


@pytest.mark.parametrize("resume", [True, "auto"])
def test_a_run_without_a_whole_checkpoint_never_begins_anew_by_itself(whole, resume):
    run = copied(whole)
    forget_after(run, 8)
    for path in find_checkpoints(run / "checkpoints"):
        os.truncate(path / "checkpoint.json", 50)
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(CheckFailed, match="the run in `run` cannot go on: no checkpoint is whole") as caught:
        go_on(run, resume=resume)
    assert caught.value.exit_code == 3
    assert "checkpoint.json` is not valid JSON" in caught.value.message
    assert (run / "metrics.jsonl").read_bytes() == before
    for path in find_checkpoints(run / "checkpoints"):
        shutil.rmtree(path)
    with pytest.raises(CheckFailed, match="latest` names `epoch-"):
        go_on(run, resume=resume)


def test_the_checkpoints_of_a_finished_run_are_removed_unless_they_are_to_stay():
    result = linne.train(SOURCE, output="run", overrides={**SMALL, "checkpoint.keep_after": False}, quiet=True)
    assert not Path("run/checkpoints").exists()
    assert not Path("run/run.lock").exists()
    assert go_on(Path("run")).report.accuracy == result.report.accuracy


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_is_at_work(whole):
    run = copied(whole)
    with Run(run).held(), pytest.raises(LinneError, match="another process is at work on `run`"):
        go_on(run)


def interrupt_when(ready: Callable[[], bool], number: int) -> None:
    """Send a signal to this process as soon as `ready()`."""

    def wait_and_send() -> None:
        while not ready():
            time.sleep(0.005)
        os.kill(os.getpid(), number)

    threading.Thread(target=wait_and_send, daemon=True).start()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_leaves_a_checkpoint_of_the_last_step_and_a_bundle_and_the_run_goes_on_to_the_bit(
    whole, number, capfd
):
    metrics = Path("run/metrics.jsonl")
    interrupt_when(lambda: metrics.is_file() and '"epoch": 1,' in metrics.read_text(), number)
    overrides = {**SMALL, "checkpoint.every_steps": None}
    first = linne.train(SOURCE, output="run", overrides=overrides)
    assert first.signal_number == number
    assert open_bundle(first.bundle).provenance["finished"] is False
    (checkpoint,) = find_checkpoints(Path("run/checkpoints"))
    last_step = json.loads(Path("run/samples.jsonl").read_text().splitlines()[-1])["step"]
    assert read_checkpoint(checkpoint).step == last_step
    assert "to go on: linne train --output run --resume" in capfd.readouterr().err
    second = go_on(Path("run"))
    assert open_bundle(second.bundle).provenance["finished"] is True
    assert_same_run(Path("run"), whole)


def test_a_signal_in_validation_ends_it_and_the_epoch_is_validated_again():
    source = "synthetic:classes=3,size=12,count=4000"
    overrides = {**SMALL, "optim.epochs": 2, "data.loader": "streaming", "data.val_fraction": 0.95}
    linne.train(source, output="whole", overrides=overrides, quiet=True)
    steps = rows_of(Path("whole"), "epoch")[0]["step"]
    metrics = Path("run/metrics.jsonl")
    interrupt_when(lambda: metrics.is_file() and f'"step", "step": {steps},' in metrics.read_text(), signal.SIGTERM)
    first = linne.train(source, output="run", overrides={**overrides, "checkpoint.every_steps": None}, quiet=True)
    assert first.bundle is None, "no epoch is done before it is validated"
    (checkpoint,) = find_checkpoints(Path("run/checkpoints"))
    assert (read_checkpoint(checkpoint).epoch, read_checkpoint(checkpoint).batch) == (0, steps)
    go_on(Path("run"))
    assert_same_run(Path("run"), Path("whole"))
