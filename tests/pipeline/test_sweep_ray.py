"""Workers on the nodes of a real Ray cluster: several nodes' processes on this machine."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from fixtures.sweeps import TRAINER, begin, wait_for

pytest.importorskip("optuna", reason="a sweep needs optuna: pip install 'linne[sweep]'")
pytest.importorskip("ray", reason="no Ray here to make a cluster of: pip install 'linne[ray]'")

from linne.errors import LinneError
from linne.sweeping.gather import gather
from linne.sweeping.live import Display
from linne.sweeping.on_ray import run_on_ray

# Ray leaves sockets and files to the end of the process.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")]


@pytest.fixture
def cluster():
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield made
    made.shutdown()


def run(folder: Path, address: str) -> None:
    run_on_ray(folder, address, 1, None, Display(quiet=True, until=None), trainer=TRAINER)


def test_every_node_of_a_cluster_does_its_share_and_no_trial_twice(cluster, tmp_path):
    cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1)
    run(begin(tmp_path, trials=12, epoch_seconds=0.2), cluster.address)
    report = gather(tmp_path)
    assert len(report.trials) == report.num_done == 12
    assert len({trial.settings["optim.lr"] for trial in report.trials}) == 12
    assert len({trial.worker for trial in report.trials}) == 3, "each node had work"


def test_a_node_that_dies_loses_one_trial_which_the_others_do(cluster, tmp_path):
    node = cluster.add_node(num_cpus=1)
    begin(tmp_path, trials=6, epoch_seconds=0.5)
    work = threading.Thread(target=run, args=(tmp_path, cluster.address))
    work.start()
    wait_for(lambda: len(list(tmp_path.glob("trial-*/metrics.jsonl"))) == 2, "both nodes at work", 60)
    cluster.remove_node(node, allow_graceful=False)
    work.join(120)
    assert not work.is_alive()
    report = gather(tmp_path)
    assert report.num_done == 6
    lost = [trial for trial in report.trials if trial.state == "lost"]
    assert len(lost) == 1
    assert [trial.settings for trial in report.trials if trial.again == lost[0].number] == [lost[0].settings]


DRIVER = """
import sys
from pathlib import Path
from linne.sweeping.live import Display
from linne.sweeping.on_ray import run_on_ray
try:
    run_on_ray(Path(sys.argv[1]), sys.argv[2], 1, None, Display(quiet=True, until=None), trainer=sys.argv[3:])
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_ctrl_c_ends_the_trainings_on_all_nodes_politely(cluster, tmp_path):
    cluster.add_node(num_cpus=1)
    begin(tmp_path, trials=9, epoch_seconds=1.0)
    with subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path), cluster.address, *TRAINER]) as driver:
        wait_for(lambda: len(list(tmp_path.glob("trial-*/metrics.jsonl"))) >= 2, "both nodes at work", 60)
        driver.send_signal(signal.SIGINT)
        assert driver.wait(90) == 130
    states = [trial.state for trial in gather(tmp_path).trials]
    assert states.count("interrupted") == states.count("waiting") == len(list(tmp_path.glob("trial-*/saved"))) == 2


def test_a_cluster_that_is_not_there_is_an_error_that_says_so(tmp_path):
    begin(tmp_path, trials=1)
    with pytest.raises(LinneError, match=r"no Ray cluster answers at `127\.0\.0\.1:1`"):
        run(tmp_path, "127.0.0.1:1")
