"""A network in a user's Python file, from training to prediction: with `--trust-code` all the way, and not without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs `linne[train]`")
pytest.importorskip("sklearn", reason="needs `linne[train]`")

pytestmark = pytest.mark.long

FILE = Path(__file__).parent.parent / "fixtures/networks/tiny.py"
MODEL = f"python:{FILE}:any_size"


def test_a_network_of_ones_own_is_trained_evaluated_and_used_where_it_is_trusted(python, tmp_path):
    train = ["train", "digits", "--model", MODEL, "--epochs", "1", "--output", tmp_path / "run"]
    refused = python("-m", "linne", *train)
    assert refused.returncode == 1
    assert refused.stderr.endswith("hint: read it, and type `--trust-code` if you trust it\n")
    assert not (tmp_path / "run").exists()

    trained = python("-m", "linne", *train, "--trust-code", "--quiet")
    assert trained.returncode == 0, trained.stderr
    bundle = trained.stdout.strip()
    refused = python("-m", "linne", "evaluate", bundle, "digits")
    assert refused.returncode == 1
    assert f"`{MODEL}` is Python that would be run, and nobody said that it is trusted" in refused.stderr
    evaluated = python("-m", "linne", "evaluate", bundle, "digits", "--trust-code")
    assert evaluated.returncode == 0, evaluated.stderr
    image = next((tmp_path / "run/bundle/canaries").glob("*.png"))
    predicted = python("-m", "linne", "predict", bundle, image, "--trust-code")
    assert predicted.returncode == 0, predicted.stderr


@pytest.fixture(scope="module")
def bundle(python, tmp_path_factory):
    """Return a trained bundle of the user's own network."""
    run = tmp_path_factory.mktemp("trained") / "run"
    words = ("--model", MODEL, "--epochs", "1", "--output", run, "--trust-code", "--quiet")
    trained = python("-m", "linne", "train", "digits", *words)
    assert trained.returncode == 0, trained.stderr
    return run / "bundle"


def refused_and_taken(python, *words):
    """Return what was printed with `--trust-code`, and make sure that nothing is run without."""
    refused = python("-m", "linne", *words)
    assert refused.returncode != 0
    said = refused.stderr + refused.stdout
    assert f"`{MODEL}` is Python that would be run, and nobody said that it is trusted" in said
    assert "read it, and type `--trust-code` if you trust it" in said
    taken = python("-m", "linne", *words, "--trust-code")
    assert taken.returncode == 0, taken.stderr
    return taken.stdout


def test_a_sweep_trains_it_where_the_call_says_so(python, tmp_path):
    words = ("--model", MODEL, "--epochs", "1", "--trials", "1", "--output", tmp_path / "sweep", "--json")
    found = json.loads(refused_and_taken(python, "sweep", "digits", *words))
    assert found["trials"][0]["state"] == "finished"
    kept = (tmp_path / "sweep" / "sweep.json").read_text("utf-8")
    assert "trust" not in kept, "a folder that is shared must not say what may be run"


def test_it_teaches(python, bundle, tmp_path):
    words = ("--epochs", "1", "--set", f"distill.bundle={bundle}", "--output", tmp_path / "run", "--quiet")
    assert refused_and_taken(python, "train", "digits", *words) == f"{tmp_path / 'run' / 'bundle'}\n"


def test_its_weights_are_imported_and_used_by_its_name(python, bundle, tmp_path):
    refused_and_taken(python, "import", bundle, "--model", MODEL, "--output", tmp_path / "imported", "--unproved")
    image = bundle / "canaries" / "0.png"
    words = ("predict", "--model", MODEL, "--weights", bundle, image, "--json")
    by_name = json.loads(refused_and_taken(python, *words))
    straight = python("-m", "linne", "predict", bundle, image, "--trust-code", "--json")
    assert by_name == json.loads(straight.stdout)


def test_the_doctor_replays_it(python, bundle):
    refused = python("-m", "linne", "doctor", bundle, "--device", "cpu", "--json")
    taken = python("-m", "linne", "doctor", bundle, "--device", "cpu", "--json", "--trust-code")
    for ended, status in ((refused, "bad"), (taken, "good")):
        sections = {section["title"]: section for section in json.loads(ended.stdout)["sections"]}
        (answers,) = [check for check in sections["Bundle"]["checks"] if check["name"].startswith("Answers")]
        assert answers["status"] == status
