"""Faults in exports of real networks, whose batch norms exporters fold away: caught, and the layer named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import linne
from linne.bundle import Bundle, canary_batch, open_bundle
from linne.exports import graph_of, write_export
from linne.preprocess import InputSpec

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("torch")
from fixtures.settled import write_network_bundle  # noqa: E402
from onnx import numpy_helper  # noqa: E402

pytestmark = pytest.mark.long

SPEC = InputSpec(channels=3, height=64, width=64, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    bundle = write_network_bundle(tmp_path_factory.mktemp("networks") / "resnet18", "torchvision/resnet18", SPEC)
    linne.export(bundle.path, "onnx", quiet=True)
    return bundle


def with_changed(bundle: Bundle, place: int, alter: Callable[[Any], Any]) -> str:
    """Change the filters of the convolution at `place` in the export, all checksums fitting; return their name."""
    from linne.graphs.session import GraphSession

    model = onnx.load(graph_of(bundle).path)
    by_name = {item.name: item for item in model.graph.initializer}
    filters = [by_name[node.input[1]] for node in model.graph.node if node.op_type == "Conv"][place]
    changed = np.ascontiguousarray(alter(numpy_helper.to_array(filters).copy()))
    filters.CopyFrom(numpy_helper.from_array(changed, filters.name))

    def fill(folder: Path) -> str:
        onnx.save(model, folder / "model.onnx")
        return "model.onnx"

    def answers(path: Path) -> Any:
        return GraphSession(path, "planted").run(canary_batch(SPEC)).tolist()

    write_export(bundle, "onnx", "fp32", fill=fill, canary_logits=answers, facts={}, replace=True)
    return str(filters.name)


def flipped(filters: Any) -> Any:
    place = np.unravel_index(np.abs(filters).argmax(), filters.shape)
    filters[place] = -filters[place]
    return filters


@pytest.mark.parametrize(
    ("place", "alter", "layer"),
    [
        (0, lambda filters: filters[:, ::-1], "conv1"),
        (5, flipped, "layer2.0.conv1"),
        (10, lambda filters: filters * 1.05, "layer3.0.conv1"),
    ],
    ids=["BGR", "one weight", "a stale fold of a batch norm"],
)
def test_the_layer_of_a_fault_is_named_though_batch_norms_are_folded(
    exported: Bundle, tmp_path: Path, place: int, alter: Callable[[Any], Any], layer: str
) -> None:
    bundle = open_bundle(shutil.copytree(exported.path, tmp_path / "bundle"))
    with_changed(bundle, place, alter)
    (report,) = linne.verify(bundle.path, backend="onnxruntime", quiet=True)
    assert not report.passed
    assert f"the two part at `{layer}`" in str(report.diverges)


def test_an_export_as_it_was_made_passes_and_where_they_part_is_not_asked(exported: Bundle) -> None:
    (report,) = linne.verify(exported.path, backend="onnxruntime", quiet=True)
    assert report.passed, report.problems
    assert report.diverges is None
