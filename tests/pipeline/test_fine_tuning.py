"""Training that starts from weights, from the command to the bundle and back."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs `linne[train]`")

import json  # noqa: E402
import shutil  # noqa: E402

import linne  # noqa: E402
from linne.bundle import open_bundle  # noqa: E402
from linne.bundle_format import seal  # noqa: E402
from linne.errors import RecipeError  # noqa: E402
from linne.models.from_bundle import network_of  # noqa: E402
from linne.weights import read_weights  # noqa: E402

pytestmark = pytest.mark.long

SOURCE = "synthetic:classes=3,size=16,count=120"
STILL = {"optim.lr": 1e-30, "optim.weight_decay": 0.0, "model.keep_statistics": True, "model.prove_weights": False}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run whose bundle is where others start from."""
    run = tmp_path_factory.mktemp("first") / "run"
    return linne.train(SOURCE, model="small", epochs=2, device="cpu", seed=0, output=run, quiet=True)


def tuned(first, output, source=SOURCE, **options):
    overrides = {**STILL, **options.pop("overrides", {})}
    options = {"epochs": 1, "device": "cpu", "quiet": True, "seed": 5, **options}
    return linne.train(source, model="small", weights=str(first.bundle), output=output, overrides=overrides, **options)


def test_with_the_same_labels_a_training_that_learns_nothing_answers_as_what_it_started_from(first, tmp_path):
    again = tuned(first, tmp_path / "run")
    assert again.report.accuracy == first.report.accuracy
    before, after = (network_of(open_bundle(result.bundle)).state_dict() for result in (first, again))
    # A step of 1e-30 changes no float32 of these sizes.
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_as_many_classes_of_other_names_get_a_classifier_of_their_own(first, tmp_path):
    source = linne.open_source(SOURCE)
    renamed = linne.from_arrays(
        *arrays(source, "train"), test=arrays(source, "test"), label_names=("x", "y", "z"), name="renamed"
    )
    again = tuned(first, tmp_path / "run", renamed)
    before, after = (network_of(open_bundle(result.bundle)).state_dict() for result in (first, again))
    other = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert other == {"head.weight", "head.bias"}


def test_a_classifier_of_the_same_classes_in_another_form_is_kept(first, tmp_path):
    source = linne.open_source(SOURCE)
    longer = tuple(f"{label}, as a longer text" for label in source.labels)
    renamed = linne.from_arrays(
        *arrays(source, "train"), test=arrays(source, "test"), label_names=longer, name="renamed"
    )
    again = tuned(first, tmp_path / "run", renamed)
    before, after = (network_of(open_bundle(result.bundle)).state_dict() for result in (first, again))
    assert torch.equal(before["head.weight"], after["head.weight"])
    assert open_bundle(again.bundle).labels == longer


def arrays(source, split):
    part = source.splits[split]
    return part.store.array[part.indices_N], part.labels_N


def test_the_run_says_which_weights_it_started_from_and_a_repeat_starts_from_the_same(first, tmp_path):
    again = tuned(first, tmp_path / "run", overrides={"optim.lr": 0.01})
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text("utf-8"))["recipe"]
    assert recipe["model"]["weights"] == str(first.bundle)
    assert len(recipe["model"]["weights_sha256"]) == 64
    repeat = linne.train(recipe=str(tmp_path / "run" / "recipe.json"), output=tmp_path / "repeat", quiet=True)
    one, two = (network_of(open_bundle(result.bundle)).state_dict() for result in (again, repeat))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_a_run_with_auxiliary_heads_leaves_an_ordinary_bundle(tmp_path):
    pytest.importorskip("torchvision", reason="needs `linne[train]`")
    overrides = {"model.aux_weight": 0.3, "data.batch_size": 16, "data.height": 32, "data.width": 32}
    options = {"model": "torchvision/googlenet", "epochs": 1, "device": "cpu", "quiet": True}
    source = "synthetic:classes=3,size=32,count=48"
    result = linne.train(source, overrides=overrides, output=tmp_path / "run", **options)
    bundle = open_bundle(result.bundle)
    assert bundle.model["options"] == {}
    assert not any(name.startswith("aux") for name in network_of(bundle).state_dict())
    assert result.report.num_examples > 0


def test_a_run_goes_on_without_the_weights_that_it_started_from(first, tmp_path):
    copy = tmp_path / "start"
    shutil.copytree(first.bundle, copy)
    options = {"model": "small", "device": "cpu", "quiet": True, "seed": 5, "output": tmp_path / "run"}
    overrides = {"model.prove_weights": False, "checkpoint.keep_after": True, "model.mixout": 0.2}
    linne.train(SOURCE, weights=str(copy), epochs=1, overrides=overrides, **options)
    shutil.rmtree(copy)
    more = linne.train(output=tmp_path / "run", resume=True, epochs=2, allow_change=["optim.epochs"], quiet=True)
    origin = open_bundle(more.bundle).provenance["started_from"]
    assert origin == {"weights": str(copy), "sha256": sha256_of_weights(first), "licence": None}
    assert f"`{copy}`, sha256 `{origin['sha256']}`, licence `not stated`" in (more.bundle / "README.md").read_text()


def sha256_of_weights(result):
    return open_bundle(result.bundle).files["model.safetensors"]["sha256"]


def test_a_licence_goes_on_with_the_weights_and_one_that_bars_commerce_is_pointed_out(first, tmp_path, capsys):
    copy = tmp_path / "imported"
    shutil.copytree(first.bundle, copy)
    manifest = json.loads((copy / "bundle.json").read_text("utf-8"))
    del manifest["checksum"]
    manifest["provenance"]["imported"] = {"weights": "somebody/net", "licence": "cc-by-nc-4.0"}
    (copy / "bundle.json").write_bytes(seal(manifest))
    options = {"model": "small", "epochs": 1, "device": "cpu", "overrides": STILL}
    result = linne.train(SOURCE, weights=str(copy), output=tmp_path / "run", **options)
    said = capsys.readouterr().err
    assert f"weights {copy} (licence: cc-by-nc-4.0)" in said
    assert "`cc-by-nc-4.0` allows no commercial use of these weights, nor perhaps of what is trained from them" in said
    assert open_bundle(result.bundle).provenance["started_from"]["licence"] == "cc-by-nc-4.0"
    assert read_weights(result.bundle).licence == "cc-by-nc-4.0"
    report = (tmp_path / "run" / "report.md").read_text("utf-8")
    assert "- starts from: " in report
    assert "imported (licence: cc-by-nc-4.0)" in report


def test_random_starts_and_pretrained_weights_exclude_each_other(first, tmp_path):
    with pytest.raises(RecipeError, match=r"model\.dirac is a start from random weights"):
        tuned(first, tmp_path / "run", overrides={"model.dirac": True})
