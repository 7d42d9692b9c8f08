"""`linne verify` finds what makes a deployed model answer otherwise than the one that was trained, and says where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from fixtures.graphs import write_graph_bundle
from PIL import Image

import linne
from linne.bundle import Bundle, open_bundle
from linne.bundle_format import GRAPH
from linne.cli import cli
from linne.errors import DeviceError, LinneError, SourceError
from linne.exports import Precision, write_export
from linne.graphs.openvino_model import to_ir
from linne.inference.backends import load_backend
from linne.inference.backends.base import RunOptions
from linne.inference.predictor import Predictor
from linne.metrics import paired_interval
from linne.preprocess import InputSpec
from linne.verifying import Reference, compare, reference_of
from linne.verifying.examples import of_bundle, spread
from linne.verifying.layers import first_missing

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import helper, numpy_helper  # noqa: E402

LABELS = ("ant", "bee", "cow", "dog", "elk")
SPEC = InputSpec(
    channels=3,
    height=16,
    width=20,
    mean=(0.5, 0.45, 0.4),
    std=(0.25, 0.24, 0.28),
    interpolation="bicubic",
    crop_pct=0.8,
)
Plant = Callable[[Any], None]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_graph_bundle(tmp_path / "bundle", LABELS, SPEC)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Forty images in a folder a class, named by what the bundle's own graph calls them."""
    draw, folder = np.random.default_rng(5), tmp_path / "photos"
    predictor = Predictor.open(write_graph_bundle(tmp_path / "other", LABELS, SPEC))
    for number in range(40):
        coarse = draw.integers(0, 256, (3, 3, 3)).astype(np.uint8)
        image = np.asarray(Image.fromarray(coarse).resize((40, 32), Image.Resampling.BICUBIC))
        label = LABELS[int(predictor.logits([image])[0].argmax())]
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / label / f"{number}.png")
    return folder


def export(bundle: Bundle, plant: Plant, precision: Precision = "fp16") -> None:
    """Keep the bundle's graph, changed by `plant`, as an export of it; every hash and canary fits."""
    model = onnx.load(bundle.path / GRAPH)
    plant(model)

    def fill(folder: Path) -> str:
        onnx.save(model, folder / "model.onnx")
        return "model.onnx"

    def answers(path: Path) -> Any:
        from linne.bundle import canary_batch
        from linne.graphs.session import GraphSession

        return np.nan_to_num(GraphSession(path, "planted").run(canary_batch(SPEC)), posinf=0, neginf=0)

    write_export(bundle, "onnx", precision, fill=fill, canary_logits=answers, facts={})


def verify(bundle: Bundle, **options: Any) -> Any:
    (report,) = linne.verify(bundle.path, quiet=True, **{"backend": "onnxruntime", "precision": "fp16", **options})
    return report


def weights(model: Any, name: str) -> Any:
    return next(item for item in model.graph.initializer if item.name == name)


def change(model: Any, name: str, alter: Callable[[Any], Any]) -> None:
    item = weights(model, name)
    item.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(alter(numpy_helper.to_array(item).copy())), name))


def nothing(model: Any) -> None:
    pass


def blue_first(model: Any) -> None:
    change(model, "filters", lambda filters: filters[:, ::-1])


def another_mean(model: Any) -> None:
    """As a graph with normalisation inside does that has ImageNet's mean: pixels shifted by 0.015 to 0.05 of 1."""
    shift = np.array([0.015, 0.006, -0.006], np.float32).reshape(1, 3, 1, 1) / np.array(SPEC.std).reshape(1, 3, 1, 1)
    model.graph.initializer.append(numpy_helper.from_array(shift.astype(np.float32), "shift"))
    model.graph.node[0].input[0] = "shifted"
    model.graph.node.insert(0, helper.make_node("Add", ["pixels", "shift"], ["shifted"]))


def classes_reversed(model: Any) -> None:
    change(model, "linear", lambda linear: linear[:, ::-1])


def labels_transposed(model: Any) -> None:
    """Two classes exchanged, as where a mapping was written the wrong way round."""
    change(model, "linear", lambda linear: linear[:, [1, 0, 2, 3, 4]])


def one_sign(model: Any) -> None:
    def flip(filters: Any) -> Any:
        place = np.unravel_index(np.abs(filters).argmax(), filters.shape)
        filters[place] = -filters[place]
        return filters

    change(model, "filters", flip)


def stale_fold(model: Any) -> None:
    """A batch norm folded into the convolution before training was over: each filter a few hundredths off."""
    change(
        model, "filters", lambda filters: filters * np.array([1.03, 0.98, 1.0, 1.05], np.float32)[:, None, None, None]
    )


def overflow(model: Any) -> None:
    """Activations beyond 65,504, the largest number of fp16, in fp16: infinite, or cut off as some devices do.

    On a CPU ONNX Runtime computes fp16 in fp32, so the cut is written out.
    """
    scale = numpy_helper.from_array(np.array(30_000, np.float32), "scale")
    back = numpy_helper.from_array(np.array(1 / 30_000, np.float32), "back")
    most = numpy_helper.from_array(np.array(np.inf, np.float32), "most")
    limit = numpy_helper.from_array(np.array(65_504, np.float32), "limit")
    model.graph.initializer.extend([scale, back, most, limit])
    place = next(k for k, node in enumerate(model.graph.node) if node.op_type == "Relu")
    model.graph.node[place].output[0] = "positive before"
    steps = [
        helper.make_node("Mul", ["positive before", "scale"], ["large"]),
        helper.make_node("Greater", ["large", "limit"], ["over"]),
        helper.make_node("Where", ["over", "most", "large"], ["half"]),
        helper.make_node("Mul", ["half", "back"], ["positive"]),
    ]
    for number, step in enumerate(steps):
        model.graph.node.insert(place + 1 + number, step)


FAULTS: dict[str, Plant] = {
    "BGR for RGB": blue_first,
    "another mean": another_mean,
    "classes in another order": classes_reversed,
    "two labels exchanged": labels_transposed,
    "one weight with another sign": one_sign,
    "a stale fold of a batch norm": stale_fold,
    "overflow in fp16": overflow,
}


def test_the_same_graph_passes_on_images_and_keeps_the_result(bundle: Bundle, photos: Path) -> None:
    export(bundle, nothing)
    report = verify(bundle, source=str(photos), max_images=None, split="train")
    assert report.passed, report.problems
    assert report.num_agree == report.num_images > 20
    assert report.accuracy == report.reference_accuracy == 1.0
    assert report.worst_gap <= 1e-4
    kept = open_bundle(bundle.path).metrics["verified"]["onnxruntime fp16 on cpu"]
    assert kept["passed"] is True
    assert "| `onnxruntime fp16 on cpu` | passed | 100.00 % | +0.00 |" in (bundle.path / "README.md").read_text()


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_planted_fault_is_caught_on_images(bundle: Bundle, photos: Path, fault: str) -> None:
    export(bundle, FAULTS[fault])
    report = verify(bundle, source=str(photos), split="train", max_gap=1e-4)
    assert not report.passed
    assert report.problems
    assert "**failed**" in (bundle.path / "README.md").read_text()


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_planted_fault_is_caught_without_a_single_image_of_ones_own(bundle: Bundle, fault: str) -> None:
    export(bundle, FAULTS[fault])
    report = verify(bundle, max_gap=1e-4)
    assert not report.passed, report.details()


@pytest.mark.parametrize(
    ("fault", "place"),
    [("BGR for RGB", "maps"), ("one weight with another sign", "maps"), ("classes in another order", "scores")],
)
def test_the_layer_at_which_the_two_part_is_named(bundle: Bundle, fault: str, place: str) -> None:
    export(bundle, FAULTS[fault])
    assert f"the two part at `{place}`" in str(verify(bundle, max_gap=1e-4).diverges)


def test_an_export_that_answers_otherwise_than_when_it_was_made_is_caught(bundle: Bundle) -> None:
    def fill(folder: Path) -> str:
        (folder / "model.onnx").write_bytes((bundle.path / GRAPH).read_bytes())
        return "model.onnx"

    shifted = [[value + 5 for value in canary.logits] for canary in bundle.canaries]
    write_export(bundle, "onnx", "int8", fill=fill, canary_logits=lambda _: shifted, facts={})
    report = verify(bundle, precision="int8")
    assert "otherwise than when it was written" in report.problems[-1]


def test_a_drop_within_what_is_allowed_passes_and_one_beyond_fails(bundle: Bundle, photos: Path) -> None:
    export(bundle, labels_transposed, "int8")
    asked = {"source": str(photos), "split": "train", "precision": "int8"}
    lost = verify(bundle, **asked).drop
    assert lost > 0.1
    assert verify(bundle, **asked, max_drop=lost).passed
    assert not verify(bundle, **asked, max_drop=lost - 0.01).passed


def test_without_labels_changed_answers_are_counted(bundle: Bundle, photos: Path) -> None:
    export(bundle, labels_transposed, "int8")
    report = verify(bundle, unlabelled=[photos], precision="int8")
    num_changed = report.num_images - report.num_agree
    assert report.drop is None
    assert report.problems == (f"{num_changed} of 40 images get another label, 0.5 % allowed",)
    assert {item.reference for item in report.changed} == {"ant", "bee"}


def test_images_that_cannot_be_read_are_counted_and_none_at_all_is_an_error(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"nothing")
    Image.fromarray(np.zeros((30, 30, 3), np.uint8)).save(tmp_path / "good.png")
    report = verify(bundle, unlabelled=[tmp_path / "bad.png", tmp_path / "good.png"], precision="fp32")
    assert (report.num_images, report.num_skipped) == (1, 1)
    with pytest.raises(SourceError, match="none of the 1 images of 1 images without labels can be read"):
        verify(bundle, unlabelled=[tmp_path / "bad.png"], precision="fp32")


def test_every_export_is_verified_when_none_is_named(bundle: Bundle) -> None:
    export(bundle, nothing, "fp16")
    export(bundle, nothing, "int8")
    reports = linne.verify(bundle.path, quiet=True)
    assert [report.candidate for report in reports if report.candidate.startswith("onnxruntime")] == [
        f"onnxruntime {precision} on cpu" for precision in ("fp32", "fp16", "int8")
    ]
    assert all(report.passed for report in reports)


def test_the_command_prints_a_table_and_ends_with_3_where_one_fails(bundle: Bundle) -> None:
    export(bundle, blue_first)
    words = ["verify", str(bundle.path), "--backend", "onnxruntime"]
    good = CliRunner().invoke(cli, [*words, "--precision", "fp32"])
    assert good.exit_code == 0, good.stderr
    assert good.stdout.splitlines()[1].startswith("passed   onnxruntime fp32 on cpu  8 of 8")
    bad = CliRunner().invoke(cli, [*words, "--precision", "fp16", "--max-gap", "1e-4"])
    assert bad.exit_code == 3
    assert "error: 1 of 1 did not pass: onnxruntime fp16 on cpu" in bad.stderr
    assert "the two part at `maps`; no layer before it agrees" in bad.stdout


def test_a_source_and_unlabelled_images_at_once_are_refused(bundle: Bundle) -> None:
    with pytest.raises(LinneError, match="two things to verify on"):
        verify(bundle, source="digits", unlabelled=["x.png"], precision="fp32")


def test_a_report_is_plain_data(bundle: Bundle) -> None:
    export(bundle, blue_first)
    values = verify(bundle, max_gap=1e-4).to_dict()
    assert values["passed"] is False
    assert values["candidate"] == "onnxruntime fp16 on cpu"
    assert isinstance(values["changed"], list)


def test_evenly_spaced_positions_reach_every_part() -> None:
    assert spread(10, 4).tolist() == [0, 2, 5, 7]
    assert spread(3, 4).tolist() == [0, 1, 2]
    assert spread(5, None).tolist() == [0, 1, 2, 3, 4]


def test_the_interval_of_pairs_is_agresti_and_mins() -> None:
    # By hand: 10.5 and 4.5 of 102; 6 / 102 = 0.0588; sqrt(15 - 36 / 102) / 102 = 0.0375; times 1.96.
    low, high = paired_interval(10, 4, 100)
    assert low == pytest.approx(0.0588 - 0.0735, abs=2e-4)
    assert high == pytest.approx(0.0588 + 0.0735, abs=2e-4)
    assert paired_interval(0, 0, 1000) == pytest.approx((-0.00196, 0.00196), abs=1e-5)
    with pytest.raises(ValueError, match="no comparison"):
        paired_interval(3, 3, 5)


def test_a_layer_that_a_runtime_has_folded_away_is_not_taken_for_a_fault() -> None:
    draw = np.random.default_rng(0)
    conv, norm, relu, last = (draw.normal(0, 1, (1, 4, 3, 3)) for _ in range(4))
    layers = [("conv", conv), ("norm", norm), ("relu", relu), ("last", last)]
    assert first_missing(layers, {"a": norm, "b": relu, "c": last}, 1e-3) is None
    assert first_missing(layers, {"a": norm, "b": relu, "c": last + 1}, 1e-3) == ("relu", "last")
    assert first_missing(layers, {"a": norm + 1}, 1e-3) == ("", "conv")


def test_examples_of_a_grey_bundle_are_its_canaries_alone(tmp_path: Path) -> None:
    grey = replace(SPEC, channels=1, mean=(0.5,), std=(0.25,))
    bundle = write_graph_bundle(tmp_path / "grey", LABELS, grey)
    examples = of_bundle(bundle)
    assert examples.name == "4 canaries"
    report = compare(Reference(reference_of(bundle), examples), Predictor.open(bundle, how=RunOptions(num_threads=1)))
    assert report.passed


def test_half_precision_that_nobody_exported_is_verified_only_when_it_is_asked_for(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    if (reason := load_backend("openvino").why_unavailable()) is not None:
        pytest.skip(reason)
    export(bundle, nothing, "fp16")
    before = {report.candidate for report in linne.verify(bundle.path, quiet=True, keep=False)}
    assert {name for name in before if name.startswith("openvino")} == {"openvino fp32 on cpu"}
    graph = (bundle.path / "model.onnx").read_bytes()
    rows = [list(canary.logits) for canary in bundle.canaries]
    fill = partial(to_ir, graph, "model.onnx", fp16=True)
    write_export(bundle, "openvino", "fp16", fill=fill, canary_logits=lambda _: rows, facts={})
    try:
        load_backend("openvino").open(bundle, RunOptions(precision="fp16")).close()
        reason = None
    except DeviceError as error:  # few processors compute in fp16
        reason = error.message
    found = {report.candidate for report in linne.verify(bundle.path, keep=False)}
    assert found - before == (set() if reason else {"openvino fp16 on cpu"})
    if reason is not None:
        assert f"openvino in fp16 is not verified: {reason}" in capsys.readouterr().err
        with pytest.raises(DeviceError, match="OpenVINO would compute"):
            linne.verify(bundle.path, backend="openvino", precision="fp16", quiet=True)
