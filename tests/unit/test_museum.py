"""Each odd image of the museum has one result, and that one in training, evaluation and prediction alike."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from museum import exhibits
from museum.fuzzing import judge_peek
from museum.picture import Exhibit

from linne.bundle import Bundle
from linne.data.files import FileStore, Names
from linne.data.images.decode import decode, to_input
from linne.data.images.headers import FORMATS, sniff
from linne.data.loading.loader import input_spec, make_batches
from linne.data.source import Source, Split
from linne.device import Device
from linne.errors import ImageError
from linne.evaluation import evaluate
from linne.fast_resize import torch_resize
from linne.inference.backends.null import write_null_bundle
from linne.inference.predictor import Predictor
from linne.preprocess import Floats, Resize, UInt8, normalise, pillow_resize, resize_and_crop
from linne.recipe import AugmentConfig, DataConfig, DeviceConfig, OptimConfig, Recipe

EXHIBITS = exhibits()
LABELS = ("shown", "refused")


def outcome(exhibit: Exhibit, channels: int = 3) -> UInt8 | str:
    """Return the pixels, or what is said after the name."""
    try:
        return decode(exhibit.data, channels, name=exhibit.name)
    except ImageError as error:
        before, said, after = error.message.partition(f"`{exhibit.name}` cannot be read: ")
        return after if said and not before and after.isprintable() else f"no proper message: {error.message!r}"


def grey_of(rgb_HWC: UInt8) -> UInt8:
    """Return 0.299 R + 0.587 G + 0.114 B in the 16-bit integers of ITU-R 601 as everybody has them, H x W x 1."""
    weighted = rgb_HWC.astype(np.int64) @ np.array([19595, 38470, 7471]) + 0x8000
    return (weighted >> 16).astype(np.uint8)[..., None]


def test_the_museum_has_more_than_200_exhibits_of_every_format_both_shown_and_refused():
    assert len({exhibit.name for exhibit in EXHIBITS}) == len(EXHIBITS) >= 200
    kinds = Counter((sniff(exhibit.data), exhibit.shows is not None) for exhibit in EXHIBITS)
    assert all(kinds[kind, shown] >= 10 for kind in FORMATS for shown in (True, False)), kinds


@pytest.mark.parametrize("exhibit", EXHIBITS, ids=lambda exhibit: exhibit.name)
def test_an_exhibit_shows_what_it_must_or_is_refused_in_the_words_it_must(exhibit):
    found = outcome(exhibit)
    assert judge_peek(exhibit.data) is None, "size and colour are known without decoding"
    if exhibit.shows is None:
        assert isinstance(found, str), "shown, though it must be refused"
        assert found.startswith(exhibit.refusal)
        assert outcome(exhibit, 1) == found
        return
    assert not isinstance(found, str), f"refused, though it must be shown: {found}"
    assert found.shape == exhibit.shows.shape
    difference = np.abs(found.astype(int) - exhibit.shows)
    assert difference.mean() <= exhibit.within
    assert exhibit.within or difference.max() == 0
    grey = outcome(exhibit, 1)
    assert np.array_equal(grey, grey_of(found)), "grey is what is grey of its colours"


# The same for training, evaluation and prediction


class RecordingBackend:
    """Keeps what it is given."""

    description = "recorder"

    def __init__(self) -> None:
        self.given: list[Floats] = []

    def run(self, images_NCHW: Floats) -> Floats:
        self.given.append(images_NCHW.copy())
        return np.zeros((len(images_NCHW), len(LABELS)), np.float32)


def make_recipe(loader: str, channels: int) -> Recipe:
    data = DataConfig(
        source="museum",
        loader=loader,
        channels=channels,
        height=4,
        width=4 if channels == 3 else 5,
        mean=(0.45,) * channels,
        std=(0.3,) * channels,
        crop_pct=0.875,
        interpolation="bicubic" if channels == 3 else "bilinear",
        batch_size=50,
        num_workers=2,
        max_bad_images=10**6,
        cache=False,
    )
    return Recipe(data=data, optim=OptimConfig(), augment=AugmentConfig(), device=DeviceConfig(), seed=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The museum as files."""
    folder = tmp_path_factory.mktemp("museum")
    for exhibit in EXHIBITS:
        (folder / exhibit.name).write_bytes(exhibit.data)
    return folder


@pytest.fixture(scope="module")
def source(folder: Path) -> Source:
    """The museum as a set whose three splits are all of it."""
    sizes_N = np.array([len(exhibit.data) for exhibit in EXHIBITS])
    store = FileStore(str(folder), Names.of([exhibit.name for exhibit in EXHIBITS]), sizes_N)
    labels_N = np.array([int(exhibit.shows is None) for exhibit in EXHIBITS])
    splits = {name: Split(name, store, np.arange(len(EXHIBITS)), labels_N) for name in ("train", "val", "test")}
    return Source("museum", LABELS, splits, "0" * 64, 3, (12, 20), same_size=False)


@pytest.fixture(scope="module", params=[3, 1], ids=["colour", "grey"])
def channels(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(scope="module")
def bundle(channels: int, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    spec = input_spec(make_recipe("streaming", channels))
    return write_null_bundle(tmp_path_factory.mktemp("bundle") / "museum", LABELS, spec)


def expected_input(bundle: Bundle, resize: Resize = pillow_resize) -> tuple[Floats, list[str]]:
    """Return the model input of all that can be shown, and the names of the rest."""
    images, names = [], []
    for exhibit in EXHIBITS:
        try:
            images.append(to_input(exhibit.data, bundle.input, name=exhibit.name, resize=resize))
        except ImageError:
            names.append(exhibit.name)
    return normalise(np.stack(images), bundle.input), names


def test_some_of_them_are_jpegs_that_are_decoded_at_a_reduced_size(bundle):
    differ = []
    for exhibit in EXHIBITS:
        if exhibit.shows is not None and exhibit.name.endswith(".jpg"):
            whole = resize_and_crop(decode(exhibit.data, bundle.input.channels), bundle.input)
            differ.append(not np.array_equal(to_input(exhibit.data, bundle.input, name=exhibit.name), whole))
    assert 0 < sum(differ) < len(differ)


def test_evaluation_and_prediction_give_a_backend_the_references_numbers_bit_for_bit(bundle, source, folder):
    expected, refused = expected_input(bundle)
    assert refused == [exhibit.name for exhibit in EXHIBITS if exhibit.shows is None]
    predicting, evaluating = RecordingBackend(), RecordingBackend()
    predictor = Predictor(bundle, predicting, "recorder", "asked for")
    predictions = list(predictor.predict_files([folder / exhibit.name for exhibit in EXHIBITS]))
    assert [Path(row.file).name for row in predictions if row.error is not None] == refused
    assert np.array_equal(np.concatenate(predicting.given), expected)
    report, _ = evaluate(Predictor(bundle, evaluating, "recorder", "asked for"), source)
    assert list(report.skipped) == refused
    assert np.array_equal(np.concatenate(evaluating.given), expected)


@pytest.mark.parametrize("loader", ["streaming", "resident"])
def test_training_sees_the_same_numbers_whatever_the_loader_within_two_levels_of_the_backends(
    bundle, channels, source, loader
):
    expected, refused = expected_input(bundle, torch_resize)
    two_levels = 2 / 255 / min(bundle.input.std)
    assert np.abs(expected - expected_input(bundle)[0]).max() <= two_levels + 1e-6, "rounding of fp32"
    train, val = make_batches(source, make_recipe(loader, channels), Device.pick("cpu"))
    for batches in (train, val):
        seen = np.concatenate([batch.images_NCHW.numpy() for batch in batches.in_order()])
        assert np.array_equal(seen, expected)
        assert [problem.split("`")[1] for problem in batches.bad_images.values()] == refused
