"""Train, evaluate and predict from every way of naming one's images: the same pictures as folder, list, shards, ..."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import linne
from linne.cli import cli
from linne.errors import RecipeError, SourceError

pytestmark = pytest.mark.long

LABELS = ("dark", "light")
FAST = {"optim.epochs": 1, "data.batch_size": 16, "device.precision": "fp32", "device.num_threads": 1}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LINNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Two classes of 40 photographs of many sizes, four of each patient."""
    draw, root = np.random.default_rng(0), tmp_path_factory.mktemp("photos")
    for k, label in enumerate(LABELS):
        (root / label).mkdir()
        for number in range(40):
            size = draw.integers(12, 30, 2)
            pixels = draw.integers(0, 90, (*size, 3)) + 150 * k
            Image.fromarray(pixels.astype(np.uint8)).save(root / label / f"p{number // 4}-{number % 4}.jpg", quality=95)
    return root


def as_list(photos: Path) -> str:
    rows = [f"{photo.parent.name}/{photo.name},{photo.parent.name}" for photo in sorted(photos.glob("*/*.jpg"))]
    (photos / "all.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    return str(photos / "all.csv")


def as_shard(photos: Path) -> str:
    with tarfile.open(photos / "all.tar", "w") as tar:
        for photo in sorted(photos.glob("*/*.jpg")):
            key = f"{photo.parent.name}-{photo.stem}"
            tar.add(photo, f"{key}.jpg")
            (photos / "label").write_text(photo.parent.name)
            tar.add(photos / "label", f"{key}.cls")
    (photos / "label").unlink()
    return str(photos / "all.tar")


def as_dataset(photos: Path) -> str:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=LABELS)})
    paths = sorted(photos.glob("*/*.jpg"))
    columns = {"image": [str(path) for path in paths], "label": [LABELS.index(path.parent.name) for path in paths]}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk("saved")
    return "hf:saved"


def as_pack(photos: Path) -> str:
    assert cli.main(["data", "pack", str(photos), "packed", "--size", "16"], standalone_mode=False) in (None, 0)
    return "packed"


@pytest.mark.parametrize(
    ("name_of", "loader"),
    [
        (str, "streaming"),
        (as_list, "resident"),
        (as_shard, "streaming"),
        (as_dataset, "resident"),
        (as_pack, "streaming"),
    ],
)
def test_the_same_images_train_and_evaluate_however_they_are_named(photos, name_of, loader):
    name = name_of(photos)
    result = linne.train(name, output="run", quiet=True, overrides={**FAST, "data.loader": loader})
    assert result.report is not None
    assert result.report.accuracy >= 0.9, "one class is dark, the other light"
    assert result.report.num_examples == 12, "15 % of 40 a class"
    again = linne.evaluate(result.bundle, name, quiet=True)
    assert again.to_dict() | {"bundle": ""} == result.report.to_dict() | {"bundle": ""}
    written = json.loads((result.run / "recipe.json").read_text())
    provenance = linne.open_bundle(result.bundle).provenance
    assert written["source"]["splits_sha256"] == provenance["source"]["splits_sha256"]
    assert len(written["source"]["splits_sha256"]) == 64


def test_arrays_of_a_program_train_and_evaluate():
    draw = np.random.default_rng(0)
    images = np.concatenate(
        [draw.integers(0, 90, (60, 12, 12), np.uint8), draw.integers(150, 255, (60, 12, 12), np.uint8)]
    )
    labels = ["dark"] * 60 + ["light"] * 60
    source = linne.from_arrays(images, labels)
    result = linne.train(source, output="run", quiet=True, overrides={**FAST, "optim.epochs": 4})
    assert result.report.accuracy >= 0.9
    assert linne.evaluate(result.bundle, source, quiet=True).accuracy == result.report.accuracy


def test_a_run_splits_by_group_and_its_evaluation_does_so_too(photos):
    overrides = {**FAST, "data.group_by": r"(p\d+)-"}
    result = linne.train(str(photos), output="run", quiet=True, overrides=overrides)
    manifest = json.loads((result.run / "splits.json").read_text())["splits"]
    patients = {
        split: {label + "/" + name.split("/")[1].split("-")[0] for label, names in classes.items() for name in names}
        for split, classes in manifest.items()
    }
    assert not patients["train"] & patients["test"]
    assert not patients["train"] & patients["val"]
    repeated = linne.train(recipe=str(result.run / "recipe.json"), output="again", quiet=True)
    assert repeated.report.loss == result.report.loss
    assert (repeated.run / "splits.json").read_bytes() == (result.run / "splits.json").read_bytes()
    (result.run / "splits.json").unlink()
    again = linne.evaluate(result.bundle, str(photos), quiet=True)
    assert again.accuracy == result.report.accuracy
    assert again.num_examples == result.report.num_examples


@pytest.mark.parametrize("name", [lambda photos: str(shutil.copytree(photos, "own")), as_dataset])
def test_a_source_whose_images_changed_is_pointed_out_by_evaluate(photos, name, capfd):
    typed = name(photos)
    result = linne.train(typed, output="run", quiet=True, overrides=FAST)
    said = "warning: the source is not what the bundle was trained beside: images, labels or splits have changed"
    linne.evaluate(result.bundle, typed)
    assert said not in capfd.readouterr().err
    if typed == "own":
        shutil.copy("own/dark/p1-1.jpg", "own/dark/p0-0.jpg")
    else:  # the same rows in another order: each image has another's name
        datasets = pytest.importorskip("datasets")
        rows = datasets.load_from_disk("saved").select([*range(39, -1, -1), *range(79, 39, -1)])
        rows.save_to_disk("turned")
        shutil.rmtree("saved")
        Path("turned").rename("saved")
    linne.evaluate(result.bundle, typed)
    assert said in capfd.readouterr().err


def test_a_splits_file_decides_and_is_recorded(photos):
    assert cli.main(["data", "split", str(photos), "splits.json", "--seed", "7"], standalone_mode=False) in (None, 0)
    overrides = {**FAST, "data.splits_file": "splits.json"}
    result = linne.train(str(photos), output="run", quiet=True, overrides=overrides)
    assert (result.run / "splits.json").read_bytes() == Path("splits.json").read_bytes()


def test_a_bundle_that_was_moved_is_tested_by_the_split_file_it_was_trained_by(photos, capfd):
    linne.split_data(str(photos), "seven.json", split_seed=7)
    result = linne.train(str(photos), output="run", quiet=True, overrides={**FAST, "data.splits_file": "seven.json"})
    shutil.copytree(result.bundle, "elsewhere/bundle")
    linne.evaluate("elsewhere/bundle", str(photos))
    assert "splits as in `seven.json`: train 62, val 6, test 12" in capfd.readouterr().err
    Path("seven.json").unlink()
    with pytest.raises(SourceError) as refused:
        linne.evaluate("elsewhere/bundle", str(photos), quiet=True)
    found = f"was trained by the split file `seven.json`, which does not know `{photos}` or is not here"
    assert refused.value.message == f"the bundle {found}"
    assert refused.value.hint == "the run that made the bundle has a copy: `--splits-file RUN/splits.json`"
    again = linne.evaluate("elsewhere/bundle", str(photos), splits_file="run/splits.json", quiet=True)
    assert again.accuracy_interval == result.report.accuracy_interval


@pytest.mark.parametrize(
    "how", [{"data.quarantine": "left-out.json"}, {"data.group_by": r"(p\d+)-"}, {"data.folds": 3, "data.fold": 1}]
)
def test_what_was_asked_of_the_images_that_trained_is_not_asked_of_others(photos, how):
    left_out = {"format": 1, "images": {"dark/p0-0.jpg": "blurred"}}
    Path("left-out.json").write_text(json.dumps(left_out))
    result = linne.train(str(photos), output="run", quiet=True, overrides={**FAST, **how})
    for split in ("train", "val", "test"):
        for number, photo in enumerate(sorted(photos.glob("*/*.jpg"))):
            (Path("others") / split / photo.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(photo, Path("others") / split / photo.parent.name / f"new{number}.jpg")
    assert linne.evaluate(result.bundle, "others", quiet=True).num_examples == 80


def test_a_quarantine_list_may_grow_without_moving_images_in_memory_to_another_split():
    source = "synthetic:classes=2,size=8,count=80"
    Path("left-out.json").write_text(json.dumps({"format": 1, "images": {"synthetic[0]": "odd"}}))
    result = linne.train(source, output="run", quiet=True, overrides={**FAST, "data.quarantine": "left-out.json"})
    more = {f"synthetic[{number}]": "odd" for number in range(40)}
    Path("left-out.json").write_text(json.dumps({"format": 1, "images": more}))
    again = linne.evaluate(result.bundle, source, quiet=True)
    assert again.num_examples == result.report.num_examples
    assert again.loss == result.report.loss


@pytest.mark.parametrize("name", ["Screenshot 9.41\u202fPM {}.jpg", "cafe\u0301 {}.jpg"])
def test_a_run_knows_its_images_by_names_that_are_respelt_in_its_list(photos, name):
    from linne.data import knows_most_of, save_manifest

    for number, photo in enumerate(sorted(photos.glob("*/*.jpg"))):
        (Path("odd") / photo.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, Path("odd") / photo.parent.name / name.format(number))
    save_manifest(linne.open_source("odd"), Path("splits.json"))
    listed = Path("splits.json").read_text().replace("e\\u0301", "\\u00e9")  # as a copy by another system would be
    Path("splits.json").write_text(listed)
    assert knows_most_of(Path("splits.json"), "odd")
    assert not knows_most_of(Path("splits.json"), str(photos))


def test_what_is_in_quarantine_is_neither_learnt_nor_scored(photos):
    from linne.data.quarantine import save_quarantine

    source = linne.open_source(str(photos))
    names = [source.splits["test"].example_name(0), source.splits["train"].example_name(0)]
    reasons = dict.fromkeys(names, "blurred")
    save_quarantine(Path("left-out.json"), reasons, source=source.name, fingerprint=source.fingerprint)
    result = linne.train(str(photos), output="run", quiet=True, overrides={**FAST, "data.quarantine": "left-out.json"})
    listed = (result.run / "splits.json").read_text()
    assert not any(name in listed for name in names)
    notes = json.loads((result.run / "recipe.json").read_text())["source"]["notes"]
    assert "left out 2 images on the quarantine list" in notes


def test_a_leak_is_pointed_out_before_the_first_step(photos, tmp_path, capfd):
    for split in ("train", "val"):
        shutil.copytree(
            photos, tmp_path / "leaky" / split, ignore=lambda folder, names: [n for n in names if "all" in n]
        )
    result = linne.train("leaky", output="run", overrides=FAST)
    said = "80 images in more than one split: `train/dark/p0-0.jpg = val/dark/p0-0.jpg`"
    assert f"warning: {said}" in capfd.readouterr().err
    assert json.loads((result.run / "recipe.json").read_text())["source"]["warnings"][0].startswith(said)


@pytest.mark.parametrize("loader", ["resident", "streaming"])
def test_a_validation_split_that_cannot_be_read_stops_the_run_in_its_first_epoch(photos, loader):
    for split in ("train", "val"):
        shutil.copytree(photos, f"set/{split}", ignore=lambda folder, names: [n for n in names if "all" in n])
    for photo in Path("set/val").glob("*/*.jpg"):
        photo.write_bytes(b"\xff\xd8\xff and no more")
    overrides = {**FAST, "optim.epochs": 50, "data.loader": loader, "data.max_bad_images": 100}
    with pytest.raises(SourceError) as refused:
        linne.train("set", output="run", quiet=True, overrides=overrides)
    assert refused.value.message == "none of the 80 images of split `val` can be read: no epoch is better than another"
    assert refused.value.hint == "replace them, or take that split out of the source"
    assert not Path("run/bundle").exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"data.folds": 5}, "folds is 5 and fold is none; expected both or neither"),
        ({"data.fold": 2}, "folds is none and fold is 2; expected both or neither"),
        ({"data.folds": 3, "data.fold": 4}, "fold is 4, expected 1 to 3"),
    ],
)
def test_folds_that_do_not_go_together_are_refused(photos, overrides, said):
    with pytest.raises(RecipeError, match=said):
        linne.train(str(photos), quiet=True, overrides=overrides)
    assert not Path("runs").exists()


def test_a_list_that_is_not_there_is_named(photos):
    with pytest.raises(SourceError, match=r"no list `.*none\.csv`"):
        linne.train(str(photos / "none.csv"), quiet=True)
