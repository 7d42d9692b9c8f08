"""Whether a training survives what happens to machines: kill -9, damaged checkpoints, a disk that refuses, SIGTERM.

- kills: `linne train digits` is killed with SIGKILL at random moments, some of them while a checkpoint is being
  written, and gone on with by `--resume auto`. No more steps than lie between two checkpoints may be lost. What it ends
  with is compared with a run that nobody disturbed: the kept weights, which images each step saw, and of the last
  checkpoint weights, averages, optimiser and random states.
- damage: one bit of a checkpoint is flipped, or a file of it cut short. It must not be taken for whole, and the one
  before must be found.
- disk: `faults_disk.py` trains while the Nth call that changes the folder of checkpoints fails, for each N; and while
  all later ones fail too.
- terms: SIGTERM at random moments of the process's life, from its run folder on.
- cost: training with a checkpoint every 6 s and without, in pairs; a tenth of that is what one every 60 s costs.

Everything but `cost` can fail, and the exit code is 1 then. A training that is killed or told to end is a process of
its own and runs `linne train` as the shell does, forked from one that has imported torch: else importing takes most of
the time.

    python benchmarks/faults.py --only kills --only damage
"""

from __future__ import annotations

import argparse
import collections
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import measure

measure.use_checkout()

from faults_cost import cost  # noqa: E402

from linne.errors import BundleError  # noqa: E402
from linne.training.checkpoint_format import (  # noqa: E402
    STATE,
    UNFINISHED,
    find_checkpoints,
    load_file,
    newest_good,
    read_manifest,
)

INTERVAL = 30
SETTINGS = {
    "device.precision": "fp32",
    "device.num_threads": 1,
    "model.dropout": 0.1,
    "optim.ema_decay": 0.9,
    "log_every": 1,
    "log_samples": "true",
    "checkpoint.every_steps": INTERVAL,
    "checkpoint.keep_after": "true",
}
EPOCHS, QUICK_EPOCHS = 6, 3
PARTS = ("kills", "damage", "disk", "terms", "cost")
AMOUNTS = {
    "kills": (50, 2),
    "saves": (10, 1),
    "flips": (1000, 20),
    "cuts": (200, 5),
    "disk": (200, 6),
    "terms": (20, 2),
}
"""In full, and with --quick."""
PATIENCE_SECONDS = 30
PRELOADED = [
    *("linne.training.loop", "linne.verbs", "linne.planning", "linne.run_end", "linne.plotting", "linne.reporting"),
    *("linne.cli.train", "linne.data.loading.augment", "torch._dynamo", "sklearn.datasets", "scipy.special"),
    *("matplotlib.pyplot", "matplotlib.backends.backend_svg", "matplotlib.backends.backend_agg"),
]
TIMES = ("progress", "log_bytes")
"""What a checkpoint holds that two equal runs need not have in common: how long things took, and wrote down."""


def start(folder: Path, epochs: int) -> ForkServerProcess:
    """Return a training in `folder`, which goes on where there is a run already."""
    words = ["train", "digits", "--device", "cpu", "--epochs", str(epochs), "--output", str(folder), "--quiet"]
    settings = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    words = [*words, "--resume", "auto", *settings]
    training = context.Process(target=type_linne, args=(words, str(folder.with_suffix(".log"))))
    training.start()
    return training


def type_linne(words: list[str], said: str) -> None:
    """Do what `linne` does with these words, in a child process."""
    from linne.cli import main

    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["linne", *words]
    sys.exit(main())


def ended(training: ForkServerProcess) -> int:
    """Return the exit code of a training when it has ended, below 0 for a signal that nobody handled."""
    training.join()
    assert training.exitcode is not None
    return training.exitcode


def finish(folder: Path, epochs: int) -> int:
    """Return the exit code of a training that is left alone."""
    return ended(start(folder, epochs))


def wait_for(path: Path, training: ForkServerProcess) -> None:
    """Wait until a file has something in it."""
    while not (path.is_file() and path.stat().st_size > 0) and training.is_alive():
        time.sleep(0.01)


def undisturbed(folder: Path, epochs: int) -> dict[str, float]:
    """Train a run that nothing comes between; return the seconds of its steps, and of its process since its folder."""
    training = start(folder, epochs)
    wait_for(folder / "recipe.json", training)
    begun = time.monotonic()
    if ended(training) != 0:
        raise SystemExit(folder.with_suffix(".log").read_text())
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {"steps": rows[-1]["seconds"], "process": time.monotonic() - begun}


def differences(first: Path, second: Path) -> list[str]:
    """Return what two finished runs do not have in common, to the bit."""
    last = [find_checkpoints(run / "checkpoints")[0] for run in (first, second)]
    states = [dict(read_manifest(path)["state"]["rest"]) for path in last]
    tensors = [
        {name: tensor.numpy().tobytes() for name, tensor in load_file(path / STATE).items() if _part(name) not in TIMES}
        for path in last
    ]
    found = {name for name in states[0].keys() | states[1].keys() if states[0].get(name) != states[1].get(name)}
    found |= {_part(n) for n in tensors[0].keys() | tensors[1].keys() if tensors[0].get(n) != tensors[1].get(n)}
    for name in ("bundle/model.safetensors", "samples.jsonl"):
        if (first / name).read_bytes() != (second / name).read_bytes():
            found.add(name)
    if last[0].name != last[1].name:
        found.add("steps")
    return sorted(found - set(TIMES))


def _part(name: str) -> str:
    """Return which part of a run a tensor belongs to: `state/optimizer/...` to the optimiser."""
    return re.split("[/:]", name)[1]


def is_writing(run: Path) -> bool:
    return any((run / "checkpoints").glob(f"{UNFINISHED}*.partial-*"))


def kill_one(run: Path, whole: Path, seconds: float, epochs: int, pick: random.Random, *, saving: bool) -> Any:
    """Kill a training and go on with it; return what came of it, or None where it had ended before."""
    training = start(run, epochs)
    wait_for(run / "metrics.jsonl", training)
    time.sleep(pick.uniform(0, 0.8 * seconds))
    while saving and not is_writing(run) and training.is_alive():
        time.sleep(0.0005)
    if saving:
        time.sleep(pick.uniform(0, 0.02))
    training.kill()
    if ended(training) != -signal.SIGKILL:
        return None
    was_saving = is_writing(run)
    steps = [json.loads(line)["step"] for line in (run / "samples.jsonl").read_text().splitlines() if line[-1:] == "}"]
    newest, damaged = newest_good(run / "checkpoints")
    reached, kept = max(steps, default=0), 0 if newest is None else newest.step
    code = finish(run, epochs)
    differ = differences(run, whole) if code == 0 else [f"exit code {code}"]
    return {
        "saving": was_saving,
        "reached": reached,
        "lost": reached - kept,
        "damaged": damaged,
        "differ": differ,
    }


def kills(folder: Path, whole: Path, seconds: float, epochs: int, quick: bool) -> list[dict[str, Any]]:
    """Return what came of each kill; the first ones are while saving."""
    pick, found, tries = random.Random(0), [], 0
    while len(found) < AMOUNTS["kills"][quick]:
        saving = sum(row["saving"] for row in found) < AMOUNTS["saves"][quick]
        run, tries = folder / f"killed-{tries}", tries + 1
        row = kill_one(run, whole, seconds, epochs, pick, saving=saving)
        shutil.rmtree(run)
        if row is not None:
            found.append(row)
            print(f"kill {len(found)}: {row}", file=sys.stderr, flush=True)
    return found


def terms(folder: Path, whole: Path, seconds: float, epochs: int, quick: bool) -> list[dict[str, Any]]:
    """Return how each training ended that was told to, and whether it came to the same afterwards."""
    pick, found, tries = random.Random(1), [], 0
    while len(found) < AMOUNTS["terms"][quick]:
        run, tries = folder / f"terminated-{tries}", tries + 1
        training = start(run, epochs)
        wait_for(run / "recipe.json", training)
        time.sleep(pick.uniform(0, 0.9 * seconds))
        told = time.monotonic()
        training.terminate()
        code, waited = ended(training), time.monotonic() - told
        if code != 0:  # else it had ended before
            again = finish(run, epochs)
            differ = differences(run, whole) if again == 0 else [f"exit code {again}"]
            found.append({"code": code, "seconds": waited, "differ": differ})
            print(f"SIGTERM {len(found)}: {found[-1]}", file=sys.stderr, flush=True)
        shutil.rmtree(run)
    return found


def damage(folder: Path, whole: Path, quick: bool) -> dict[str, list[bool]]:
    """Return for each flipped bit and each cut whether it was found, and the checkpoint before instead."""
    pick, copy = random.Random(2), Path(shutil.copytree(whole / "checkpoints", folder / "damaged"))
    newest, older = find_checkpoints(copy)
    found: dict[str, list[bool]] = {"flips": [], "cuts": []}
    for kind in found:
        for _ in range(AMOUNTS[kind][quick]):
            path = pick.choice(sorted(newest.iterdir()))
            before = path.read_bytes()
            after = bytearray(before)
            place = pick.randrange(len(before))
            if kind == "flips":
                after[place] ^= 1 << pick.randrange(8)
            else:
                del after[place:]
            path.write_bytes(after)
            instead, problems = newest_good(copy)
            found[kind].append(instead is not None and instead.path == older and len(problems) == 1)
            path.write_bytes(before)
    whole_again, _ = newest_good(copy)
    if whole_again is None or whole_again.path != newest:
        raise BundleError("what was mended is not whole")
    return found


def disk(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Return what was left after each refused call."""
    here = Path(__file__).parent
    library = folder / "failing_disk.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, here / "failing_disk.c", "-ldl"], check=True)
    command = [sys.executable, str(here / "faults_disk.py"), str(library), str(AMOUNTS["disk"][quick])]
    environment = measure.checkout_env(LD_PRELOAD=str(library), **measure.threads_env(1))
    _, said = measure.run_child(command, environment)
    return [json.loads(line) for line in said.splitlines()]


def rows_of(raw: dict[str, Any]) -> list[list[str]]:
    """Return the rows of the table: what, how many, how many were survived, and particulars."""
    rows = []
    if found := raw.get("kills"):
        lost = [row["lost"] for row in found]
        saving = sum(row["saving"] for row in found)
        good = sum(not row["differ"] and not row["damaged"] and row["lost"] <= INTERVAL for row in found)
        rows.append(
            [
                f"kill -9, {saving} of them during a save",
                str(len(found)),
                str(good),
                f"steps lost: median {statistics.median(lost):g}, most {max(lost)}, {INTERVAL} allowed; during a save: "
                f"median {_middle(row['lost'] for row in found if row['saving'])}",
            ]
        )
    if found := raw.get("damage"):
        for kind, name in (("flips", "flipped bits"), ("cuts", "cuts")):
            rows.append([name, str(len(found[kind])), str(sum(found[kind])), "found, and the one before gone on from"])
    if found := raw.get("disk"):
        hit = [row for row in found if row["hit"]]
        kinds = collections.Counter(f"{row['code']}{', for good' if row['stays'] else ', once'}" for row in hit)
        rows.append(
            [
                "calls that the disk refused",
                str(len(hit)),
                str(sum(map(_survived_disk, hit))),
                "; ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
                + f"; {sum(row['said'] == 0 for row in hit)} of them cost no checkpoint, and nothing was said",
            ]
        )
    if found := raw.get("terms"):
        good = sum(row["code"] == 143 and row["seconds"] < PATIENCE_SECONDS and not row["differ"] for row in found)
        longest = max(row["seconds"] for row in found)
        rows.append(["SIGTERM", str(len(found)), str(good), f"exit code 143 after at most {longest:.1f} s"])
    return rows


def _middle(numbers: Iterable[int]) -> str:
    """Return the median of what may be nothing."""
    found = list(numbers)
    return f"{statistics.median(found):g}" if found else "none"


def _survived_disk(row: dict[str, Any]) -> bool:
    """Return whether no whole checkpoint was lost or damaged, and training came to the same, then or afterwards."""
    goes_on = row["trained_on"] or row["ended"] is not None
    # Once may need no word: a link that fails is written anew, an older checkpoint that cannot be removed stays.
    is_said = row["said"] > 0 or not row["stays"]
    return is_said and not row["damaged"] and not row["lost"] and goes_on and row["resumed"]


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--only", action="append", choices=PARTS, help="repeatable; without it, all")
    options: argparse.Namespace = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", **measure.checkout_env())  # of all processes that are started from here
    parts, quick, raw = options.only or PARTS, options.quick, {}
    epochs = QUICK_EPOCHS if quick else EPOCHS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = folder / "whole"
        if {"kills", "terms", "damage"} & set(parts):
            took = undisturbed(whole, epochs)
        if "kills" in parts:
            raw["kills"] = kills(folder, whole, took["steps"], epochs, quick)
        if "damage" in parts:
            raw["damage"] = damage(folder, whole, quick)
        if "disk" in parts:
            raw["disk"] = disk(folder, quick)
        if "terms" in parts:
            raw["terms"] = terms(folder, whole, took["process"], epochs, quick)
        if "cost" in parts:
            raw["cost"] = cost(quick)
    rows, notes = rows_of(raw), raw["cost"]["notes"] if "cost" in raw else []
    heads = ["what happened", "n", "survived", "particulars"]
    measure.report("Faults", heads, rows, notes=notes, packages=["torch"], raw=raw, options=options)
    sys.exit(0 if all(row[1] == row[2] for row in rows) else 1)


if __name__ == "__main__":
    main()
