"""int8 from training to prediction: a network trained on digits by ONNX Runtime, and by OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs `linne[train]`")
pytest.importorskip("onnx", reason="needs `linne[onnx]`")
pytest.importorskip("onnxruntime", reason="needs `linne[onnx]`")

from fixtures.digit_graphs import digits_graph, write_digits_bundle

import linne
from linne.errors import CheckFailed
from linne.exports import exports_of, open_export
from linne.inference.backends.base import RunOptions
from linne.inference.predictor import Predictor

pytestmark = pytest.mark.long


def verified(path: Path, backend: str) -> Any:
    (report,) = linne.verify(path, "digits", backend=backend, precision="int8", keep=False, quiet=True)
    return report


def test_a_trained_network_keeps_its_accuracy_in_int8(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="this network needs torch's newer exporter: pip install 'linne[onnx]'")
    linne.train("digits", epochs=6, output=tmp_path / "run", quiet=True)
    path = tmp_path / "run" / "bundle"
    made = linne.export(path, "onnx", precision="int8", quiet=True)
    assert made.size_bytes < 0.35 * (path / "model.safetensors").stat().st_size
    report = verified(path, "onnxruntime")
    assert report.passed, report.details()
    predictor = Predictor.open(linne.open_bundle(path), backend="onnxruntime", how=RunOptions(precision="int8"))
    assert "onnxruntime" in predictor.backend.description


def test_openvino_keeps_the_accuracy_in_int8(tmp_path: Path) -> None:
    pytest.importorskip("nncf", reason="needs `linne[openvino]`")
    bundle = write_digits_bundle(tmp_path / "bundle", digits_graph())
    made = linne.export(bundle.path, "openvino", precision="int8", quiet=True)
    assert sorted(made.export.files) == ["model.bin", "model.xml"]
    assert (made.export.path / "model.bin").stat().st_size < 0.35 * (bundle.path / "model.onnx").stat().st_size
    report = verified(bundle.path, "openvino")
    assert report.passed, report.details()
    assert open_export(bundle, "openvino", "int8").facts["quantisation"]["in_float"] == []


def test_openvino_keeps_named_layers_in_float_and_writes_nothing_that_costs_too_much(tmp_path: Path) -> None:
    pytest.importorskip("nncf", reason="needs `linne[openvino]`")
    bundle = write_digits_bundle(tmp_path / "bundle", digits_graph(outlier_after="conv1"))
    with pytest.raises(CheckFailed, match=r"int8 by OpenVINO does not hold 0\.5 points on 136 images"):
        linne.export(bundle.path, "openvino", precision="int8", quiet=True)
    assert exports_of(bundle) == ()
    linne.export(bundle.path, "openvino", precision="int8", keep_float=["conv[12]"], quiet=True)
    assert open_export(bundle, "openvino", "int8").facts["quantisation"]["in_float"] == ["conv1", "conv2"]
