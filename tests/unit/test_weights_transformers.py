"""Classifiers of transformers, saved by it, are used and imported by their folder alone."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs `linne[train]`")
transformers = pytest.importorskip("transformers", reason="needs `linne[hf]`")

import linne  # noqa: E402
from linne import models  # noqa: E402
from linne.weights import fit_weights, read_weights  # noqa: E402
from linne.weights.answers import FOLDER  # noqa: E402

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny ViT as `save_pretrained` writes it, which uses other names than the network in memory."""
    torch.manual_seed(0)
    names = {0: "cat", 1: "cup", 2: "rocket"}
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.ViTConfig(
        **sizes, image_size=64, patch_size=8, id2label=names, label2id={name: k for k, name in names.items()}
    )
    folder = tmp_path_factory.mktemp("vit")
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def test_a_folder_answers_as_transformers_does(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LINNE_CACHE", str(tmp_path))
    (answer,) = linne.predict(f"hf:{folder}", FOLDER / "cat.jpg", top=3)
    classify = transformers.pipeline("image-classification", model=str(folder))
    expected = {row["label"]: row["score"] for row in classify(str(FOLDER / "cat.jpg"))}
    # Decoding at a reduced size is half a level of 255 away on average.
    found = dict(zip(answer.labels, answer.probabilities, strict=True))
    assert found == pytest.approx(expected, abs=0.01)


def test_an_import_needs_nothing_but_the_folder(folder, tmp_path):
    imported = linne.import_weights(folder, tmp_path / "bundle", quiet=True)
    assert imported.bundle.labels == ("cat", "cup", "rocket")
    assert (imported.bundle.input.height, imported.bundle.input.crop_mode) == (64, "squash")
    assert not imported.fit.fresh


def test_another_size_and_other_classes_adapt_positions_and_leave_a_classifier(folder):
    ref = models.describe(f"hf:{folder}", num_classes=5, channels=3, height=32, width=32)
    fit = fit_weights(models.build(ref), read_weights(folder), full_name=f"hf:{folder}")
    assert set(fit.fresh) == {"classifier.weight", "classifier.bias"}
    assert len(fit.adapted) == 1
    assert "position_embeddings" in fit.adapted[0]
