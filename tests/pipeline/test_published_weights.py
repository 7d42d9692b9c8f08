"""Published weights, in the cache where their library keeps them, used by their name."""

from __future__ import annotations

import json
import os

import pytest

torch = pytest.importorskip("torch", reason="needs `linne[train]`")
timm = pytest.importorskip("timm", reason="needs `linne[train]`")

from safetensors.torch import save_file  # noqa: E402

from linne.models import load_provider  # noqa: E402
from linne.weights.answers import FOLDER, photographs  # noqa: E402
from linne.weights.finding import spec_of  # noqa: E402

pytestmark = pytest.mark.long

NAME, TAG = "resnet18", "a3_in1k"
CAT, ESPRESSO, MISSILE = 285, 967, 657


@pytest.fixture
def home(tmp_path):
    """Hugging Face's cache with a file of timm's a3_in1k, made for 160 pixels where the default's are 224."""
    offered = next(weights for weights in load_provider("timm").pretrained(NAME) if weights.tag == TAG)
    torch.manual_seed(0)
    network = timm.create_model(NAME).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean of all that is seen
    with torch.no_grad():
        network(torch.from_numpy(photographs(spec_of(offered.input))))
        network.fc.bias[[CAT, ESPRESSO, MISSILE]] += 1000.0  # among the first five of whatever it is shown
    folder = tmp_path / "hub" / f"models--timm--{NAME}.{TAG}"
    (folder / "snapshots" / "0123").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123", "utf-8")
    save_file(network.state_dict(), folder / "snapshots" / "0123" / "model.safetensors")
    return tmp_path


def test_weights_by_their_tag_are_prepared_for_labelled_and_licensed_as_published(home, python):
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    environment = {**inherited, "HF_HOME": str(home), "LINNE_CACHE": str(home / "linne"), "LINNE_OFFLINE": "1"}
    words = ["-m", "linne", "predict", f"timm/{NAME}.{TAG}", str(FOLDER / "cat.jpg"), "--top", "3", "--json"]
    ended = python(*words, env=environment, cwd=home)
    assert ended.returncode == 0, ended.stderr
    assert "licence of the weights: apache-2.0" in ended.stderr
    named = {row["label"] for row in json.loads(ended.stdout)[0]["predictions"]}
    assert named == {"Egyptian cat", "espresso", "missile"}
    (kept,) = (home / "linne" / "pretrained").iterdir()
    manifest = json.loads((kept / "bundle.json").read_text("utf-8"))
    assert manifest["input"]["height"] == 160
    assert manifest["provenance"]["imported"]["weights"] == f"timm/{NAME}.{TAG}"
