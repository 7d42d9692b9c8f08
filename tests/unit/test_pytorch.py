"""What only the torch backend promises; what every backend promises is in tests/conformance."""

from __future__ import annotations

import dataclasses
import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import linne
from linne.bundle import Bundle, canary_batch, write_bundle
from linne.data.images.decode import to_input
from linne.errors import BundleError, DeviceError, RecipeError
from linne.inference.backends.base import RunOptions
from linne.inference.backends.pytorch import TorchBackend
from linne.inference.predictor import Predictor
from linne.preprocess import InputSpec, normalise, pillow_resize
from linne.weights.answers import FOLDER as PHOTOGRAPHS

torch = pytest.importorskip("torch", reason="torch is not installed")

from linne import models  # noqa: E402 - after torch is known to be there
from linne.device import Device  # noqa: E402
from linne.device.fallbacks import Fallbacks  # noqa: E402
from linne.fast_resize import torch_resize  # noqa: E402
from linne.models import ModelRef  # noqa: E402

LABELS = ("cat", "dog", "owl")
SPEC = InputSpec(channels=1, height=8, width=8, mean=(0.5,), std=(0.5,))
REF = models.describe("mlp", num_classes=3, channels=1, height=8, width=8)


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(0)
    return models.build(REF).eval()


def written(path: Path, network: Any, ref: ModelRef, spec: InputSpec) -> Bundle:
    """Return a bundle of `network`."""
    with torch.inference_mode():
        logits_NK = network(torch.from_numpy(canary_batch(spec))).numpy()
    return write_bundle(
        path,
        labels=LABELS,
        input=spec,
        model=dataclasses.asdict(ref),
        weights={name: value.numpy() for name, value in network.state_dict().items()},
        config=models.config(ref, LABELS, spec.to_dict()),
        canary_logits_NK=logits_NK,
        metrics={},
        provenance={},
    )


@pytest.fixture
def bundle(network: Any, tmp_path: Path) -> Bundle:
    return written(tmp_path / "b", network, REF, SPEC)


@pytest.fixture
def colour_bundle(tmp_path: Path) -> Bundle:
    size = {"channels": 3, "height": 48, "width": 48}
    torch.manual_seed(0)
    ref = models.describe("mlp", num_classes=3, **size)
    spec = InputSpec(**size, mean=(0.5,) * 3, std=(0.25,) * 3, crop_pct=0.875)
    return written(tmp_path / "colour", models.build(ref).eval(), ref, spec)


def test_the_backend_computes_what_the_network_computed(network: Any, bundle: Bundle) -> None:
    images_NCHW = canary_batch(SPEC)
    with torch.inference_mode():
        expected_NK = network(torch.from_numpy(images_NCHW)).numpy()
    np.testing.assert_array_equal(TorchBackend.open(bundle, RunOptions(device="cpu")).run(images_NCHW), expected_NK)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Photographs that shrink by little and by much, one that is decoded at a reduced size, and one that grows."""
    folder = tmp_path_factory.mktemp("photographs")
    paths = []
    for number, (name, size) in enumerate(
        itertools.product(("cat.jpg", "rocket.jpg"), ((20, 26), (190, 160), (400, 300), (900, 700)))
    ):
        paths.append(folder / f"{number}.jpg")
        Image.open(PHOTOGRAPHS / name).convert("RGB").resize(size, Image.Resampling.LANCZOS).save(paths[-1], quality=95)
    return paths


def test_photographs_reach_the_network_in_the_pixels_of_the_reference_to_the_bit(
    colour_bundle: Bundle, photographs: list[Path]
) -> None:
    spec, seen = colour_bundle.input, []
    predictor = Predictor.open(colour_bundle, backend="torch", how=RunOptions(device="cpu"))
    assert isinstance(predictor.backend, TorchBackend)
    assert predictor.backend.network is not None
    predictor.backend.network.register_forward_pre_hook(lambda _, given: seen.append(given[0].numpy().copy()))
    list(predictor.predict_files(photographs))
    files = [path.read_bytes() for path in photographs]
    expected_NHWC, quick_NHWC = (
        np.stack([to_input(data, spec, name="photo", resize=resize) for data in files])
        for resize in (pillow_resize, torch_resize)
    )
    np.testing.assert_array_equal(np.concatenate(seen), normalise(expected_NHWC, spec))
    assert (expected_NHWC != quick_NHWC).any(), "training's resize would show"


def test_in_fp32_it_passes_the_verification_against_the_reference_with_nothing_lost(
    colour_bundle: Bundle, photographs: list[Path]
) -> None:
    (report,) = linne.verify(colour_bundle.path, backend="torch", unlabelled=photographs, keep=False, quiet=True)
    assert report.passed
    assert report.num_agree == report.num_images == len(photographs)
    assert report.worst_gap == 0, "the same kernels on the same pixels"


def test_opening_takes_no_number_from_the_global_generator(bundle: Bundle) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    TorchBackend.open(bundle, RunOptions(device="cpu"))
    assert torch.equal(torch.rand(3), expected)


def test_it_says_which_torch_on_which_device(bundle: Bundle) -> None:
    description = TorchBackend.open(bundle, RunOptions(device="cpu")).description
    assert description == f"torch {torch.__version__} on {Device.pick('cpu').name}"


def test_weights_that_do_not_fit_the_model_are_named(bundle: Bundle) -> None:
    wider = dataclasses.replace(bundle, model={**bundle.model, "width": 9})
    with pytest.raises(BundleError) as caught:
        TorchBackend.open(wider, RunOptions(device="cpu"))
    assert caught.value.message == (
        f"bundle `{bundle.path}`: the weights do not fit its model: `1.weight` is 128 x 64, expected 128 x 72"
    )
    other = dataclasses.replace(bundle, model={**bundle.model, "name": "small"})
    with pytest.raises(BundleError) as caught:
        TorchBackend.open(other, RunOptions(device="cpu"))
    assert "the weights do not fit its model: no `" in caught.value.message
    assert caught.value.message.endswith(" more")


def test_a_model_that_linne_cannot_build_is_refused(bundle: Bundle) -> None:
    strange = dataclasses.replace(bundle, model={"provider": "linne"})
    with pytest.raises(BundleError, match=f"bundle `{bundle.path}`: its model cannot be read: "):
        TorchBackend.open(strange, RunOptions(device="cpu"))
    unknown = dataclasses.replace(bundle, model={**bundle.model, "provider": "os"})
    with pytest.raises(RecipeError, match="no model provider `os`"):
        TorchBackend.open(unknown, RunOptions(device="cpu"))


def test_an_unknown_device_is_refused(bundle: Bundle) -> None:
    with pytest.raises(DeviceError, match="no device `cqu`"):
        TorchBackend.open(bundle, RunOptions(device="cqu"))


class Recording(torch.nn.Module):
    """A network that keeps the precision it was run in."""

    seen: tuple[bool, str] | None = None

    def forward(self, images: Any) -> Any:
        self.seen = (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision())
        return images.flatten(1)[:, :3]


def test_fp32_is_multiplied_as_fp32_whatever_the_process_allows() -> None:
    network = Recording()
    backend = TorchBackend(network, Fallbacks(Device.pick("cpu")), "recording", RunOptions())
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        backend.run(canary_batch(SPEC))
        assert network.seen == (False, "highest")
        assert torch.get_float32_matmul_precision() == "medium", "what the process chose is left as it was"
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_closed_backend_has_let_go_of_its_network(bundle: Bundle) -> None:
    backend = TorchBackend.open(bundle, RunOptions(device="cpu"))
    backend.close()
    assert backend.network is None
    with pytest.raises(RuntimeError, match="the backend is closed"):
        backend.run(canary_batch(SPEC))


@pytest.mark.parametrize(("precision", "most"), [("bf16", 0.1), ("fp16", 0.02)])
def test_other_precisions_answer_almost_the_same(bundle: Bundle, precision: Any, most: float) -> None:
    images_NCHW = canary_batch(SPEC)
    exact_NK = TorchBackend.open(bundle, RunOptions(device="cpu")).run(images_NCHW)
    rough_NK = TorchBackend.open(bundle, RunOptions(device="cpu", precision=precision)).run(images_NCHW)
    assert rough_NK.dtype == exact_NK.dtype
    # bf16 keeps 8 bits of a number and fp16 11; a few layers add a few of their last places up.
    assert 0 < np.abs(rough_NK - exact_NK).max() < most * np.abs(exact_NK).max()


def test_channels_last_answers_the_same(bundle: Bundle) -> None:
    how = RunOptions(device="cpu", num_threads=1, options={"channels_last": "true"})
    exact_NK = TorchBackend.open(bundle, RunOptions(device="cpu")).run(canary_batch(SPEC))
    # Other kernels add in another order.
    np.testing.assert_allclose(TorchBackend.open(bundle, how).run(canary_batch(SPEC)), exact_NK, atol=1e-5)


def test_what_libraries_read_from_the_environment_is_set_where_it_is_asked_for(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MIOPEN_FIND_ENFORCE", "PYTORCH_TUNABLEOP_ENABLED"):
        monkeypatch.setenv(name, "unset")
    TorchBackend.open(bundle, RunOptions(device="cpu"))
    assert os.environ["MIOPEN_FIND_ENFORCE"] == "unset"
    TorchBackend.open(bundle, RunOptions(device="cpu", options={"miopen_search": "on", "tunable_op": "on"}))
    assert (os.environ["MIOPEN_FIND_ENFORCE"], os.environ["PYTORCH_TUNABLEOP_ENABLED"]) == ("3", "1")
