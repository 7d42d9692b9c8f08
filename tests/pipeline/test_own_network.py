"""A network in a user's Python file, from training to prediction: with `--trust-code` all the way, and not without."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs `linne[train]`")
pytest.importorskip("sklearn", reason="needs `linne[train]`")

pytestmark = pytest.mark.long

FILE = Path(__file__).parent.parent / "fixtures/networks/tiny.py"


def test_a_network_of_ones_own_is_trained_evaluated_and_used_where_it_is_trusted(python, tmp_path):
    train = ["train", "digits", "--model", f"python:{FILE}:Fixed", "--epochs", "1", "--output", tmp_path / "run"]
    refused = python("-m", "linne", *train)
    assert refused.returncode == 1
    assert refused.stderr.endswith("hint: read it, and type `--trust-code` if you trust it\n")
    assert not (tmp_path / "run").exists()

    trained = python("-m", "linne", *train, "--trust-code", "--quiet")
    assert trained.returncode == 0, trained.stderr
    bundle = trained.stdout.strip()
    refused = python("-m", "linne", "evaluate", bundle, "digits")
    assert refused.returncode == 1
    assert f"`python:{FILE}:Fixed` is Python that would be run, and nobody said that it is trusted" in refused.stderr
    evaluated = python("-m", "linne", "evaluate", bundle, "digits", "--trust-code")
    assert evaluated.returncode == 0, evaluated.stderr
    image = next((tmp_path / "run/bundle/canaries").glob("*.png"))
    predicted = python("-m", "linne", "predict", bundle, image, "--trust-code")
    assert predicted.returncode == 0, predicted.stderr
