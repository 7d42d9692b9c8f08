"""Memory that runs short in one of several processes: all go on with fewer images at once, to the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import run_together
from torch.nn.modules.module import register_module_forward_hook

import linne
from linne.bundle import open_bundle
from linne.errors import OutOfMemory

pytestmark = pytest.mark.long

SOURCE = "synthetic:classes=3,size=12,count=118"
"""79 images to train on, three steps an epoch, 13 or 14 images a step for each of two processes."""
FIELDS = {
    "data.batch_size": 30,
    "data.val_fraction": 0.2,
    "model.name": "mlp",  # no batch norm: parts of a batch train what the whole does
    "optim.epochs": 4,
    "optim.optimizer": "sgd",
    "optim.lr": 0.05,
    "optim.schedule": "cosine",
    "device.precision": "fp32",
    "device.num_threads": 1,
    "checkpoint.every_steps": 1,
    "log_samples": True,
    "log_every": 1,
}
SUMMING = 2e-6
"""Of a tensor's norm: sums of float32 in another order. Found: 3e-7 after six steps."""
SHORT_ON_MEMORY = textwrap.dedent(
    """
    import os

    if os.environ.get("RANK") == "1":
        import torch
        from torch.nn.modules.module import register_module_forward_hook

        calls = []

        def forget(gradient):
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        def look(module, given, answer):
            if isinstance(module, torch.nn.Linear) and module.training and answer.requires_grad:
                calls.append(len(answer))
                if len(calls) > 9 and len(answer) > 4:
                    answer.register_hook(forget)

        register_module_forward_hook(look)
    """
)
"""As `sitecustomize`: after some calls the second process has room for four images, and finds that out backwards."""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def train(output: str, **changes) -> None:
    linne.train(SOURCE, device="cpu", output=output, overrides={**FIELDS, **changes}, quiet=True, resume="auto")


def undisturbed(output: str, micro_batch: int, parallel: str) -> None:
    train(output, **{"device.micro_batch": micro_batch, "device.parallel": parallel})


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same_training(first: Path, second: Path) -> None:
    assert (first / "samples.jsonl").read_bytes() == (second / "samples.jsonl").read_bytes()
    rates = [{row["step"]: row["lr"] for row in rows_of(run) if row["event"] == "step"} for run in (first, second)]
    assert rates[0] == rates[1]
    ours, theirs = (open_bundle(run / "bundle").weights() for run in (first, second))
    for name, weight in ours.items():
        assert np.linalg.norm(weight - theirs[name]) < 2 * SUMMING * np.linalg.norm(weight), "twelve steps, not six"


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_launched_processes_go_on_with_half_as_many_as_often_as_it_takes(tmp_path, parallel):
    (tmp_path / "sitecustomize.py").write_text(SHORT_ON_MEMORY)
    settings = {**FIELDS, "device.name": "cpu", "device.parallel": parallel}
    words = [word for path, value in settings.items() for word in ("--set", f"{path}={value}")]
    launched = subprocess.run(
        [sys.executable, "-m", "linne", *("launch", "--nproc", "2", "--max-restarts", "0")]
        + ["train", SOURCE, "--output", "run", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert launched.returncode == 0, launched.stderr
    warnings = [line for line in launched.stderr.splitlines() if "out of memory" in line]
    said = "`cpu` is out of memory with {} images at once: CUDA out of memory. Tried to allocate 2.00 GiB.; going on"
    assert [line.partition(" from ")[0] for line in warnings] == [
        f"warning: rank 1: {said.format(number)}" for number in (13, 7)
    ]
    assert [line.rpartition(" with ")[2] for line in warnings] == [
        f"{number} images at once in each process" for number in (7, 4)
    ]
    run = tmp_path / "run"
    changes = json.loads((run / "recipe.json").read_text())["changes"]
    assert [(row["field"], row["before"], row["after"]) for row in changes] == [
        ("device.micro_batch", None, 7),
        ("device.micro_batch", 7, 4),
    ]
    steps = {row["step"]: row.get("micro_batch") for row in rows_of(run) if row["event"] == "step"}
    assert list(steps.values()) == sorted(steps.values(), key=lambda n: -(n or 99))
    assert set(steps.values()) == {None, 7, 4}
    run_together(undisturbed, 2, "undisturbed", 4, parallel)
    assert_same_training(run, tmp_path / "undisturbed")


def run_short(parallel: str) -> tuple[str, str, int] | None:
    """Train as one of two, the second of which has no room for its part of the fifth step; return what it says."""
    forwards = []

    def look(module, given, answer):
        if isinstance(module, torch.nn.Flatten) and module.training:
            forwards.append(len(answer))
            if os.environ["RANK"] == "1" and len(forwards) == 5:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    hook = register_module_forward_hook(look)
    try:
        train("run", **{"device.parallel": parallel})
    except OutOfMemory as error:
        return error.message, str(error.hint), error.micro_batch
    except RuntimeError:  # it has lost its partner
        return None
    finally:
        hook.remove()
    raise AssertionError("nothing happened")


@pytest.mark.parametrize("parallel", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_without_a_supervisor_the_error_says_what_to_type_and_that_goes_on(tmp_path, parallel):
    first, second = run_together(run_short, 2, parallel)
    assert first is None
    assert second is not None
    message, hint, micro_batch = second
    assert message.startswith(
        "`cpu` is out of memory with 13 images at once: [enforce fail] DefaultCPUAllocator: can't"
    )
    typed = f"--output {tmp_path / 'run'} --resume auto --set device.micro_batch=7"
    assert hint == f"start all processes again with: {typed}; under `linne launch` that happens by itself"
    run_together(undisturbed, 2, "run", micro_batch, parallel)
    assert [row["event"] for row in rows_of(tmp_path / "run")].count("resume") == 1
    run_together(undisturbed, 2, "undisturbed", micro_batch, parallel)
    assert_same_training(tmp_path / "run", tmp_path / "undisturbed")
