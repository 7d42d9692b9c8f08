"""The benchmarks that need hours or an accelerator, at a size at which a CPU shows that they run."""

from __future__ import annotations

import json
import struct
import subprocess

import numpy as np
import pytest

pytestmark = pytest.mark.long

TIMMS_TRAIN = """
import sys, time
assert sys.argv[sys.argv.index("--model") + 1] == "resnet18" and "--reprob" in sys.argv
for epoch in range(160):
    for step in range(50):
        print(f"Train: {epoch} [{step:>4d}/50 ({2 * step:>3.0f}%)]  Loss: 2.30 (2.30)  LR: 1.000e-05", flush=True)
        time.sleep(0.02)
"""

RECORD = """
import pathlib, torch
held = torch.load(pathlib.Path("cifar10/train.pt"))
assert held["images"].shape == (50, 32, 32, 3) and held["images"].dtype == torch.uint8 and len(held["classes"]) == 10
print("|  run     |  epoch  |  train_acc  |  val_acc  |  tta_val_acc  |  time_seconds  |")
for run in range(200):
    print("|       0  |      1  |     0.5120  |   0.5210  |               |        0.3000  |")
    print("|          |   eval  |     0.9120  |   0.9310  |       0.9405  |        2.6000  |", flush=True)
"""


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """Return a folder with the official files of CIFAR-10, of 20 images each."""
    folder, rng = tmp_path_factory.mktemp("cifar"), np.random.default_rng(0)
    for name in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
        rows = rng.integers(0, 256, (20, 3073), dtype=np.uint8)
        rows[:, 0] = np.arange(20) % 10
        (folder / name).write_bytes(rows.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(f"kind {number}" for number in range(10)))
    return folder


@pytest.fixture
def benchmark(python, repository, tmp_path):
    """Run a benchmark and return its table's rows, what it printed, and its raw results."""

    def run(name, *options):
        raw = tmp_path / "raw.json"
        done = python(repository / "benchmarks" / name, *options, "--output", raw, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
        return {row[0]: row[1:] for row in rows}, done.stdout, json.loads(raw.read_text())["results"]

    return run


def written(path, text):
    path.write_text(text)
    return path


def test_timms_rate_is_read_from_its_log_and_projected_beside_a_whole_training_of_linne(benchmark, cifar, tmp_path):
    timm = written(tmp_path / "train.py", TIMMS_TRAIN)
    summary = written(tmp_path / "summary.csv", "epoch,eval_top1\n0,51.5\n1,84.99\n2,85.0\n3,84.0\n")
    options = ["--quick", "--data", cifar, "--timm-train", timm, "--timm-summary", summary, "--recipe", "none"]
    rows, printed, raw = benchmark("cifar10_timm.py", *options)
    assert [epochs["number"] for epochs in raw["epochs"]] == [3]
    turns = raw["timm"][raw["fastest"]]
    assert len(raw["timm"]) == 3
    assert len(turns) == 2
    assert all(turn["images"] % 112 == 0 for turn in turns)
    assert rows["linne"][0] == "1 epochs of mlp"
    fastest = rows[f"timm, {raw['fastest']} (fastest)"]
    rate = sum(turn["images"] for turn in turns) / sum(turn["wall_seconds"] for turn in turns)
    assert fastest[0] == "3 epochs, projected"
    assert fastest[2] == f"{150_000 / rate:,.0f}"
    assert fastest[-1] == "not comparable"  # noise is not learnt to 85 %
    assert "0 of 1 runs reached 85 %" in printed


def test_pytorchs_example_and_linne_learn_the_same_digits_side_by_side(benchmark, tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 200), ("t10k", 50)):
        images, labels = rng.integers(0, 256, count * 784, dtype=np.uint8), np.arange(count, dtype=np.uint8) % 10
        pixels = struct.pack(">IIII", 0x803, count, 28, 28) + images.tobytes()
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(pixels)
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels.tobytes())
    rows, printed, raw = benchmark("mnist_example.py", "--quick", "--data", tmp_path)
    assert list(rows) == ["example, epoch 1", "linne, 1 epochs of mlp, training", "linne, whole program"]
    (epoch,) = raw["example"][0]
    assert rows["example, epoch 1"][0] == f"{100 * epoch['accuracy']:.2f} %"
    assert epoch["wall_seconds"] > 0
    assert "to the aim (0 of 1 runs of linne reached it), 99.00 %: 0 of 1 runs of the example reached it" in printed


def test_fine_tuning_training_from_scratch_and_the_tutorial_get_the_same_few_images(benchmark, cifar, tmp_path):
    torch, models = pytest.importorskip("torch"), pytest.importorskip("torchvision").models
    torch.save(models.mobilenet_v2().state_dict(), tmp_path / "weights.pth")
    options = ["--quick", "--weights", tmp_path / "weights.pth", "--set", "model.prove_weights=false"]
    rows, _, raw = benchmark("fine_tuning.py", *options, "--data", cifar, "--threads", 1)
    assert [cells[0] for cells in rows.values()] == [
        "1 epochs of 8 at 128 px",
        "1 epochs of 50 at 32 px",
        "1 epochs of 4 at 128 px",
    ]
    assert all(run["cpu_seconds"] > 0 and 0 <= run["accuracy"] <= 1 for (run,) in raw.values())
    assert rows["linne, what it chooses with weights"][-1] == "1.00"


def test_a_family_is_taken_from_building_to_predicting_and_not_again_by_the_next_call(benchmark, tmp_path):
    options = ["--only", "timm/ghostnet", "--threads", 1, "--results", tmp_path / "kept.jsonl"]
    rows, printed, raw = benchmark("families.py", *options)
    (row,) = raw["families"]
    assert row["name"] == "timm/ghostnet_050"
    # One kernel on one machine: other sums in other orders would give some 1e-6.
    assert row["canary_gap"] < 1e-4
    assert "1 of 1 families ok" in printed
    assert rows["timm/ghostnet: ghostnet_050"][-1] == "ok"
    again = benchmark("families.py", *options)[2]
    assert again == raw


def test_a_train_script_that_trains_nothing_is_refused_with_what_it_said(python, repository, cifar, tmp_path):
    timm = written(tmp_path / "train.py", "print('no such dataset')")
    options = ["--quick", "--data", cifar, "--timm-train", timm]
    done = python(repository / "benchmarks/cifar10_timm.py", *options, cwd=tmp_path)
    assert done.returncode == 1
    assert "no such dataset" in done.stderr
    assert f"error: `{timm}` printed no two steps of an epoch" in done.stderr


def test_the_runs_of_a_session_that_was_cut_off_are_not_measured_again(benchmark, cifar, tmp_path):
    record = written(tmp_path / "record.py", RECORD)
    common = ["--device", "cpu", "--recipe", "none", "--set", "model.name=mlp", "--images", 50, "--epochs", 1]
    common += ["--ways", "as typed"]
    common += ["--data", cifar, "--keep", tmp_path / "kept.jsonl"]
    rows, _, raw = benchmark("gpu_cifar10.py", *common, "--runs", 1, "--record-script", record)
    assert [(run["side"], run["warm"]) for run in raw["runs"]] == [
        *(("record", False), ("record", True)),
        *(("as typed", False), ("as typed", True)),
    ]
    assert rows["the record script"][:5] == ["1", "94.05 %", "yes", "2.600", "0.0"]
    assert rows["linne, without a recipe, as typed"][2] == "no"
    first = raw["runs"]
    written(tmp_path / "record.py", "raise SystemExit('it was to be left alone')")
    rows, _, raw = benchmark("gpu_cifar10.py", *common, "--runs", 1, "--record-script", record)
    assert raw["runs"] == first


def test_the_rate_of_a_step_is_measured_for_both_sides_and_for_photographs(benchmark):
    options = ["--model", "resnet18", "--side", 64, "--batch", 8, "--seconds", 0.2, "--rounds", 2, "--workers", 1]
    columns = ["--columns", "fp32", "bf16, channels_last"]
    rows, printed, raw = benchmark("gpu_imagenet_rate.py", "--device", "cpu", *options, *columns, "--pack")
    rates = raw["images_per_second"]
    timm, last = "timm, eager bf16 AMP, NCHW", "linne, bf16, channels_last"
    assert list(rates) == ["linne, fp32", last, timm, f"{last}, photographs"] == list(rows)
    assert all(len(turns) == 2 and min(turns) > 0 for turns in rates.values())
    assert rows[timm][1] == "1.00"
    assert rows[timm][2] == ""  # published is another network's
    assert rows[f"{last}, photographs"][3] != ""
    assert "resnet18 at 64 px, batches of 8" in printed


PYTHON = """#!/bin/sh
echo "$*" >> "$LOG"
case "$*" in
    *doctor*) echo "machine: fine"; exit 3 ;;
    *gpu_cifar10.py*) [ -f "$LOG.cut" ] && exit 0; touch "$LOG.cut"; echo "half a table"; exit 1 ;;
esac
echo "### A table of $2"
"""


def test_all_parts_go_into_one_file_and_one_that_was_cut_off_is_done_by_the_next_call(repository, tmp_path):
    python = written(tmp_path / "python", PYTHON)
    python.chmod(0o755)
    names = {"PYTHON": python, "KEPT": tmp_path / "kept", "RESULTS": tmp_path / "all.md", "LOG": tmp_path / "log"}
    env = {"PATH": "/usr/bin:/bin", "OPTIONS": "--device cpu", **{name: str(path) for name, path in names.items()}}
    call = [repository / "benchmarks/gpu_all.sh"]
    first = subprocess.run(call, env=env, capture_output=True, text=True, check=False)
    assert first.returncode == 1
    assert "not done: cifar10; run it again to go on" in first.stderr
    said = (tmp_path / "all.md").read_text()
    assert "machine: fine" in said
    assert "half a table" not in said
    assert said.count("\n## A table of") == 5
    before = (tmp_path / "log").read_text().splitlines()
    assert len(before) == 7
    deployed = [line.partition("--networks ")[2] for line in before if "deploy_networks.py" in line]
    assert deployed == [f"{network} --device cpu" for network in ("ResNet-50", "ViT-B/16", "Inception v3")]
    assert before[2].endswith("--no-photographs --timm-channels-last --device cpu")
    second = subprocess.run(call, env=env, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert len((tmp_path / "log").read_text().splitlines()) == 8
