"""Networks of every provider become TensorFlow Lite files that answer as they did, in fp32, fp16 and int8.

`make test-tflite` runs this where the converter is: its packages and linne's other ones do not all go together.
"""

from __future__ import annotations

import importlib.util
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs `linne[train]`")
if importlib.util.find_spec("litert_torch") is None:  # not imported: JAX's threads would be in this process
    pytest.skip(
        "litert-torch is not installed; `make test-tflite`, or pip install 'linne[tflite-export]'",
        allow_module_level=True,
    )

from fixtures.settled import LABELS, write_network_bundle

import linne
from linne.bundle import Bundle
from linne.errors import CheckFailed, LinneError
from linne.exports import exports_of, has_export, open_export
from linne.graphs.tflite_model import TfliteModel
from linne.inference.backends.base import RunOptions
from linne.inference.predictor import Predictor
from linne.preprocess import InputSpec, normalise
from linne.weights.answers import FOLDER

pytestmark = pytest.mark.long

PLANTED = Path(__file__).parent.parent / "fixtures/networks/planted.py"
NETWORKS: dict[str, tuple[int, int, Any]] = {
    "small": (32, 3, "any"),
    "torchvision/squeezenet1_1": (40, 3, "any"),
    "torchvision/resnet18": (32, 3, "any"),
    "torchvision/mobilenet_v2": (64, 1, "any"),
    "timm/efficientnet_b0": (64, 3, "any"),
    "timm/vit_tiny_patch16_224": (32, 3, 1),
    "timm/convnext_atto": (32, 3, 1),
    f"python:{PLANTED}:Plain": (24, 3, "any"),
}
"""Each with the side of its images, their channels, and how many images its file takes at once."""


def spec_of(side: int, channels: int = 3) -> InputSpec:
    return InputSpec(channels=channels, height=side, width=side, mean=(0.5,) * channels, std=(0.25,) * channels)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """Bundles of networks, each made once."""

    class Made(dict[str, Bundle]):
        def __missing__(self, model: str) -> Bundle:
            folder = tmp_path_factory.mktemp("bundles") / "bundle"
            self[model] = write_network_bundle(folder, model, spec_of(*NETWORKS[model][:2]), trust_code=True)
            return self[model]

    return Made()


@pytest.fixture
def planted(tmp_path: Path) -> Any:
    def write(name: str) -> Bundle:
        return write_network_bundle(tmp_path / name, f"python:{PLANTED}:{name}", spec_of(24), trust_code=True)

    return write


@pytest.mark.parametrize("model", NETWORKS, ids=lambda model: model.rpartition("/")[2])
def test_a_network_answers_from_its_file_as_it_did_whatever_the_batch(bundles: dict[str, Bundle], model: str) -> None:
    bundle, (side, channels, batch) = bundles[model], NETWORKS[model]
    exported = linne.export(bundle.path, "tflite", trust_code=True, replace=True, quiet=True)
    agreement = exported.agreement
    assert set(agreement.worst_by_batch) == {1, 3, 64}
    assert agreement.num_same == 64
    # As `agreement` explains: kernels that add in another order, and networks that nobody trained.
    assert agreement.worst <= 1e-4 * agreement.largest_logit
    facts = exported.export.facts
    assert facts["batch"] == batch
    assert ("one_because" in facts) == (batch == 1)
    assert set(facts["converter"]) == {"litert-torch", "litert-converter"}
    content = exported.export.main_file.read_bytes()
    assert str(PLANTED.parent).encode() not in content  # nor any other path of this machine
    written = TfliteModel(content, "written")
    assert written.batch_size == (1 if batch == 1 else None)
    (taken,) = written._interpreter.get_input_details()
    assert taken["shape"].tolist()[1:] == [channels, side, side]
    assert written._interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["images"], "outputs": ["logits"]}
    }
    predictor = Predictor.open(bundle, backend="tflite", how=RunOptions(device="cpu"))
    assert predictor.worst_canary().gap < 1e-6


def test_labels_and_input_lie_in_the_file_for_who_opens_it_as_a_zip(bundles: dict[str, Bundle]) -> None:
    bundle = exported(bundles["small"])
    with zipfile.ZipFile(open_export(bundle, "tflite", "fp32").main_file) as archive:
        assert json.loads(archive.read("labels.json")) == list(LABELS)
        assert json.loads(archive.read("input.json")) == bundle.input.to_dict()


def exported(bundle: Bundle) -> Bundle:
    if not has_export(bundle, "tflite", "fp32"):
        linne.export(bundle.path, "tflite", quiet=True)
    return bundle


def test_once_exported_a_bundle_predicts_without_torch_and_says_nothing_else(
    bundles: dict[str, Bundle], python: Any
) -> None:
    bundle = exported(bundles["torchvision/resnet18"])
    code = f"""
import sys, linne
(answer,) = linne.predict({str(bundle.path)!r}, {str(FOLDER / "cat.jpg")!r}, backend="tflite")
assert answer.error is None
heavy = {{"torch", "torchvision", "timm", "onnx", "onnxruntime", "tensorflow", "jax", "litert_torch"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
print(answer.labels[0])
"""
    ended = python("-c", code)
    assert (ended.returncode, ended.stderr) == (0, "")
    (by_torch,) = linne.predict(bundle.path, FOLDER / "cat.jpg", backend="torch", device="cpu")
    assert ended.stdout.strip() == by_torch.labels[0]


def test_an_export_is_told_in_five_lines_and_leaves_the_converter_out_of_the_process(
    bundles: dict[str, Bundle], python: Any
) -> None:
    bundle = bundles["small"]
    code = f"""
import sys, linne
linne.export({str(bundle.path)!r}, "tflite", replace=True)
assert not {{"jax", "litert_torch"}} & set(sys.modules)
"""
    ended = python("-c", code)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == ""
    starts = [line.partition(" ")[0] for line in ended.stderr.splitlines()]
    assert starts == ["answering", "exporting", "exported", "verified"]


def test_with_pixels_in_it_scales_them_itself(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["small"]
    made = linne.export(bundle.path, "tflite", bake_preprocessing=True, replace=True, quiet=True)
    assert made.export.kind == "tflite-pixels"
    assert made.agreement.num_same == 64
    model = TfliteModel(made.export.main_file.read_bytes(), "pixels")
    (taken,) = model._interpreter.get_input_details()
    assert (taken["dtype"], taken["shape_signature"].tolist()) == (np.uint8, [-1, 32, 32, 3])
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    plain = Predictor.open(exported(bundle), backend="tflite", how=RunOptions(device="cpu"))
    expected_NK = plain.backend.run(normalise(images, bundle.input))
    # Of the largest logit: scaling fused into the first layer rounds otherwise.
    np.testing.assert_allclose(model.run(images), expected_NK, rtol=0, atol=1e-4 * np.abs(expected_NK).max())


@pytest.mark.parametrize("model", ["torchvision/resnet18", "timm/vit_tiny_patch16_224"])
def test_in_fp16_a_network_is_half_as_large_and_names_the_same(bundles: dict[str, Bundle], model: str) -> None:
    bundle = exported(bundles[model])
    half = linne.export(bundle.path, "tflite", precision="fp16", replace=True, quiet=True)
    whole = open_export(bundle, "tflite", "fp32").files["model.tflite"]["size_bytes"]
    assert half.size_bytes < 0.55 * whole
    assert 0 < half.agreement.worst <= half.agreement.bound
    how = RunOptions(device="cpu", precision="fp16")
    assert Predictor.open(bundle, backend="tflite", how=how).backend.description.endswith(", weights in fp16")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    linne.train("digits", epochs=6, output=folder, quiet=True)
    return folder / "bundle"


@pytest.mark.parametrize("pixels", [False, True])
def test_a_trained_network_keeps_its_accuracy_in_int8(trained: Path, pixels: bool) -> None:
    made = linne.export(trained, "tflite", precision="int8", bake_preprocessing=pixels, replace=True, quiet=True)
    assert made.size_bytes < 0.35 * (trained / "model.safetensors").stat().st_size
    facts = made.export.facts["quantisation"]
    assert facts["verified"]["passed"]
    assert facts["in_float"] == []
    assert facts["calibration"]["images"] == "500 images, 50 of each of 10 classes, split train of digits"
    if pixels:
        return
    (report,) = linne.verify(trained, "digits", backend="tflite", precision="int8", keep=False, quiet=True)
    assert report.passed, report.details()


def test_layers_stay_in_float_by_their_names_in_torch(trained: Path) -> None:
    import torch

    from linne.models.from_bundle import network_of

    made = linne.export(trained, "tflite", precision="int8", keep_float=["*"], replace=True, quiet=True)
    assert made.size_bytes > 0.9 * (trained / "model.safetensors").stat().st_size
    network = network_of(linne.open_bundle(trained))
    heavy = {name for name, layer in network.named_modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)}
    assert set(made.export.facts["quantisation"]["in_float"]) == heavy


def test_networks_that_are_another_where_torch_looks_are_refused(planted: Any) -> None:
    for name, message in (
        ("SeesTheBatch", "answers an image otherwise when others are in the batch"),
        ("WrongByDynamo", "does not answer as the bundle does: in batches of 1 logits differ by up to"),
        ("DecidesByPixels", "cannot be exported to tflite: litert-torch: .*Could not guard on"),
    ):
        bundle = planted(name)
        with pytest.raises(CheckFailed, match=message):
            linne.export(bundle.path, "tflite", trust_code=True, quiet=True)
        assert exports_of(bundle) == ()


def test_code_is_not_run_unless_it_is_trusted(planted: Any) -> None:
    bundle = planted("Plain")
    with pytest.raises(LinneError, match="trust"):
        linne.export(bundle.path, "tflite", quiet=True)
