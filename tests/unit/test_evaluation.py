from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from linne.data.source import Source, Split
from linne.errors import BundleError, CheckFailed, ImageError, SourceError
from linne.evaluation import CHUNK_IMAGES, evaluate, matched_by_place
from linne.inference.backends.null import write_null_bundle
from linne.preprocess import InputSpec
from linne.trained_on import as_in_training

SPEC = InputSpec(channels=1, height=4, width=4, mean=(0.5,), std=(0.5,))


@dataclass
class ArrayStore:
    """Images in memory whose first pixel says what they are."""

    array: np.ndarray

    def __len__(self):
        return len(self.array)

    def load(self, index):
        return self.array[index]

    def name(self, index):
        return f"train[{index}]"


@dataclass
class FileStore:
    """Images of different sizes read one by one, some of which cannot be."""

    values: list[int | None]
    array = None
    reads: list[int] = field(default_factory=list)

    def __len__(self):
        return len(self.values)

    def load(self, index):
        self.reads.append(index)
        if self.values[index] is None:
            raise ImageError(f"`{self.name(index)}` cannot be decoded")
        return np.full((4 + index % 3, 5, 1), self.values[index], dtype=np.uint8)

    def name(self, index):
        return f"photos/{index}.jpg"


class FirstPixelPredictor:
    """Answers with the class whose number is the value of the first pixel."""

    def __init__(self, labels, channels=1, strength=4.0):
        spec = InputSpec(channels=channels, height=4, width=4, mean=(0.5,) * channels, std=(0.5,) * channels)
        self.labels = tuple(labels)
        self.bundle = SimpleNamespace(path=Path("runs/fake-1/bundle"), labels=self.labels, input=spec)
        self.strength = strength
        self.tta = None
        self.chunks = []

    def logits_of_cropped(self, images):
        self.chunks.append(images)
        first = [int(image[0, 0, 0]) for image in images]
        return np.eye(len(self.labels), dtype=np.float32)[first] * np.float32(self.strength)


def source_of(store, labels_N, names=("cat", "dog", "emu"), indices=None):
    indices = np.arange(len(labels_N)) if indices is None else np.asarray(indices)
    split = Split(name="test", store=store, indices_N=indices, labels_N=np.asarray(labels_N, dtype=np.int64))
    return Source(
        name="folder:pets",
        labels=names,
        splits={"train": split, "test": split},
        fingerprint="0" * 64,
        channels=1,
        image_size=(4, 4),
        same_size=True,
    )


def array_of(values, channels=1):
    return ArrayStore(np.array(values, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, channels), np.uint8))


def test_a_list_that_states_test_alone_is_evaluated_on_by_a_bundle_of_other_images(tmp_path):
    bundle = write_null_bundle(tmp_path / "bundle", ("cat", "dog", "emu"), SPEC)
    for name, level in (("a.png", 0), ("b.png", 1), ("c.png", 1)):
        Image.new("L", (4, 4), level).save(tmp_path / name)
    place = tmp_path / "test.csv"
    place.write_text("path,label,split\na.png,cat,test\nb.png,dog,test\nc.png,cat,test\n")
    source = as_in_training(bundle, str(place), None)
    report, _ = evaluate(FirstPixelPredictor(bundle.labels), source)
    assert (report.num_examples, report.accuracy) == (3, 2 / 3)


def test_the_report_counts_what_the_model_answers():
    report, outcomes = evaluate(
        FirstPixelPredictor(["cat", "dog", "emu"]), source_of(array_of([0, 1, 2, 2]), [0, 1, 2, 0])
    )
    assert report.accuracy == 0.75
    assert (report.num_right, report.num_examples, report.num_skipped) == (3, 4, 0)
    assert report.confusion == ((1, 0, 1), (0, 1, 0), (0, 0, 1))
    assert [pair.label + ">" + pair.predicted for pair in report.most_confused] == ["cat>emu"]
    assert [(m.name, m.label, m.predicted) for m in report.worst_mistakes] == [("train[3]", "cat", "emu")]
    assert report.worst_mistakes[0].probability == pytest.approx(np.exp(4) / (np.exp(4) + 2))
    assert (report.source, report.split, report.bundle) == ("folder:pets", "test", "runs/fake-1/bundle")
    assert outcomes.logits_NK.shape == (4, 3)
    assert outcomes.labels_N.tolist() == [0, 1, 2, 0]
    assert outcomes.positions_N.tolist() == [0, 1, 2, 3]


def test_classes_are_mapped_by_name_not_by_position():
    store = array_of([1, 0])  # the bundle's `dog` is 1, its `cat` 0
    report, outcomes = evaluate(
        FirstPixelPredictor(["cat", "dog", "emu"]), source_of(store, [0, 1], names=("dog", "cat"))
    )
    assert report.accuracy == 1.0
    assert outcomes.labels_N.tolist() == [1, 0]
    assert report.labels == ("cat", "dog", "emu")


def test_a_class_that_only_the_bundle_knows_has_no_examples():
    report, _ = evaluate(FirstPixelPredictor(["cat", "dog", "emu"]), source_of(array_of([0]), [0], names=("cat",)))
    assert [(row.label, row.count) for row in report.per_class] == [("cat", 1), ("dog", 0), ("emu", 0)]
    assert report.macro == {"precision": 1.0, "recall": 1.0, "f1": 1.0}


def test_the_same_classes_under_other_names_are_matched_by_their_place_and_that_is_said():
    labels, names = ("crane", "crane (2)", "emu, Dromaius"), ("crane (n02012849)", "crane (n03126707)", "emu")
    source = source_of(array_of([0, 1, 2]), [0, 1, 2], names=names)
    report, _ = evaluate(FirstPixelPredictor(labels), source)
    assert (report.accuracy, report.labels) == (1.0, labels)
    assert matched_by_place(source, labels) == (
        "classes are matched by their place: the bundle has other names for 3 of 3 classes, `crane` for "
        "`crane (n02012849)`"
    )
    assert matched_by_place(source, names) is None
    assert matched_by_place(source, ("cat", "dog", "wolf")) is None


def test_a_class_unknown_to_the_bundle_is_an_error_that_names_the_nearest():
    with pytest.raises(BundleError) as caught:
        evaluate(FirstPixelPredictor(["cat", "dog"]), source_of(array_of([0]), [0], names=("cats", "wolf")))
    assert caught.value.message == "the bundle does not know the class `cats` and 1 more of `folder:pets`"
    assert caught.value.hint == "did you mean `cat`?"


def test_a_class_that_resembles_none_lists_the_bundles_classes():
    with pytest.raises(BundleError) as caught:
        evaluate(FirstPixelPredictor(["cat", "dog"]), source_of(array_of([0]), [0], names=("zebra",)))
    assert caught.value.message == "the bundle does not know the class `zebra` of `folder:pets`"
    assert caught.value.hint == "its 2 classes are `cat`, `dog`"


def test_a_split_that_is_not_there_lists_those_that_are():
    with pytest.raises(SourceError) as caught:
        evaluate(FirstPixelPredictor(["cat", "dog", "emu"]), source_of(array_of([0]), [0]), "tset")
    assert caught.value.message == "`folder:pets` has no split `tset`; it has `train`, `test`"
    assert caught.value.hint == "did you mean `test`?"


def test_a_split_without_examples_is_an_error():
    with pytest.raises(SourceError, match="split `test` of `folder:pets` has no examples"):
        evaluate(FirstPixelPredictor(["cat", "dog", "emu"]), source_of(array_of([0]), []))


def test_unreadable_images_are_left_out_named_and_never_replaced_by_a_neighbour():
    store = FileStore([0, None, 2, None, 1])
    report, outcomes = evaluate(FirstPixelPredictor(["cat", "dog", "emu"]), source_of(store, [0, 0, 2, 1, 1]))
    assert report.skipped == outcomes.skipped == ("photos/1.jpg", "photos/3.jpg")
    assert (report.num_examples, report.num_skipped, report.accuracy) == (3, 2, 1.0)
    assert outcomes.positions_N.tolist() == [0, 2, 4]
    assert outcomes.labels_N.tolist() == [0, 2, 1]


def test_a_split_of_which_nothing_can_be_read_is_an_error():
    with pytest.raises(SourceError) as caught:
        evaluate(FirstPixelPredictor(["cat"]), source_of(FileStore([None, None]), [0, 0], names=("cat",)))
    assert caught.value.message == "none of the 2 images of split `test` can be read; the first is `photos/0.jpg`"


def test_answers_that_are_not_numbers_fail_the_check():
    predictor = FirstPixelPredictor(["cat", "dog", "emu"], strength=float("inf"))
    with pytest.raises(CheckFailed) as caught, np.errstate(invalid="ignore"):
        evaluate(predictor, source_of(array_of([0, 1]), [0, 1]))
    assert caught.value.message == "the model's answers to 2 of 2 images are not numbers"


def test_images_in_memory_go_to_the_model_as_arrays_in_chunks():
    num = CHUNK_IMAGES + 10
    values = np.arange(num) % 3
    predictor = FirstPixelPredictor(["cat", "dog", "emu"])
    report, _ = evaluate(predictor, source_of(array_of(values[::-1]), values, indices=np.arange(num)[::-1]))
    assert report.accuracy == 1.0
    assert [chunk.shape for chunk in predictor.chunks] == [(CHUNK_IMAGES, 4, 4, 1), (10, 4, 4, 1)]


def test_images_in_memory_with_other_channels_are_converted_by_the_store():
    predictor = FirstPixelPredictor(["cat", "dog", "emu"], channels=3)
    report, _ = evaluate(predictor, source_of(array_of([2, 1]), [2, 1]))
    assert report.accuracy == 1.0
    assert [image.shape for image in predictor.chunks[0]] == [(4, 4, 3), (4, 4, 3)]


def test_files_are_decoded_a_few_ahead_and_not_all_at_once():
    store = FileStore([k % 3 for k in range(CHUNK_IMAGES + 600)])
    reads_at_first_chunk = []

    class Watching(FirstPixelPredictor):
        def logits_of_cropped(self, images):
            reads_at_first_chunk.append(len(store.reads))
            return super().logits_of_cropped(images)

    report, _ = evaluate(Watching(["cat", "dog", "emu"]), source_of(store, store.values))
    assert report.accuracy == 1.0
    assert reads_at_first_chunk[0] < CHUNK_IMAGES + 100


def test_importing_evaluation_imports_neither_scikit_learn_nor_matplotlib_nor_torch():
    program = (
        "import sys, linne.metrics, linne.report, linne.evaluation, linne.plotting, linne.reporting;"
        "print(sorted({'sklearn', 'matplotlib', 'torch', 'scipy', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
