"""The templates for clusters start what they say: run here with stand-ins for the cluster's own programs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from linne.cli import cli

yaml = pytest.importorskip("yaml", reason="PyYAML reads the template")

STAND_INS = {
    # What `linne` was called with, one line a call; it leaves with $CODE, after a signal if it has to wait for one.
    "linne": """#!{python}
import json, os, signal, sys, time
with open(os.environ["CALLS"], "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
if os.environ.get("WAITS"):
    signal.signal(signal.SIGUSR1, lambda number, frame: sys.exit(138))
    open(os.environ["CALLS"] + ".ready", "w").close()
    time.sleep(60)
sys.exit(int(os.environ.get("CODE", "0")))
""",
    "scontrol": """#!/bin/bash
if [ "$1 $2" = "show hostnames" ]; then echo first; echo second; else echo "$@" >> "$CALLS.scontrol"; fi
""",
    # Two tasks after one another, or the first alone where it has to be told to end.
    "srun": """#!/bin/bash
shift
if [ -n "$WAITS" ]; then SLURM_NODEID=0 exec "$@"; fi
SLURM_NODEID=0 "$@" && SLURM_NODEID=1 "$@"
""",
}


@pytest.fixture
def cluster(tmp_path) -> dict[str, str]:
    """An environment in which the stand-ins are found first."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in STAND_INS.items():
        (programs / name).write_text(text.replace("{python}", sys.executable))
        (programs / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "17", "SLURM_JOB_NODELIST": "gpu[01-02]", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "8"}
    return {**os.environ, **job, "PATH": f"{programs}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls")}


def launched(cluster: dict[str, str]) -> list[dict]:
    """Return what `linne launch` understands of each call."""
    found = []
    for line in Path(cluster["CALLS"]).read_text().splitlines():
        words = json.loads(line)
        assert words[0] == "launch"
        command = cli.get_command(click.Context(cli), "launch")
        options = command.make_context("launch", words[1:]).params
        train = cli.get_command(click.Context(cli), "train").make_context("train", list(options["arguments"][1:]))
        found.append({**options, "train": train.params})
    return found


def test_the_slurm_script_starts_a_supervisor_on_each_machine(cluster, repository):
    script = repository / "docs/templates/slurm.sh"
    ended = subprocess.run(["bash", script], env=cluster, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    calls = launched(cluster)
    assert [(call["nodes"], call["node_rank"], call["nproc"]) for call in calls] == [(2, 0, 8), (2, 1, 8)]
    assert {call["rendezvous"] for call in calls} == {"first:29400"}
    assert {str(call["train"]["output"]) for call in calls} == {"runs/imagenet-17"}
    assert not Path(cluster["CALLS"] + ".scontrol").exists()


def test_the_slurm_script_queues_the_job_again_after_the_checkpoint_before_its_time_is_up(cluster, repository):
    script = repository / "docs/templates/slurm.sh"
    job = subprocess.Popen(["bash", script], env={**cluster, "WAITS": "1"})
    ready, end = Path(cluster["CALLS"] + ".ready"), time.monotonic() + 30
    while not ready.exists() and time.monotonic() < end:
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(30) == 138
    assert Path(cluster["CALLS"] + ".scontrol").read_text() == "requeue 17\n"


def test_the_slurm_script_leaves_a_failed_job_failed(cluster, repository):
    script = repository / "docs/templates/slurm.sh"
    ended = subprocess.run(["bash", script], env={**cluster, "CODE": "3"}, check=False)
    assert ended.returncode == 3
    assert not Path(cluster["CALLS"] + ".scontrol").exists()


def test_shellcheck_finds_nothing_in_the_slurm_script(repository):
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    subprocess.run(["shellcheck", repository / "docs/templates/slurm.sh"], check=True)


def test_the_kubernetes_job_starts_a_supervisor_in_each_pod(cluster, repository):
    service, job = yaml.safe_load_all((repository / "docs/templates/kubernetes.yaml").read_text("utf-8"))
    spec = job["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    for index in range(spec["completions"]):
        environment = {**cluster, "JOB_COMPLETION_INDEX": str(index)}
        subprocess.run([*container["command"], *container["args"]], env=environment, check=True)
    calls = launched(cluster)
    assert [call["node_rank"] for call in calls] == list(range(spec["completions"]))
    assert {call["nodes"] for call in calls} == {spec["completions"]} == {spec["parallelism"]}
    assert {call["nproc"] for call in calls} == {container["resources"]["limits"]["nvidia.com/gpu"]}
    # An indexed job names its pods NAME-INDEX, and a headless service makes names of them.
    assert calls[0]["rendezvous"].partition(":")[0] == f"{job['metadata']['name']}-0.{pod['subdomain']}"
    assert service["spec"]["clusterIP"] == "None"
    assert service["metadata"]["name"] == pod["subdomain"]
    places = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert "/runs" in places
    assert calls[0]["train"]["output"].is_relative_to("/runs")
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [1, 2, 3], "the codes never tried again"
