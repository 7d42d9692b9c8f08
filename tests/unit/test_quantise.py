"""int8 keeps its budget of accuracy, on images that it was not calibrated with, or is not written at all."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("onnx", reason="needs `linne[onnx]`")
pytest.importorskip("onnxruntime", reason="needs `linne[onnx]`")
pytest.importorskip("sklearn", reason="the scans of `digits` are scikit-learn's")

from fixtures.digit_graphs import SPEC, digits_graph, write_digits_bundle

import linne
from linne.bundle import Bundle
from linne.cli import cli
from linne.data import open_source
from linne.data.source import Source, Split, UInt8
from linne.errors import RecipeError, SourceError
from linne.exporting.calibration import Calibration, balanced, calibration_of, examples_of
from linne.exporting.int8_search import named
from linne.exporting.ranges import NUM_BINS, Tensors, entropy, histograms, min_max, percentile
from linne.exporting.to_int8 import Layer, layers_of, needs_reduced_range, prepared, quantised
from linne.exports import exports_of, open_export
from linne.graphs.session import GraphSession
from linne.trained_on import to_calibrate


@pytest.fixture(scope="module")
def plain() -> bytes:
    return digits_graph()


@pytest.fixture(scope="module")
def planted() -> bytes:
    return digits_graph(outlier_after="conv1")


@pytest.fixture(scope="module")
def source() -> Source:
    return open_source("digits")


@pytest.fixture(scope="module")
def calibration(source: Source, plain: bytes, tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    return calibration_of(write_digits_bundle(tmp_path_factory.mktemp("digits") / "bundle", plain), source, 100)


@pytest.fixture
def bundle(tmp_path: Path, plain: bytes) -> Bundle:
    return write_digits_bundle(tmp_path / "bundle", plain)


def facts(bundle: Bundle) -> Any:
    return open_export(bundle, "onnx", "int8").facts["quantisation"]


def test_int8_loses_half_a_point_at_most_is_a_quarter_as_large_and_runs(bundle: Bundle) -> None:
    exported = linne.export(bundle.path, "onnx", precision="int8", quiet=True)
    assert 100 * (bundle.path / "model.onnx").stat().st_size > 330 * exported.size_bytes
    (report,) = linne.verify(bundle.path, "digits", backend="onnxruntime", precision="int8", keep=False, quiet=True)
    assert report.passed
    assert report.reference_accuracy is not None
    assert report.reference_accuracy > 0.9
    assert report.drop is not None
    assert report.drop <= 0.005
    assert facts(bundle)["in_float"] == []
    assert facts(bundle)["method"] == "minmax"
    assert facts(bundle)["calibration"]["images"] == "500 images, 50 of each of 10 classes, split train of digits"
    assert facts(bundle)["verified"]["on"] == "136 images, split val of digits"


def test_every_layer_is_in_int8_with_a_scale_for_each_channel(plain: bytes, calibration: Calibration) -> None:
    import onnx
    from onnx import numpy_helper

    model = prepared(plain)
    layers = layers_of(model)
    assert [layer.name for layer in layers] == ["conv1", "conv2", "conv3", "linear"]
    assert [layer.macs for layer in layers] == [16 * 9 * 64, 16 * 16 * 9 * 64, 128 * 16 * 9 * 64, 20480]
    assert layers[2].nodes == ("conv3", "conv3_relu", "pool", "flatten")
    content = quantised(model, layers, min_max(Tensors(model, calibration)), in_float=(), reduce_range=False)
    stored = {item.name: numpy_helper.to_array(item) for item in onnx.load_model_from_string(content).graph.initializer}
    assert stored["conv3_weights_quantized"].dtype == np.int8
    assert np.abs(stored["conv3_weights_quantized"]).max() == 127
    assert stored["conv3_weights_scale"].shape == (128,)
    assert stored["conv3_out_zero_point"].dtype == np.uint8
    reduced = quantised(model, layers, min_max(Tensors(model, calibration)), in_float=(), reduce_range=True)
    stored = {item.name: numpy_helper.to_array(item) for item in onnx.load_model_from_string(reduced).graph.initializer}
    assert np.abs(stored["conv3_weights_quantized"]).max() == 64


def test_the_layers_that_cannot_stand_int8_are_found_and_stay_in_float(tmp_path: Path, planted: bytes) -> None:
    bundle = write_digits_bundle(tmp_path / "bundle", planted)
    result = CliRunner().invoke(cli, ["export", str(bundle.path), "--to", "onnx", "--precision", "int8"])
    assert result.exit_code == 0, result.output
    made = facts(bundle)
    assert made["in_float"] == ["conv1", "conv2"]
    gaps = made["logit_gap_alone"]
    assert sorted(gaps, key=lambda name: -gaps[name])[:2] in (["conv1", "conv2"], ["conv2", "conv1"])
    assert min(gaps["conv1"], gaps["conv2"]) > 5 * max(gaps["conv3"], gaps["linear"])
    assert [item["passed"] for item in made["tried"]][:3] == [False, False, False]
    assert made["work_in_float"] == pytest.approx((9_216 + 147_456) / 1_356_800)
    assert "how ranges are measured is not enough; each of 4 layers is quantised alone" in result.stderr
    assert result.stdout == f"{bundle.path}/exports/onnx-int8/model.onnx\n"


def test_a_layer_can_be_kept_in_float_by_name_or_pattern(tmp_path: Path, planted: bytes) -> None:
    bundle = write_digits_bundle(tmp_path / "bundle", planted)
    linne.export(bundle.path, "onnx", precision="int8", keep_float=["conv[12]"], quiet=True)
    assert facts(bundle)["in_float"] == ["conv1", "conv2"]
    assert len(facts(bundle)["tried"]) == 1


def test_a_budget_that_cannot_be_held_ends_in_exit_code_3_and_nothing_is_written(tmp_path: Path) -> None:
    """The layer before the outlier does most of the work, so that it may not stay in float."""
    bundle = write_digits_bundle(tmp_path / "bundle", digits_graph(outlier_after="conv3"))
    result = CliRunner().invoke(cli, ["export", str(bundle.path), "--to", "onnx", "--precision", "int8"])
    assert result.exit_code == 3
    assert (
        "int8 does not hold 0.5 points on 136 images, split val of digits (of so few not one may be lost)"
        in result.stderr
    )
    assert "minmax      0 in float (0 % of the work)" in result.stderr
    assert "--max-drop " in result.stderr
    assert "--keep-float NAME for layers you know; or --precision fp16" in result.stderr
    assert exports_of(bundle) == ()
    assert not list(bundle.path.glob("exports/*"))


def test_the_same_seed_makes_the_same_file(bundle: Bundle) -> None:
    def made() -> bytes:
        exported = linne.export(bundle.path, "onnx", precision="int8", replace=True, quiet=True)
        return exported.export.main_file.read_bytes()

    assert made() == made()


def test_calibration_takes_as_many_of_each_class_and_the_same_for_a_seed() -> None:
    labels_N = np.array([0] * 50 + [1] * 3 + [2] * 50)
    picked_N = balanced(labels_N, 30, seed=0)
    assert np.bincount(labels_N[picked_N]).tolist() == [14, 3, 13]
    assert len(set(picked_N.tolist())) == 30
    np.testing.assert_array_equal(picked_N, balanced(labels_N, 30, seed=0))
    assert (picked_N != balanced(labels_N, 30, seed=1)).any()
    assert sorted(balanced(labels_N, 1000, seed=0)) == list(range(103))


class Noting:
    """Images that remember which of them were read."""

    def __init__(self) -> None:
        self.array = None
        self.read: set[int] = set()

    def __len__(self) -> int:
        return 60

    def load(self, index: int) -> UInt8:
        self.read.add(index)
        return np.full((8, 8, 1), index, np.uint8)

    def name(self, index: int) -> str:
        return str(index)


def test_calibration_reads_the_training_split_alone_and_the_decision_the_validation_split(bundle: Bundle) -> None:
    store = Noting()
    parts = {"train": np.arange(0, 40), "val": np.arange(40, 50), "test": np.arange(50, 60)}
    labels_N = np.arange(60) % 10
    splits = {name: Split(name, store, at, labels_N[at]) for name, at in parts.items()}
    source = Source("noting", bundle.labels, splits, "", 1, (8, 8), True)
    assert len(calibration_of(bundle, source, 500)) == 40
    assert store.read == set(range(40))
    store.read.clear()
    for _ in examples_of(bundle, source).batches():
        pass
    assert store.read == set(range(40, 50))


def test_without_a_validation_split_training_images_decide_and_never_those_of_test(bundle: Bundle) -> None:
    store = Noting()
    labels_N = np.arange(60) % 10
    parts = {"train": np.arange(50), "test": np.arange(50, 60)}
    splits = {name: Split(name, store, at, labels_N[at]) for name, at in parts.items()}
    examples = examples_of(bundle, Source("noting", bundle.labels, splits, "", 1, (8, 8), True))
    assert examples.name == "50 images, split train of noting"
    assert len(list(examples.batches())) > 0
    assert store.read == set(range(50))


def test_images_of_other_classes_decide_by_their_answers(bundle: Bundle, source: Source) -> None:
    others = Source("others", tuple("abcdefghij"[::-1]), source.splits, "", 1, (8, 8), True)
    examples = examples_of(bundle, others)
    assert examples.name == "136 images, split val of others, whose classes are others"
    assert all(batch.labels_N is None for batch in examples.batches())


def test_a_bundle_that_does_not_say_what_it_was_trained_on_asks_for_images(bundle: Bundle) -> None:
    from dataclasses import replace

    with pytest.raises(RecipeError) as caught:
        to_calibrate(replace(bundle, provenance={}), None)
    assert caught.value.hint == "--calibrate SOURCE names images such as the network will see, a thousand or more"
    with pytest.raises(SourceError) as gone:
        to_calibrate(replace(bundle, provenance={"source": {"name": "/nowhere/photos"}}), None)
    assert gone.value.hint == "--calibrate SOURCE says where it is now"


def test_memory_holds_the_tensors_of_a_few_images_and_counts_that_do_not_grow(
    plain: bytes, calibration: Calibration
) -> None:
    limit = 1_000_000
    tensors = Tensors(prepared(plain), calibration, limit)
    held = [sum(tensor.nbytes for tensor in batch.values()) for batch in tensors]
    assert len(held) > 5
    assert max(held) <= limit
    whole = min_max(tensors)
    counts = histograms(tensors, whole)
    assert {len(row) for row in counts.values()} == {NUM_BINS}
    for name, (low, high) in min_max(Tensors(prepared(plain), calibration)).items():
        # Another batch size adds in another order.
        assert whole[name] == pytest.approx((low, high), rel=1e-4, abs=1e-4)


def test_a_graph_of_a_fixed_batch_is_measured_in_such_batches(plain: bytes, calibration: Calibration) -> None:
    fixed = min_max(Tensors(prepared(digits_graph(batch=7)), calibration))
    for name, (low, high) in min_max(Tensors(prepared(plain), calibration)).items():
        assert fixed[name] == pytest.approx((low, high), rel=1e-4, abs=1e-4)


def test_percentile_cuts_off_what_is_rare_and_entropy_what_costs_the_rest_its_levels() -> None:
    draw = np.random.default_rng(0)
    values = np.concatenate([np.maximum(draw.normal(0, 1, 1_000_000), 0), [40.0] * 5])
    whole = (0.0, 40.0)
    counts = np.histogram(values, NUM_BINS, whole)[0]
    low, high = percentile(whole, counts)
    assert low == 0
    assert 3.5 < high < 4.2  # 1 in 10,000 of a normal distribution is beyond 3.72
    low, high = entropy(whole, counts)
    assert low == 0
    assert 4 < high < 8


def test_evenly_spread_numbers_are_not_cut() -> None:
    counts = np.full(NUM_BINS, 100)
    assert entropy((-1.0, 1.0), counts) == (-1.0, 1.0)
    low, high = percentile((-1.0, 1.0), counts)
    assert (low, high) == pytest.approx((-1, 1), abs=2e-3)


@pytest.mark.parametrize(
    ("flags", "machine", "reduced", "why"),
    [
        ("avx2 avx512_vnni", "x86_64", False, "the processor has avx512_vnni"),
        ("avx2 avx_vnni", "AMD64", False, "the processor has avx_vnni"),
        ("avx2 avx512f", "x86_64", True, "the processor has no VNNI, whose sums would stick at 16 bits"),
        ("asimd", "aarch64", False, "aarch64 adds products of int8 in 32 bits"),
    ],
)
def test_weights_have_7_bits_where_sums_of_products_would_stick(
    tmp_path: Path, flags: str, machine: str, reduced: bool, why: str
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\n")
    assert needs_reduced_range(tmp_path / "cpuinfo", machine) == (reduced, why)


def test_a_system_that_does_not_say_gets_7_bits(tmp_path: Path) -> None:
    reduced, why = needs_reduced_range(tmp_path / "none", "x86_64")
    assert reduced
    assert why.startswith("the system does not say whether the processor has VNNI")


def test_a_layer_that_is_not_there_is_not_kept_in_float() -> None:
    layers = [Layer("conv1", "Conv", ("conv1",), 1), Layer("linear", "Gemm", ("linear",), 1)]
    with pytest.raises(RecipeError) as caught:
        named(layers, ["conv2"])
    assert caught.value.message == "no layer `conv2` in the graph"
    assert caught.value.hint == "did you mean `conv1`?"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calibrate": "digits"}, "`--calibrate` goes with `--precision int8`, not with fp32"),
        ({"max_drop": 0.1, "precision": "fp16"}, "`--max-drop` goes with `--precision int8`, not with fp16"),
        ({"keep_float": ["a"]}, "`--keep-float` goes with `--precision int8`, not with fp32"),
        ({"max_drop": 1.5, "precision": "int8"}, "max_drop is 1.5, expected a fraction from 0 to 1"),
        ({"calibration_images": 0, "precision": "int8"}, "calibration_images is 0, expected 1 or more"),
    ],
)
def test_what_is_said_of_int8_is_for_int8(bundle: Bundle, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        linne.export(bundle.path, "onnx", quiet=True, **options)
    assert caught.value.message == message


def test_pixels_can_go_into_an_int8_graph(bundle: Bundle) -> None:
    exported = linne.export(bundle.path, "onnx", precision="int8", bake_preprocessing=True, quiet=True)
    assert exported.export.name == "onnx-pixels-int8"
    pixels = np.random.default_rng(0).integers(0, 256, (2, SPEC.height, SPEC.width, 1), dtype=np.uint8)
    assert GraphSession(exported.export.main_file, "pixels").run(pixels).shape == (2, 10)


def test_what_the_result_says_is_json(bundle: Bundle) -> None:
    exported = linne.export(bundle.path, "onnx", precision="int8", max_drop=0.02, calibration_images=64, quiet=True)
    said = json.loads(json.dumps(exported.to_dict()))
    assert said["facts"]["quantisation"]["weight_bits"] in (7, 8)
    assert sum(said["facts"]["quantisation"]["calibration"]["num_by_class"].values()) == 64


def test_a_source_that_is_not_there_is_missed_at_once(bundle: Bundle) -> None:
    with pytest.raises(SourceError, match="/nowhere/photos"):
        linne.export(bundle.path, "onnx", precision="int8", calibrate="/nowhere/photos", quiet=True)


def test_int8_can_be_made_in_a_process_that_has_made_fp16_before(bundle: Bundle) -> None:
    path = list(sys.path)
    linne.export(bundle.path, "onnx", precision="fp16", quiet=True)
    linne.export(bundle.path, "onnx", precision="int8", quiet=True)
    assert sys.path == path, "where ONNX Runtime's tools lie is nobody else's concern"
