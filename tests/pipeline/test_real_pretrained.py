"""Published weights on real photographs: what they are called, through every way that linne has to ask.

LINNE_TEST_DATA names a folder that holds `weights/mobilenet_v2-b0353104.pth`, which is torchvision's own file, and
`imagenet20/`: 20 photographs of ImageNet's classes, and `labels.csv` with the columns `file` and `index`.
"""

from __future__ import annotations

import csv
import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs `linne[train]`")

from PIL import Image  # noqa: E402

NAME = "torchvision/mobilenet_v2"
REAL = Path(os.environ.get("LINNE_TEST_DATA", ""))
PHOTOGRAPHS, WEIGHTS = REAL / "imagenet20", REAL / "weights" / "mobilenet_v2-b0353104.pth"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (PHOTOGRAPHS / "labels.csv").is_file() or not WEIGHTS.is_file(),
        reason=f"LINNE_TEST_DATA does not name a folder with imagenet20/labels.csv and weights/{WEIGHTS.name}",
    ),
]


@pytest.fixture(scope="module")
def linne(python, tmp_path_factory):
    """Run `linne` with some words and return what it printed, read as JSON."""
    folder = tmp_path_factory.mktemp("asked")

    def run(*words):
        done = python("-m", "linne", *words, "--json", cwd=folder)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="module")
def truth():
    """Return the index of what is on each photograph, by file."""
    with (PHOTOGRAPHS / "labels.csv").open(newline="") as file:
        return {row["file"]: int(row["index"]) for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def names():
    """Return what torchvision calls ImageNet's classes."""
    from torchvision.models import MobileNet_V2_Weights

    return MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"]


@pytest.fixture(scope="module")
def source(truth, names, tmp_path_factory):
    """Return the photographs as a list of files with labels."""
    place = tmp_path_factory.mktemp("source") / "photographs.csv"
    with place.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *((name, names[index]) for name, index in truth.items())])
    return f"list:{place}?images={PHOTOGRAPHS}"


@pytest.fixture(scope="module")
def imported(linne, tmp_path_factory):
    """Return the bundle that `linne import` makes of the file."""
    place = tmp_path_factory.mktemp("imported") / "bundle"
    linne("import", WEIGHTS, "--model", NAME, "--output", place)
    return place


@pytest.fixture(scope="module")
def answers(linne):
    """Return what `linne predict` answers with the file itself, with all probabilities by photograph."""
    said = linne("predict", "--model", NAME, "--weights", WEIGHTS, PHOTOGRAPHS, "--top", 1000)
    return {Path(row["file"]).name: row["predictions"] for row in said}


def test_eighteen_of_twenty_photographs_are_named_right_and_all_are_in_five(answers, truth, names):
    assert len(truth) == len(answers) == 20
    places = [
        [label["label"] for label in answers[file]].index(names[index]) for file, index in truth.items()
    ]  # the rank of what is on it
    assert sum(place == 0 for place in places) >= 18
    assert max(places) < 5


def test_evaluating_finds_as_many_right_as_predicting(linne, answers, source, truth, names):
    report = linne("evaluate", NAME, source, "--weights", WEIGHTS, "--split", "train")
    right = sum(answers[file][0]["label"] == names[index] for file, index in truth.items())
    assert report["num_examples"] == 20
    assert report["accuracy"] == pytest.approx(right / 20)
    assert report["top_k"]["5"] == 1.0


def test_an_imported_bundle_answers_the_same_as_the_file(linne, answers, imported, source):
    said = linne("predict", imported, PHOTOGRAPHS, "--top", 1000)
    assert {Path(row["file"]).name: row["predictions"] for row in said} == answers
    reports = [
        linne("evaluate", *words, "--split", "train")
        for words in ((NAME, source, "--weights", WEIGHTS), (imported, source))
    ]
    assert reports[0]["per_class"] == reports[1]["per_class"]
    assert reports[0]["loss"] == reports[1]["loss"]


def test_probabilities_are_those_of_torchvisions_own_network_and_transforms(answers, truth, names):
    from torchvision import models

    network = models.mobilenet_v2()
    network.load_state_dict(torch.load(WEIGHTS, weights_only=True))
    network.eval()
    prepare = models.MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
    for file in truth:
        with Image.open(PHOTOGRAPHS / file) as image, torch.inference_mode():
            theirs = network(prepare(image.convert("RGB"))[None]).softmax(1)[0].numpy()
        ours = {row["label"]: row["probability"] for row in answers[file]}
        # Both decode with libjpeg and resize in uint8 with rounding of their own: a level off here and there.
        assert ours[names[int(np.argmax(theirs))]] == pytest.approx(float(theirs.max()), abs=0.02)


def test_a_graph_of_it_with_imagenets_names_answers_the_same(linne, answers, truth, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs `linne[onnx]`")
    from torchvision import models

    network = models.mobilenet_v2()
    network.load_state_dict(torch.load(WEIGHTS, weights_only=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own way to export that needs no further package
        one = torch.zeros(1, 3, 224, 224)
        torch.onnx.export(network.eval(), (one,), tmp_path / "net.onnx", dynamo=False)
    words = ("--preprocess", "imagenet", "--preprocess", "interpolation=bilinear", "--preprocess", "crop_pct=0.875")
    made = linne("import", tmp_path / "net.onnx", "--labels", "imagenet", *words, "--output", tmp_path / "out")
    assert (made["labels_from"], made["proof"]["num_named"]) == ("ImageNet", 3)
    said = linne("predict", tmp_path / "out", PHOTOGRAPHS, "--top", 1)
    # The same numbers on another runtime; torchvision writes a few names otherwise, such as `crane bird`.
    for row in said:
        expected = answers[Path(row["file"]).name][0]["probability"]
        assert row["predictions"][0]["probability"] == pytest.approx(expected, abs=1e-3)
