"""What is promised of MIGraphX, tried on the one that `make migraphx` unpacked: its target `ref` needs no GPU.

It comes with a C library newer than this machine's may be, so that a Python of its own runs the tests.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent.parent
ROOT = Path(os.environ.get("LINNE_MIGRAPHX_ROOT") or REPOSITORY / "build" / "migraphx")

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not (ROOT / "python").is_file(),
        reason="no MIGraphX was unpacked: `make migraphx` fetches 40 MB; LINNE_MIGRAPHX_ROOT names another folder",
    ),
]


def by_migraphx(*words):
    """Run this Python with MIGraphX and return what it said."""
    environ = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        [ROOT / "python", *words], cwd=REPOSITORY, env=environ, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("file", "chosen"),
    [("tests/unit/test_migraphx_reference.py", ""), ("tests/conformance/test_backends.py", "migraphx")],
)
def test_what_is_promised_of_migraphx_holds_on_its_reference(file, chosen):
    done = by_migraphx("-m", "pytest", "-q", "-m", "", "-k", chosen, "-p", "no:cacheprovider", file)
    assert done.returncode == 0, done.stdout + done.stderr
    # Skipped for want of MIGraphX they would be none.
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 10, done.stdout


def test_a_bundle_is_predicted_with_by_the_command_line(tmp_path):
    from fixtures.graphs import write_graph_bundle

    from linne.preprocess import InputSpec

    spec = InputSpec(channels=3, height=16, width=20, mean=(0.5,) * 3, std=(0.25,) * 3)
    bundle = write_graph_bundle(tmp_path / "bundle", ("ant", "bee"), spec)
    image = bundle.path / bundle.canaries[0].file
    words = ("-m", "linne", "predict", bundle.path, image, "--backend", "migraphx")
    done = by_migraphx(*words, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert done.stdout == by_migraphx(*words[:-1], "onnxruntime", "--device", "cpu").stdout
    refused = by_migraphx(*words)
    assert refused.returncode == 1
    assert "error: MIGraphX finds no GPU that it can use: `a graph of one node` cannot be compiled by" in refused.stderr
