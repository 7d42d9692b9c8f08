"""`linne trace`, in real runs: what is timed, what is recorded, what is left behind."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fakes import environment
from PIL import Image
from torch.utils import backend_registration

import linne
from linne.cli import cli
from linne.data.loading.loader import make_batches
from linne.device import Device
from linne.planning import plan_anew
from linne.profiling.inference import MOST_IMAGES
from linne.profiling.parts import Parts
from linne.profiling.training import announce_step, steps_of
from linne.training.starting import throwaway_state

pytestmark = pytest.mark.long

FILES = {"operators.txt", "summary.json", "trace.json", "trace.md"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle that names digits; how well does not matter."""
    run = tmp_path_factory.mktemp("trained") / "digits"
    return linne.train("digits", epochs=1, output=run, quiet=True).bundle


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """A trace of three training steps on digits."""
    folder = tmp_path_factory.mktemp("traced") / "trace"
    return linne.trace_train("digits", steps=3, output=folder, device="cpu", quiet=True)


def spans_of(folder: Path) -> dict[str, list[dict]]:
    """Return the complete events of a record by name."""
    found: dict[str, list[dict]] = {}
    for event in json.loads((folder / "trace.json").read_text("utf-8"))["traceEvents"]:
        if event.get("ph") == "X":
            found.setdefault(event["name"], []).append(event)
    return found


def test_a_trace_takes_weights_and_your_own_code_as_a_training_does(bundle, tmp_path):
    own = Path(__file__).parent.parent / "fixtures/networks/tiny.py"
    options = ["--device", "cpu", "--json", "--set", "device.num_threads=1", "--output"]
    for number, network in enumerate((["small", "--weights", str(bundle)], [f"python:{own}:any_size", "--trust-code"])):
        typed = ["trace", "train", "digits", "--model", *network, *options, str(tmp_path / str(number))]
        done = CliRunner().invoke(cli, typed, prog_name="linne")
        assert done.exit_code == 0, done.output
    recipes = [json.loads((tmp_path / f"{n}/summary.json").read_text("utf-8"))["recipe"] for n in range(2)]
    assert [recipe["model"]["weights"] for recipe in recipes] == [str(bundle), None]
    assert recipes[0]["optim"]["optimizer"] == "adamw"  # as a fine-tuning has it


def test_a_trace_of_three_steps_leaves_four_files_and_nothing_else(traced):
    assert {file.name for file in traced.folder.iterdir()} == FILES
    assert {file.name for file in traced.folder.parent.iterdir()} == {"trace"}


def test_the_parts_of_a_training_step_add_up_to_it(traced):
    summary = traced.summary
    assert summary.num_steps == 3
    assert {part.name for part in summary.parts} == {"prepare", "forward", "backward", "optimiser", "other"}
    assert summary.share(*(part.name for part in summary.parts)) == pytest.approx(1, abs=1e-9)  # sums in another order
    assert all(part.seconds > 0 for part in summary.parts)
    assert 0 < summary.share("forward") < 1


def test_the_record_opens_as_json_and_holds_each_part_of_each_step(traced):
    spans = spans_of(traced.folder)
    counts = {name: len(spans[name]) for name in ("step", "forward", "backward", "optimiser")}
    assert counts == {"step": 3, "forward": 6, "backward": 3, "optimiser": 3}, "network and loss are spans of their own"
    first = min(spans["step"], key=lambda event: event["ts"])
    assert any("Input Dims" in event.get("args", {}) for event in spans["aten::mkldnn_convolution"])
    inside = [
        e for e in spans["backward"] if first["ts"] <= e["ts"] and e["ts"] + e["dur"] <= first["ts"] + first["dur"]
    ]
    assert len(inside) == 1


def test_the_table_is_the_one_that_the_samples_print(traced):
    table = (traced.folder / "operators.txt").read_text("utf-8")
    head = table.splitlines()[1]
    columns = ("Name", "Self CPU %", "Self CPU", "CPU total %", "CPU total", "CPU time avg", "CPU Mem", "# of Calls")
    assert all(column in head for column in columns)
    assert table == traced.table
    totals = [line.split()[0] for line in table.splitlines()[3:5]]
    assert totals[0] == "step", "sorted by what an operator takes with all it calls"


def test_the_summary_is_kept_for_programs_with_versions_recipe_and_device(traced):
    kept = json.loads((traced.folder / "summary.json").read_text("utf-8"))
    assert kept["traced"] == "train"
    assert kept["settings"]["data.batch_size"] == kept["images"]
    assert kept["recipe"]["data"]["source"] == "digits"
    assert kept["device_record"]["address"] == "cpu"
    assert kept["versions"]["torch"]
    shown = {"text", "change", "stake"}
    assert all(set(advice) == shown for advice in kept["advice"])
    assert [part["name"] for part in kept["parts"]] == [part.name for part in traced.summary.parts]


def test_the_page_shows_what_the_terminal_did_and_where_to_open_the_record(traced):
    page = (traced.folder / "trace.md").read_text("utf-8")
    assert traced.to_text() in page
    assert "https://ui.perfetto.dev" in page


def test_a_part_begins_where_the_step_says_so_whatever_the_recipe_asks_of_a_step():
    overrides = {"optim.clip_norm": 1.0, "optim.ema_decay": 0.9, "optim.sam_rho": 0.05, "device.micro_batch": 16}
    plan = plan_anew("digits", None, {"data.batch_size": 32, "device.name": "cpu"}, overrides, say=str)
    device, told = Device.pick("cpu"), []
    batches, _ = make_batches(plan.source, plan.recipe, device)
    state, parts = throwaway_state(plan.recipe, plan.source, device, batches), Parts(device)
    announce_step(state, parts)
    parts.begin = told.append
    next(steps_of(state, batches, plan.recipe, device, parts))
    half = ["forward", "forward", "backward"]
    assert told == ["prepare", "other", *4 * half, "optimiser", "optimiser", "other"]


def test_the_weights_change_as_in_a_training_that_nobody_watches():
    plan = plan_anew("digits", None, {"device.name": "cpu"}, {}, say=str)
    device, losses = Device.pick("cpu"), []
    for watched in (False, True):
        with device.repeatable(plan.recipe.seed, 1):
            batches, _ = make_batches(plan.source, plan.recipe, device)
            state, parts = throwaway_state(plan.recipe, plan.source, device, batches), Parts(device)
            if watched:
                announce_step(state, parts)
            steps = steps_of(state, batches, plan.recipe, device, parts)
            with parts.timed():
                for _ in range(3):
                    next(steps)
        losses.append([parameter.detach().clone() for parameter in state.parameters])
    assert all(bool((one == other).all()) for one, other in zip(*losses, strict=True))


def test_streaming_without_threads_decodes_between_the_steps_and_with_threads_waits(tmp_path):
    photos(tmp_path / "photos", 40)
    common = {"steps": 2, "device": "cpu", "batch_size": 8, "quiet": True}
    decoding = {"data.loader": "streaming", "data.num_workers": 0}
    for workers, name in ((0, "decode"), (1, "wait")):
        overrides = {**decoding, "data.num_workers": workers}
        found = linne.trace_train(
            str(tmp_path / "photos"), overrides=overrides, output=tmp_path / f"trace{workers}", **common
        )
        assert found.summary.parts[0].name == name
        assert found.summary.parts[0].seconds > 0


def photos(folder: Path, count: int) -> Path:
    """Write `count` small photographs in two classes."""
    pixels = np.random.default_rng(0)
    for number in range(count):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(path)
    return folder


def test_a_prediction_is_traced_from_bytes_to_labels_and_its_bundle_stays_as_it_was(bundle, tmp_path):
    before = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in bundle.rglob("*") if path.is_file()}
    folder = photos(tmp_path / "photos", 5)
    found = linne.trace_predict(bundle, folder, steps=3, output=tmp_path / "trace", device="cpu", quiet=True)
    assert found.summary.images == 5
    assert [part.name for part in found.summary.parts] == ["decode", "prepare", "forward", "other"]
    assert "normalising" in found.to_text()
    assert {"step", "decode", "prepare", "forward", "other"} <= set(spans_of(tmp_path / "trace"))
    after = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in bundle.rglob("*") if path.is_file()}
    assert after == before


def test_an_evaluation_is_traced_batch_by_batch(bundle, tmp_path):
    found = linne.trace_evaluate(bundle, "digits", steps=2, output=tmp_path / "trace", device="cpu", quiet=True)
    assert [part.name for part in found.summary.parts] == ["decode", "prepare", "forward"]
    assert found.summary.num_steps == 2
    assert found.summary.images <= 256
    assert found.summary.subject.endswith("on split test, 256 images a batch, fp32")


def test_views_are_run_one_after_the_other_in_the_same_batch(bundle, tmp_path):
    found = linne.trace_evaluate(
        bundle, "digits", steps=1, output=tmp_path / "trace", device="cpu", tta="flip", quiet=True
    )
    assert found.summary.subject.endswith("fp32, views by flip")
    assert len(spans_of(tmp_path / "trace")["step"]) == 1


def test_images_that_cannot_be_read_are_left_out_and_none_is_an_error(bundle, tmp_path):
    folder = photos(tmp_path / "photos", 3)
    (folder / "a" / "broken.png").write_bytes(b"no image")
    found = linne.trace_predict(bundle, folder, steps=1, output=tmp_path / "trace", device="cpu", quiet=True)
    assert found.summary.images == 3
    with pytest.raises(linne.LinneError, match=r"none of the 1 images can be read: .*broken\.png"):
        linne.trace_predict(bundle, folder / "a" / "broken.png", output=tmp_path / "none", device="cpu", quiet=True)
    assert not (tmp_path / "none").exists(), "a trace that failed leaves no folder"
    assert MOST_IMAGES >= 64


def test_what_cannot_be_traced_is_refused_in_words(tmp_path):
    with pytest.raises(linne.LinneError, match="steps is 0, expected 1 or more"):
        linne.trace_train("digits", steps=0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(linne.LinneError, match="exists already") as caught:
        linne.trace_train("digits", output=tmp_path / "full", quiet=True)
    assert caught.value.hint == "name a new folder with --output, or leave it out: traces are numbered by themselves"
    with pytest.raises(linne.DeviceError, match="an accelerator is required"):
        linne.trace_train("digits", device="cpu", require_accelerator=True, quiet=True)


def test_the_command_prints_the_summary_the_table_and_where_the_record_opens(python, tmp_path):
    words = ("trace", "train", "digits", "--steps", 2, "--batch-size", 32, "--device", "cpu", "--table")
    ended = python("-m", "linne", *words, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("traced   training small on digits, 32 images a step")
    assert "whole step" in ended.stdout
    assert "Self CPU time total" in ended.stdout
    folder = Path("traces") / "train-digits-small-1"
    assert ended.stderr.splitlines()[-1] == (
        f"open {folder / 'trace.json'} at https://ui.perfetto.dev (nothing is uploaded) or in chrome://tracing"
    )
    assert {file.name for file in (tmp_path / folder).iterdir()} == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["traces"], "no run folder"


def test_json_is_all_that_stdout_holds_when_it_is_asked_for(python, tmp_path, bundle):
    words = ("trace", "evaluate", bundle, "digits", "--steps", 1, "--json", "--quiet", "--device", "cpu")
    ended = python("-m", "linne", *words, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    found = json.loads(ended.stdout)
    assert found["traced"] == "evaluate"
    assert found["folder"] == str(Path("traces") / "evaluate-digits-1")


def test_a_flag_and_a_setting_that_disagree_are_refused_as_in_training(python):
    ended = python("-m", "linne", "trace", "train", "digits", "--batch-size", 8, "--set", "data.batch_size=9")
    assert ended.returncode == 2
    assert "`--batch-size 8` and `--set data.batch_size=9` disagree" in ended.stderr


IN_PYTHON = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")


@pytest.mark.skipif(
    not IN_PYTHON and shutil.which("g++") is None,
    reason="this torch takes no device from Python, and there is no g++ to build one with",
)
def test_a_device_that_the_profiler_does_not_see_is_timed_by_its_parts_and_its_fallbacks_are_said(tmp_path):
    words = ["trace", "train", "digits", "--device", "dml", "--steps", "2", "--set", "optim.optimizer=adamw"]
    command = [sys.executable, "-m", "linne", *words, "--output", str(tmp_path / "trace")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment("directml"))
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "device dml:0, Simulated GPU" in said
    assert "torch's profiler sees only the CPU's side of dml:0" in said
    assert "the parts were timed by waiting for dml:0 after each" in said
    assert (
        "1. dml:0 leaves `aten::lerp.Scalar_out` to the CPU, 20.0 calls a step try: --set optim.optimizer=sgd" in said
    )
    refused = subprocess.run(
        [*command[:-1], str(tmp_path / "refused"), "--require-accelerator"],
        capture_output=True,
        text=True,
        check=False,
        env=environment("directml"),
    )
    assert refused.returncode == 1
    assert "and an accelerator is required" in refused.stderr
    assert not (tmp_path / "refused").exists()


def test_the_other_layout_is_tried_in_turns_with_the_recipe_s(traced):
    layout = traced.summary.settings["device.channels_last"]
    assert traced.summary.trials[f"device.channels_last={str(not layout).lower()}"] > 0


def test_a_summary_is_plain_data(traced):
    assert json.loads(json.dumps(traced.to_dict()))["folder"] == str(traced.folder)
    assert dataclasses.asdict(traced.summary) == traced.summary.to_dict()
