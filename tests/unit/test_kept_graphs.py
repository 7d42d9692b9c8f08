"""A graph that ONNX Runtime rewrote is kept, checked before it is used, and never missed when it is not there."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs `linne[onnx]`")
pytest.importorskip("onnxruntime", reason="needs `linne[onnx]`")

from fixtures.graphs import write_graph_bundle

from linne.bundle import Bundle, open_bundle
from linne.errors import BundleError
from linne.graphs import kept
from linne.graphs.kept import FACTS, LEAST_BYTES, KeptGraph, likely_files
from linne.hash_ahead import HashAhead
from linne.inference.backends.base import RunOptions
from linne.inference.predictor import Predictor
from linne.preprocess import InputSpec

SPEC = InputSpec(
    channels=3, height=128, width=128, mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear", crop_pct=1.0
)
LABELS = tuple(f"class {i}" for i in range(300))
CPU = RunOptions(device="cpu")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A graph that is just large enough."""
    made = write_graph_bundle(tmp_path_factory.mktemp("kept") / "bundle", LABELS, SPEC)
    assert made.files["model.onnx"]["size_bytes"] >= LEAST_BYTES
    return made


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LINNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "graphs"


def predictor(bundle: Bundle, how: RunOptions = CPU) -> Predictor:
    """Return one that checks the file that it runs, and no other."""
    return Predictor.open(open_bundle(bundle.path, ahead=HashAhead(list)), backend="onnxruntime", how=how)


def place(bundle: Bundle) -> Path:
    return KeptGraph(bundle.files["model.onnx"]["sha256"]).folder


def damage(path: Path) -> bytes:
    """Change a byte in the middle of a file, and return what was in it."""
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    return content


def test_a_kept_graph_answers_to_the_last_bit_as_the_graph(bundle: Bundle, cache: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    first = predictor(bundle).logits([image])
    assert [entry.name for entry in cache.iterdir()] == [place(bundle).name]
    assert np.array_equal(predictor(bundle).logits([image]), first)


def test_the_kept_graph_is_what_runs_and_a_damaged_one_is_not(bundle: Bundle) -> None:
    predictor(bundle)
    graph = bundle.path / "model.onnx"
    whole = damage(graph)
    try:
        predictor(bundle)  # does not read it
        damage(place(bundle) / "model.onnx")
        with pytest.raises(BundleError, match=r"`model.onnx` was altered or damaged"):
            predictor(bundle)  # goes back to it
    finally:
        graph.write_bytes(whole)
    predictor(bundle)
    facts = json.loads((place(bundle) / FACTS).read_text())  # kept anew
    assert KeptGraph(facts["of"]).find(facts["runtime"]) == place(bundle) / "model.onnx"


def test_what_another_version_wrote_is_written_anew(bundle: Bundle) -> None:
    predictor(bundle)
    path = place(bundle) / FACTS
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "runtime": "0.1"}))
    predictor(bundle)
    assert json.loads(path.read_text()) == facts


@pytest.mark.parametrize("facts", ["", "[]", '{"runtime": "1"}', '{"runtime": "1", "file": 3}'])
def test_facts_that_make_no_sense_are_as_none(bundle: Bundle, facts: str) -> None:
    keep = KeptGraph(bundle.files["model.onnx"]["sha256"])
    with keep.written("1") as path:
        path.write_bytes(b"graph")
    assert keep.find("1") == keep.folder / "model.onnx"
    (keep.folder / FACTS).write_text(facts)
    assert keep.find("1") is None


def test_what_was_kept_of_another_graph_is_not_taken_for_this_one() -> None:
    one, other = KeptGraph("1"), KeptGraph("2")
    with one.written("1") as path:
        path.write_bytes(b"graph")
    one.folder.rename(other.folder)
    assert other.find("1") is None


def test_what_turns_out_wrong_as_it_is_written_is_not_kept(cache: Path) -> None:
    def write_and_doubt() -> None:
        with KeptGraph("1").written("1") as path:
            path.write_bytes(b"graph")
            raise BundleError("it answers otherwise")

    with pytest.raises(BundleError):
        write_and_doubt()
    assert list(cache.iterdir()) == []


def test_where_nothing_can_be_kept_the_graph_runs_all_the_same(bundle: Bundle, cache: Path) -> None:
    cache.parent.write_text("not a folder")
    predictor(bundle)
    assert cache.parent.read_text() == "not a folder"


def test_other_ways_to_rewrite_it_keep_nothing(bundle: Bundle, cache: Path) -> None:
    predictor(bundle, RunOptions(device="cpu", options={"optimise": "basic"}))
    assert not cache.exists()


def test_a_small_graph_is_not_worth_keeping(tmp_path: Path, cache: Path) -> None:
    small = dataclasses.replace(SPEC, height=8, width=8)
    predictor(write_graph_bundle(tmp_path / "small", ("cat", "dog"), small))
    assert not cache.exists()


def test_what_was_not_used_for_longest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "ALL_BYTES", 1500)  # two of three, with what is said of each
    keeps = [KeptGraph(f"{i}") for i in range(3)]
    for i, keep in enumerate(keeps):
        with keep.written("1") as path:
            path.write_bytes(b"." * 400)
        os.utime(keep.folder, (i, i))
    assert [keep.folder.exists() for keep in keeps] == [False, True, True]


def test_what_a_killed_process_left_is_removed_after_a_day(cache: Path) -> None:
    old, young = cache / "a.partial", cache / "b.partial"
    for left in (old, young):
        left.mkdir(parents=True)
    os.utime(old, (0, 0))
    with KeptGraph("0").written("1") as path:
        path.write_bytes(b"graph")
    assert not old.exists()
    assert young.exists()


def test_what_is_hashed_ahead_is_what_will_run(bundle: Bundle) -> None:
    assert likely_files(bundle.path, "fp32") == [bundle.path / "model.onnx"]
    predictor(bundle)
    assert likely_files(bundle.path, "fp32") == [place(bundle) / "model.onnx"]
    with pytest.raises(BundleError):
        likely_files(bundle.path, "int8")
