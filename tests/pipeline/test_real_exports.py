"""Published weights, exported, on real photographs: from file bytes to the same labels as with torch.

LINNE_TEST_DATA names the folder that test_real_pretrained.py describes.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs `linne[train]`")
pytest.importorskip("onnxruntime", reason="needs `linne[onnx]`")

import linne
from linne.data.images.decode import decode_file, to_input
from linne.exports import open_export
from linne.graphs.session import GraphSession

REAL = Path(os.environ.get("LINNE_TEST_DATA", ""))
PHOTOGRAPHS, WEIGHTS = REAL / "imagenet20", REAL / "weights" / "mobilenet_v2-b0353104.pth"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PHOTOGRAPHS.is_dir() or not WEIGHTS.is_file(),
        reason=f"LINNE_TEST_DATA does not name a folder with imagenet20/ and weights/{WEIGHTS.name}",
    ),
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("real") / "mobilenet"
    linne.import_weights(WEIGHTS, folder, model="torchvision/mobilenet_v2", quiet=True)
    return linne.open_bundle(folder)


@pytest.fixture(scope="module")
def by_torch_NK(bundle: Any) -> Any:
    return logits_of(bundle, backend="torch")


def logits_of(bundle: Any, **options: Any) -> Any:
    """Return the logits of each photograph, in the order of the bundle's labels."""
    rows = []
    for answer in linne.predict(bundle.path, PHOTOGRAPHS, top=len(bundle.labels), device="cpu", **options):
        by_label = dict(zip(answer.labels, answer.logits, strict=True))
        rows.append([by_label[label] for label in bundle.labels])
    assert len(rows) == 20
    return np.array(rows)


@pytest.mark.parametrize(
    "exporter",
    [
        pytest.param(
            "dynamo",
            marks=pytest.mark.skipif(
                importlib.util.find_spec("onnxscript") is None,
                reason="onnxscript is not installed; pip install 'linne[onnx]'",
            ),
        ),
        "script",
    ],
)
def test_in_fp32_logits_are_the_same_to_a_ten_thousandth(bundle: Any, by_torch_NK: Any, exporter: Any) -> None:
    linne.export(bundle.path, "onnx", exporter=exporter, replace=True, quiet=True)
    found_NK = logits_of(bundle, backend="onnxruntime")
    assert (found_NK.argmax(axis=1) == by_torch_NK.argmax(axis=1)).all()
    assert np.abs(found_NK - by_torch_NK).max() <= 1e-4 * np.abs(by_torch_NK).max(), "from the bytes of files"
    # From the same pixels, which is what an export changes.
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))
    pixels_NHWC = np.stack([to_input(file.read_bytes(), bundle.input, name=file.name) for file in files])
    predictor = linne.Predictor.open(bundle, backend="torch")
    graph = linne.Predictor.open(bundle, backend="onnxruntime")
    gap = np.abs(predictor.logits_of_cropped(pixels_NHWC) - graph.logits_of_cropped(pixels_NHWC)).max()
    assert gap <= 1e-4, "the worst difference of any verified export"


def test_in_fp16_and_from_pixels_photographs_keep_first_labels_that_were_sure(bundle: Any, by_torch_NK: Any) -> None:
    linne.export(bundle.path, "onnx", precision="fp16", exporter="script", quiet=True)
    in_half_NK = logits_of(bundle, backend="onnxruntime", precision="fp16")
    first_N = by_torch_NK.argmax(axis=1)
    two_NK = np.sort(by_torch_NK, axis=1)[:, -2:]
    sure_N = two_NK[:, 1] - two_NK[:, 0] > 0.2  # one photograph is a stork by 0.006, which eleven bits do not hold
    assert sure_N.sum() >= 18
    assert (in_half_NK.argmax(axis=1) == first_N)[sure_N].all()
    assert np.abs(in_half_NK - by_torch_NK).max() < 0.02 * np.abs(by_torch_NK).max()
    linne.export(bundle.path, "onnx", bake_preprocessing=True, exporter="script", quiet=True)
    file = open_export(bundle, "onnx-pixels", "fp32").main_file
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))
    pixels_NHWC = np.stack([to_input(file.read_bytes(), bundle.input, name=file.name) for file in files])
    assert decode_file(files[0], 3).dtype == pixels_NHWC.dtype == np.uint8
    found_NK = GraphSession(file, "pixels").run(pixels_NHWC)
    assert (found_NK.argmax(axis=1) == by_torch_NK.argmax(axis=1)).all()
