"""What `linne.inference.predictor` answers, and what it does with images that cannot be read."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from linne.bundle import Bundle, open_bundle
from linne.bundle_format import describe_file, seal
from linne.errors import BundleError, LinneError
from linne.inference.backends import choose_backend, load_backend
from linne.inference.backends.base import RunOptions, require_known
from linne.inference.backends.null import NullBackend, null_weights, write_null_bundle
from linne.inference.predictor import Prediction, Predictor
from linne.inference.views import views_of
from linne.preprocess import InputSpec, UInt8, normalise, resize_and_crop

LABELS = ("cat", "dog", "owl")
SPEC = InputSpec(channels=3, height=6, width=8, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), crop_pct=0.75)
GREY = InputSpec(channels=1, height=8, width=8, mean=(0.5,), std=(0.5,))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_null_bundle(tmp_path_factory.mktemp("predictor") / "pets", LABELS, SPEC)


@pytest.fixture
def predictor(bundle: Bundle) -> Predictor:
    return Predictor.open(bundle, backend="null")


def picture(seed: int, height: int = 9, width: int = 11, channels: int = 3) -> UInt8:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def png(pixels_HWC: UInt8) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels_HWC).save(content, "PNG")
    return content.getvalue()


def reference(pixels_HWC: UInt8) -> dict[str, float]:
    """The answer worked out by hand: preprocessing, one matrix product, softmax."""
    weights = null_weights(len(LABELS), SPEC)
    image = normalise(resize_and_crop(pixels_HWC, SPEC)[None], SPEC).ravel().astype(np.float64)
    powers_K = np.exp(weights["weight"].astype(np.float64) @ image + weights["bias"])
    return dict(zip(LABELS, powers_K / powers_K.sum(), strict=True))


def as_dict(prediction: Prediction) -> dict[str, float]:
    assert prediction.error is None
    return dict(zip(prediction.labels, prediction.probabilities, strict=True))


# Answers


def test_a_file_gets_every_label_with_its_probability_largest_first(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(picture(1)))
    (prediction,) = predictor.predict_files([tmp_path / "a.png"])
    assert prediction.file == str(tmp_path / "a.png")
    assert as_dict(prediction) == pytest.approx(reference(picture(1)), abs=1e-6), "fp32 logits against float64"
    assert list(prediction.probabilities) == sorted(prediction.probabilities, reverse=True)
    assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-12)


def test_a_prediction_becomes_the_documented_json() -> None:
    row = Prediction("a.png", ("cat", "dog"), (0.75, 0.25), logits=(1.5, 0.4)).to_dict()
    assert row == {
        "file": "a.png",
        "predictions": [
            {"label": "cat", "probability": 0.75, "logit": 1.5},
            {"label": "dog", "probability": 0.25, "logit": 0.4},
        ],
    }
    assert Prediction("b.png", (), (), error="empty").to_dict() == {"file": "b.png", "error": "empty"}
    assert json.loads(json.dumps(row)) == row


@pytest.mark.parametrize("top", [1, 2, 3, 50])
def test_top_limits_the_labels(predictor: Predictor, top: int) -> None:
    (prediction,) = predictor.predict_files([("a", png(picture(1)))], top=top)
    best = sorted(reference(picture(1)).items(), key=lambda pair: -pair[1])[:top]
    assert prediction.labels == tuple(label for label, _ in best)


def test_nonsense_limits_are_refused_at_once(predictor: Predictor) -> None:
    with pytest.raises(LinneError, match="top is 0 and batch_size 64, expected 1 or more"):
        predictor.predict_files([], top=0)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
def test_answers_come_in_order_whatever_the_sizes_and_the_batch(predictor: Predictor, batch_size: int) -> None:
    pictures = [picture(seed, height=5 + 3 * seed, width=40 - 5 * seed) for seed in range(7)]
    rows = list(predictor.predict_files(((f"p{i}", png(p)) for i, p in enumerate(pictures)), batch_size=batch_size))
    assert [row.file for row in rows] == [f"p{i}" for i in range(7)]
    for row, pixels_HWC in zip(rows, pictures, strict=True):
        assert as_dict(row) == pytest.approx(reference(pixels_HWC), abs=1e-6)


def test_logits_are_those_of_the_reference_preprocessing(predictor: Predictor) -> None:
    images = [picture(seed, height=8 + seed) for seed in range(5)]
    expected_NK = predictor.backend.run(normalise(np.stack([resize_and_crop(i, SPEC) for i in images]), SPEC))
    for batch_size in (1, 2, 256):
        np.testing.assert_array_equal(predictor.logits(images, batch_size), expected_NK)
    same_size_NHWC = np.stack([picture(seed) for seed in range(5)])
    np.testing.assert_array_equal(predictor.logits(same_size_NHWC), predictor.logits(list(same_size_NHWC)))
    assert predictor.logits([]).shape == (0, 3)


def test_an_image_already_of_the_models_size_is_still_cropped(predictor: Predictor) -> None:
    # Its crop_pct is below 1: the files' way and the arrays' way must both scale up and cut.
    exact = picture(3, SPEC.height, SPEC.width)
    (prediction,) = predictor.predict_files([("exact", png(exact))])
    assert as_dict(prediction) == pytest.approx(reference(exact), abs=1e-6)


def test_a_grey_bundle_takes_colour_files(tmp_path: Path) -> None:
    predictor = Predictor.open(write_null_bundle(tmp_path / "b", LABELS, GREY), backend="null")
    colour, grey = picture(5), np.asarray(Image.fromarray(picture(5)).convert("L"))
    rows = list(predictor.predict_files([("colour", png(colour)), ("grey", png(grey))]))
    assert as_dict(rows[0]) == as_dict(rows[1])


# Files that cannot be read


def test_a_bad_file_is_a_row_that_names_it_and_its_neighbours_keep_their_own_answers(
    predictor: Predictor, tmp_path: Path
) -> None:
    good = {f"good{i}.png": picture(i) for i in range(3)}
    for name, pixels_HWC in good.items():
        (tmp_path / name).write_bytes(png(pixels_HWC))
    whole = png(picture(9))
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    names = ["cut.png", "good0.png", "text.png", "good1.png", "missing.png", "empty.png", "folder.png", "good2.png"]
    for batch_size in (1, 3, 64):
        rows = list(predictor.predict_files([str(tmp_path / name) for name in names], batch_size=batch_size))
        assert [Path(row.file).name for row in rows] == names
        for row in rows:
            name = Path(row.file).name
            if name in good:
                assert as_dict(row) == pytest.approx(reference(good[name]), abs=1e-6)
            else:
                assert row.error is not None
                assert name in row.error
                assert row.labels == row.probabilities == ()


def test_nothing_but_bad_files_is_nothing_but_error_rows(predictor: Predictor) -> None:
    rows = list(predictor.predict_files([("a", b""), ("b", b"x")]))
    assert [row.file for row in rows] == ["a", "b"]
    assert all(row.error for row in rows)


def test_an_answer_that_is_not_a_number_is_an_error_row(bundle: Bundle) -> None:
    weights = bundle.weights()
    broken = NullBackend(np.full_like(weights["weight"], np.inf), weights["bias"])
    (row,) = Predictor(bundle, broken, "null", "asked for").predict_files([("a", png(picture(1)))])
    assert row.error == "the model's answer is not a number"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to its address space")
def test_a_strip_that_would_become_gigabytes_is_an_error_row(tmp_path: Path) -> None:
    spec = InputSpec(channels=3, height=224, width=224, mean=(0.5,) * 3, std=(0.5,) * 3)
    bundle = write_null_bundle(tmp_path / "b", LABELS, spec)
    for name, pixels_HWC in {"strip": picture(1, 1, 30_000), "whole": picture(2)}.items():
        (tmp_path / f"{name}.png").write_bytes(png(pixels_HWC))
    program = (
        "import resource, sys\n"
        "from linne.inference.predictor import Predictor\n"
        "predictor = Predictor.open(sys.argv[1], backend='null')\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))\n"
        "for row in predictor.predict_files(sys.argv[2:]):\n"
        "    sys.stdout.write(f'{row.error}\\n')\n"
    )
    words = [sys.executable, "-c", program, bundle.path, tmp_path / "strip.png", tmp_path / "whole.png"]
    child = subprocess.run(words, capture_output=True, text=True, check=False)
    strip, whole = child.stdout.splitlines()
    assert "strip.png" in strip
    assert whole == "None"


# Streaming


def test_the_first_answer_comes_before_the_later_images_are_asked_for(predictor: Predictor) -> None:
    taken: list[int] = []

    def images() -> Iterator[tuple[str, bytes]]:
        for i in range(1000):
            taken.append(i)
            yield f"{i}", content

    content, others = png(picture(1)), threading.active_count()
    rows = predictor.predict_files(images(), batch_size=8)
    assert taken == []
    assert next(rows).file == "0"
    assert len(taken) == 16, "a batch is answered while the next is read"
    rows.close()
    assert threading.active_count() <= others, "the decoding threads are gone"


def test_one_at_a_time_each_image_is_answered_before_the_next_is_asked_for(predictor: Predictor) -> None:
    taken: list[int] = []

    def images() -> Iterator[tuple[str, bytes]]:
        for i in range(5):
            taken.append(i)
            yield f"{i}", content

    content = png(picture(1))
    for number, row in enumerate(predictor.predict_files(images(), batch_size=1), 1):
        assert row.error is None
        assert len(taken) == number


def test_memory_does_not_grow_with_the_number_of_images(predictor: Predictor) -> None:
    content = png(picture(1))

    def peak_bytes(count: int) -> int:
        # A PNG may be followed by anything: files of 100 kB that decode in no time.
        images = (("x", content + bytes(100_000)) for _ in range(count))
        tracemalloc.start()
        for _ in predictor.predict_files(images, batch_size=8):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    # Kept, the 192 files more would be 19 MB. Measured: 2 to 4 MB, as the threads happen to run.
    assert peak_bytes(256) < peak_bytes(64) + 5_000_000


# Opening


def test_a_path_is_opened_and_checked_first(bundle: Bundle) -> None:
    assert Predictor.open(str(bundle.path), backend="null").bundle == bundle


def test_the_canaries_are_replayed_from_their_files_before_anything_else(bundle: Bundle, tmp_path: Path) -> None:
    other = write_null_bundle(tmp_path / "b", LABELS, SPEC, weights=null_weights(3, SPEC, seed=1))
    # The weights of another training run, with a manifest that lists their hash.
    (other.path / "model.safetensors").write_bytes((bundle.path / "model.safetensors").read_bytes())
    reseal(other.path)
    with pytest.raises(BundleError) as caught:
        Predictor.open(other.path, backend="null")
    assert caught.value.message.startswith(
        f"bundle `{other.path}` does not answer as it did when it was written: `canaries/"
    )
    assert "gives `" in caught.value.message
    assert "expected `" in caught.value.message
    assert caught.value.hint is not None
    assert "its weights, labels or input settings belong to another model" in caught.value.hint


def test_weights_that_answer_nan_are_refused(tmp_path: Path) -> None:
    bundle = write_null_bundle(tmp_path / "b", LABELS, GREY)
    path = bundle.path / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-4] + np.float32(np.nan).tobytes())
    reseal(bundle.path)
    with pytest.raises(BundleError, match="logits differ by nan of their size"):
        Predictor.open(bundle.path, backend="null")


def test_a_canary_that_is_not_an_image_is_refused(tmp_path: Path) -> None:
    bundle = write_null_bundle(tmp_path / "b", LABELS, GREY)
    (bundle.path / "canaries" / "1.png").write_text("hello")
    reseal(bundle.path)
    with pytest.raises(BundleError, match=r"canaries/1\.png` cannot be read"):
        Predictor.open(bundle.path, backend="null")


def reseal(folder: Path) -> None:
    manifest = json.loads((folder / "bundle.json").read_bytes())
    del manifest["checksum"]
    manifest["files"] = {name: describe_file(folder, name) for name in manifest["files"]}
    (folder / "bundle.json").write_bytes(seal(manifest))
    open_bundle(folder)


# Backends


def test_a_backend_asked_for_by_name_says_so(predictor: Predictor) -> None:
    assert predictor.backend_name == "null"
    assert predictor.reason == "asked for"
    assert predictor.backend.description == "null (one linear layer, numpy)"


def test_auto_never_takes_the_null_backend(bundle: Bundle) -> None:
    if load_backend("torch").why_unavailable() is not None:
        pytest.skip("torch is not installed")
    assert choose_backend("auto", bundle)[0::2] == ("torch", "first backend that can be used here")


def test_a_misspelt_backend_gets_the_nearest_match(bundle: Bundle) -> None:
    with pytest.raises(LinneError) as caught:
        choose_backend("troch", bundle)
    assert caught.value.message == "no backend `troch`"
    assert caught.value.hint == "did you mean `torch`?"


def test_without_torch_both_auto_and_torch_say_what_to_install(bundle: Bundle) -> None:
    # A child process with an empty module in torch's place: a torch that cannot be imported.
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from linne.errors import LinneError\n"
        "from linne.inference.predictor import Predictor\n"
        "for backend in ('auto', 'torch'):\n"
        "    try:\n"
        "        Predictor.open(sys.argv[1], backend=backend)\n"
        "    except LinneError as error:\n"
        "        sys.stdout.write(error.message + '\\n')\n"
        "sys.stdout.write(Predictor.open(sys.argv[1], backend='null').backend_name)\n"
    )
    child = subprocess.run([sys.executable, "-c", program, bundle.path], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    auto, torch, null = child.stdout.splitlines()
    why = "torch cannot be imported (import of torch halted; None in sys.modules); pip install 'linne[train]'"
    assert auto == f"no backend can be used here: not torch: {why}"
    assert torch == f"backend `torch` cannot be used: {why}"
    assert null == "null"


def test_predicting_without_the_torch_backend_imports_no_torch(bundle: Bundle) -> None:
    program = (
        "import sys\n"
        "from linne.inference.predictor import Predictor\n"
        "Predictor.open(sys.argv[1], backend='null')\n"
        "sys.exit(' '.join({'torch', 'timm', 'torchvision', 'transformers'} & set(sys.modules)) or None)\n"
    )
    child = subprocess.run([sys.executable, "-c", program, bundle.path], capture_output=True, text=True, check=False)
    assert (child.returncode, child.stderr) == (0, "")


def test_the_null_backend_refuses_a_trained_network(bundle: Bundle) -> None:
    trained = dataclasses.replace(bundle, model={"provider": "linne"})
    with pytest.raises(LinneError, match=r"backend `null` cannot run bundle .*: it holds a trained network") as caught:
        Predictor.open(trained, backend="null")
    assert caught.value.hint == "`auto` takes one that can"


def test_with_tta_the_probabilities_are_the_means_of_the_image_and_its_mirror_image(bundle):
    flipping = Predictor.open(bundle, backend="null", tta="flip")
    pixels = [picture(seed, SPEC.height, SPEC.width) for seed in range(5)]
    logits_NK = flipping.logits_of_cropped(pixels).astype(np.float64)
    powers_NK = np.exp(logits_NK)
    # Logits are float32: a relative 6e-8 of numbers up to about 20.
    np.testing.assert_allclose(powers_NK.sum(axis=1), 1, rtol=5e-6)
    plain = Predictor.open(bundle, backend="null")
    for image, powers_K in zip(pixels, powers_NK, strict=True):
        views = []
        for view in (image, image[:, ::-1]):
            exponents_K = np.exp(plain.logits_of_cropped([view])[0].astype(np.float64))
            views.append(exponents_K / exponents_K.sum())
        np.testing.assert_allclose(powers_K, np.mean(views, axis=0), rtol=5e-6)
        assert not np.allclose(views[0], views[1])


def test_crops_answer_by_the_weighted_mean_of_probabilities_over_six_views(bundle):
    pixels = np.stack([picture(seed, SPEC.height, SPEC.width) for seed in range(3)])
    plain = Predictor.open(bundle, backend="null")
    wanted_NK = np.zeros((3, len(plain.labels)))
    for weight, seen in views_of(pixels, "crops"):
        powers_NK = np.exp(plain.logits_of_cropped(seen).astype(np.float64))
        wanted_NK += weight * powers_NK / powers_NK.sum(axis=1, keepdims=True)
    found_NK = Predictor.open(bundle, backend="null", tta="crops").logits_of_cropped(pixels)
    np.testing.assert_allclose(np.exp(found_NK.astype(np.float64)), wanted_NK, rtol=5e-6)  # as above
    assert not np.allclose(found_NK, Predictor.open(bundle, backend="null", tta="flip").logits_of_cropped(pixels))


def test_with_tta_an_image_and_its_mirror_image_get_the_same_answer_and_the_canaries_their_own(bundle):
    flipping, plain = (Predictor.open(bundle, backend="null", tta=tta) for tta in ("flip", None))
    pixels = picture(3, SPEC.height, SPEC.width)
    np.testing.assert_array_equal(
        flipping.logits_of_cropped([pixels]), flipping.logits_of_cropped([np.ascontiguousarray(pixels[:, ::-1])])
    )
    assert flipping.worst_canary() == plain.worst_canary()


# How it is run


def test_what_a_backend_does_not_know_is_refused_with_what_it_does(bundle: Bundle) -> None:
    def refusal(**how: Any) -> tuple[str, str | None]:
        with pytest.raises(LinneError) as caught:
            Predictor.open(bundle, backend="null", how=RunOptions(**how))
        return caught.value.message, caught.value.hint

    assert refusal(precision="fp16") == ("backend `null` does not compute in fp16", "it computes in fp32")
    assert refusal(options={"fast": "yes"}) == ("backend `null` has no option `fast`", "its options: none")
    assert refusal(num_threads=0)[0] == "0 threads, expected 1 or more"
    with pytest.raises(LinneError) as caught:
        require_known("torch", load_backend("torch"), RunOptions(options={"channels_last": "ture"}))
    assert caught.value.message == "option `channels_last` of backend `torch` is `ture`"
    assert caught.value.hint == "did you mean `true`?"


def test_auto_leaves_a_bundle_without_a_graph_to_torch_and_says_what_has_no_int8(bundle: Bundle) -> None:
    assert choose_backend("auto", bundle, device="cpu")[0] == "torch"
    with pytest.raises(LinneError, match="no backend can be used here: nothing in it computes in int8"):
        choose_backend("auto", bundle, "int8")
