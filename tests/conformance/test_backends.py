"""What every backend promises, for each entry of `BACKENDS`."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures.graphs import change_weight, write_graph_bundle
from fixtures.tflite_files import write_tflite_bundle
from PIL import Image
from safetensors.numpy import save_file

from linne.bundle import Bundle, canary_batch, open_bundle, write_bundle
from linne.bundle_format import describe_file, seal
from linne.errors import BundleError
from linne.inference.backends import BACKENDS, load_backend
from linne.inference.backends.base import Backend, RunOptions
from linne.inference.backends.null import write_null_bundle
from linne.inference.predictor import CANARY_TOLERANCE, Predictor
from linne.preprocess import Floats, InputSpec

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


def null_bundle(folder: Path, spec: InputSpec) -> Bundle:
    return write_null_bundle(folder, LABELS, spec)


def torch_bundle(folder: Path, spec: InputSpec) -> Bundle:
    """linne's `small`, taught for a moment to tell noise of one colour from another, so that pixels matter to it."""
    import torch

    from linne import models

    torch.manual_seed(0)
    ref = models.describe("small", num_classes=len(LABELS), channels=3, height=spec.height, width=spec.width)
    network = models.build(ref)
    labels_N = torch.arange(60) % len(LABELS)
    images_NCHW = torch.randn(60, 3, spec.height, spec.width) + torch.randn(len(LABELS), 3, 1, 1)[labels_N]
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    for _ in range(10):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images_NCHW), labels_N).backward()
        optimizer.step()
    network.eval()
    with torch.inference_mode():
        logits_NK = network(torch.from_numpy(canary_batch(spec))).numpy()
    return write_bundle(
        folder,
        labels=LABELS,
        input=spec,
        model=dataclasses.asdict(ref),
        weights={name: value.numpy() for name, value in network.state_dict().items()},
        config=models.config(ref, LABELS, spec.to_dict()),
        canary_logits_NK=logits_NK,
        metrics={},
        provenance={},
    )


def graph_bundle(folder: Path, spec: InputSpec) -> Bundle:
    """A convolution and a linear layer by hand, which takes three images at a time."""
    return write_graph_bundle(folder, LABELS, spec, batch=3)


def free_graph_bundle(folder: Path, spec: InputSpec) -> Bundle:
    """The same, for any number of images; answered by ONNX Runtime when it was written."""
    return write_graph_bundle(folder, LABELS, spec)


def tflite_bundle(folder: Path, spec: InputSpec) -> Bundle:
    """The same, with an export that takes any number of images."""
    return write_tflite_bundle(folder, LABELS, spec)


MAKERS: dict[str, Callable[[Path, InputSpec], Bundle]] = {
    "null": null_bundle,
    "torch": torch_bundle,
    "onnxruntime": graph_bundle,
    "migraphx": graph_bundle,
    "openvino": free_graph_bundle,
    "tensorrt": free_graph_bundle,
    "tflite": tflite_bundle,
}
DEVICES = {"tensorrt": "cuda"}
"""Of backends that do not run on a CPU; the others are tried there."""


@pytest.fixture(scope="module", params=sorted(BACKENDS))
def name(request: pytest.FixtureRequest) -> str:
    reason = load_backend(request.param).why_unavailable()
    if reason is not None:
        pytest.skip(f"backend {request.param}: {reason}")
    return str(request.param)


@pytest.fixture(scope="module")
def bundle(name: str, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return MAKERS[name](tmp_path_factory.mktemp(name) / "bundle", SPEC)


@pytest.fixture
def backend(name: str, bundle: Bundle) -> Backend:
    return load_backend(name).open(bundle, RunOptions(device=DEVICES.get(name, "cpu")))


@pytest.fixture
def images_NCHW() -> Floats:
    return np.random.default_rng(0).normal(0, 1, (7, 3, SPEC.height, SPEC.width)).astype(np.float32)


def test_every_backend_is_tried_here() -> None:
    assert set(MAKERS) == set(BACKENDS)


def test_a_backend_gives_one_row_of_fp32_logits_an_image(backend: Backend, images_NCHW: Floats) -> None:
    logits_NK = backend.run(images_NCHW)
    assert logits_NK.shape == (7, len(LABELS))
    assert logits_NK.dtype == np.float32
    assert np.isfinite(logits_NK).all()
    assert np.ptp(logits_NK, axis=0).min() > 0, "images that differ get answers that differ"


def test_an_answer_does_not_depend_on_the_other_images_in_the_batch(backend: Backend, images_NCHW: Floats) -> None:
    whole_NK = backend.run(images_NCHW)
    alone_NK = np.concatenate([backend.run(images_NCHW[i : i + 1]) for i in range(7)])
    # Other batch sizes take other kernels, which add in another order.
    np.testing.assert_allclose(alone_NK, whole_NK, atol=1e-5 * np.abs(whole_NK).max(), rtol=0)


def test_a_backend_repeats_itself_and_leaves_its_input_alone(backend: Backend, images_NCHW: Floats) -> None:
    before = images_NCHW.copy()
    first_NK = backend.run(images_NCHW).copy()
    np.testing.assert_array_equal(backend.run(images_NCHW), first_NK)
    np.testing.assert_array_equal(images_NCHW, before)


def test_a_backend_describes_itself_in_one_line(backend: Backend) -> None:
    assert backend.description
    assert "\n" not in backend.description


def test_a_backend_says_how_many_images_it_computes_at_once_or_that_it_takes_any_number(backend: Backend) -> None:
    assert backend.batch_size is None or backend.batch_size >= 1


SLOW_TO_OPEN = ("compile",)
"""Options that take a compiler, and a minute each."""


def test_every_option_of_a_backend_leaves_its_answers_as_they_are(
    name: str, bundle: Bundle, backend: Backend, images_NCHW: Floats
) -> None:
    expected_NK = backend.run(images_NCHW)
    for option, known in load_backend(name).OPTIONS.items():
        assert known.help
        for value in () if option in SLOW_TO_OPEN else known.values[1:]:  # the first is what `backend` has
            other = load_backend(name).open(
                bundle, RunOptions(device=DEVICES.get(name, "cpu"), options={option: value})
            )
            found_NK = other.run(images_NCHW)
            # Other kernels, which add in another order.
            np.testing.assert_allclose(found_NK, expected_NK, atol=1e-5 * np.abs(expected_NK).max(), rtol=0)
            other.close()


def test_a_backend_can_be_closed_twice(backend: Backend) -> None:
    backend.close()
    backend.close()


def test_an_untouched_bundle_answers_its_canaries(name: str, bundle: Bundle) -> None:
    predictor = Predictor.open(bundle.path, backend=name, how=RunOptions(device=DEVICES.get(name, "cpu")))
    assert predictor.labels == LABELS
    assert predictor.backend_name == name


# Planted faults: every hash and checksum fits, the content is wrong.


def with_input(**changes: Any) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        for file, section in (("config.json", "pretrained_cfg"), ("bundle.json", "input")):
            values = json.loads((folder / file).read_bytes())
            values[section].update({key: value for key, value in changes.items() if key in values[section]})
            (folder / file).write_text(json.dumps(values))

    return plant


def with_labels(*names: str) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        for file, key in (("config.json", "label_names"), ("bundle.json", "labels")):
            values = json.loads((folder / file).read_bytes())
            values[key] = list(names)
            (folder / file).write_text(json.dumps(values))

    return plant


def with_blue_first(folder: Path) -> None:
    """What a decoder that gives BGR does: the pictures change, the answers stay."""
    for path in (folder / "canaries").iterdir():
        Image.fromarray(np.ascontiguousarray(np.asarray(Image.open(path))[..., ::-1])).save(path)


def with_one_weight(folder: Path) -> None:
    """One value of the last layer, five times the layer's largest."""
    if (folder / "model.onnx").exists():
        change_weight(folder / "model.onnx")
        return
    weights = open_bundle(folder).weights()
    last = [name for name, value in weights.items() if value.ndim == 2][-1]
    weights[last] = weights[last].copy()
    weights[last][1, 2] += 5 * np.abs(weights[last]).max()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


FAULTS: dict[str, Callable[[Path], None]] = {
    "BGR for RGB": with_blue_first,
    "another mean": with_input(mean=[0.485, 0.456, 0.406]),
    "another deviation": with_input(std=[0.5, 0.5, 0.5]),
    "nearest for bicubic": with_input(interpolation="nearest"),
    "bilinear for bicubic": with_input(interpolation="bilinear"),
    "lanczos for bicubic": with_input(interpolation="lanczos"),
    "no crop": with_input(crop_pct=1.0),
    "a smaller crop": with_input(crop_pct=0.7),
    "squashed for cropped": with_input(crop_mode="squash"),
    "two labels exchanged": with_labels("ant", "bee", "dog", "cow", "elk"),
    "labels shifted": with_labels("elk", "ant", "bee", "cow", "dog"),
    "one weight": with_one_weight,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bundle_with_fitting_hashes_and_a_planted_fault_is_refused(
    name: str, bundle: Bundle, tmp_path: Path, fault: str
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle.path, folder)
    FAULTS[fault](folder)
    manifest = json.loads((folder / "bundle.json").read_bytes())
    del manifest["checksum"]
    manifest["files"] = {file: describe_file(folder, file) for file in manifest["files"]}
    for canary in manifest["canaries"]:
        canary["label"] = max(manifest["labels"], key=lambda label: canary["logits"][label])
    (folder / "bundle.json").write_bytes(seal(manifest))

    with pytest.raises(BundleError) as caught:
        Predictor.open(folder, backend=name, how=RunOptions(device=DEVICES.get(name, "cpu")))
    message = caught.value.message
    if (folder / "exports").is_dir() and fault != "BGR for RGB":
        assert "it was made of another network, other labels or another input than the bundle has now" in message
        return
    assert f"bundle `{folder}` does not answer as it did when it was written: `canaries/" in message
    assert f"of their size, allowed {CANARY_TOLERANCE:g}" in message
