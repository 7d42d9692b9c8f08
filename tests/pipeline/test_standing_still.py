"""A training that stands still is ended, says where it stood, and goes on afterwards."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import linne
from linne.bundle import open_bundle
from linne.errors import LinneError

SOURCE = "synthetic:classes=3,size=12,count=120"
OVERRIDES = {
    "optim.epochs": 2,
    "data.batch_size": 16,
    "data.loader": "streaming",
    "data.num_workers": 2,
    "device.precision": "fp32",
    "checkpoint.every_steps": 2,
}
STANDS_STILL = textwrap.dedent(
    """
    import sys, time
    from dataclasses import dataclass, replace
    from pathlib import Path
    import linne
    from linne.data import open_source

    @dataclass(frozen=True)
    class DiskThatGoes:
        '''Images of another store, on a disk that does not answer any more once there is a checkpoint.'''

        store: object
        array = None

        def __len__(self):
            return len(self.store)

        def name(self, index):
            return self.store.name(index)

        def load(self, index):
            while Path("run/checkpoints/latest").exists():
                time.sleep(1)
            return self.store.load(index)

    if __name__ == "__main__":
        source, overrides = open_source(sys.argv[1], val_fraction=0.1), eval(sys.argv[2])
        splits = {name: replace(split, store=DiskThatGoes(split.store)) for name, split in source.splits.items()}
        linne.train(replace(source, splits=splits), output="run", overrides=overrides, stuck_after=0.05, quiet=True)
    """
)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.long
def test_a_read_that_does_not_end_ends_the_run_with_all_stacks_and_the_run_goes_on_to_the_bit(capfd):
    # As many epochs as it takes: the images that are read ahead are learnt from before training stands still.
    overrides = {**OVERRIDES, "optim.epochs": 30}
    child = [sys.executable, "-c", STANDS_STILL, SOURCE, repr(overrides)]
    ended = subprocess.run(child, capture_output=True, text=True, timeout=100, check=False)
    assert (ended.returncode, ended.stderr) == (1, "")
    stacks = Path("run/stuck.txt").read_text()
    assert stacks.startswith("Timeout (0:00:03)!\n")
    assert "training/loop.py" in stacks, "the thread that trains"
    assert " in load\n" in stacks, "a thread that reads"
    result = linne.train(output="run", resume=True)
    assert (
        "warning: a process of this run stood still and was ended: `run/stuck.txt` has where every thread was"
        in capfd.readouterr().err
    )
    assert Path("run/stuck.txt").read_text() == stacks, "what an earlier process left stays to be read"
    whole = linne.train(SOURCE, output="whole", overrides=overrides, quiet=True)
    ours, theirs = (open_bundle(trained.bundle).files["model.safetensors"] for trained in (result, whole))
    assert ours == theirs


@pytest.mark.parametrize("minutes", [-1, float("nan"), 10**6])
def test_a_patience_that_is_no_time_is_refused(minutes):
    with pytest.raises(LinneError, match=r"stuck_after is .* minutes, expected 0 to 10,000"):
        linne.train("digits", stuck_after=minutes)
