"""Bundles made of SavedModels answer as TensorFlow does, and programs that do more than compute are refused unrun."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="needs `linne[tensorflow]`")
for package in ("tensorflow", "tf2onnx"):
    if importlib.util.find_spec(package) is None:
        pytest.skip("needs `linne[tensorflow]`: `pip install tensorflow-cpu tf2onnx`", allow_module_level=True)

import linne  # noqa: E402
from linne.errors import LinneError  # noqa: E402
from linne.inference.predictor import Predictor  # noqa: E402
from linne.preprocess import normalise  # noqa: E402

pytestmark = pytest.mark.long

MODELS = """
import json, os, sys
import keras, numpy as np, tensorflow as tf
from pathlib import Path
L, folder = keras.layers, Path(sys.argv[1])
keras.utils.set_random_seed(0)

def made(name, model, scale):
    model.export(folder / name, verbose=False)
    shape = model.inputs[0].shape[1:]
    pixels = np.random.default_rng(1).integers(0, 256, (3, *shape)).astype("float32") * scale
    (folder / f"{name}.json").write_text(json.dumps(model.predict(pixels, verbose=0).tolist()))

dense = keras.Sequential([keras.Input((28, 28)), L.Flatten(), L.Dense(16, activation="relu"), L.Dense(4)])
made("dense", dense, 1 / 255)
conv = [L.Conv2D(8, 3, padding="same", use_bias=False), L.BatchNormalization(), L.ReLU(), L.MaxPooling2D()]
made("conv", keras.Sequential([keras.Input((32, 32, 3)), L.Rescaling(1 / 127.5, -1), *conv,
                               L.Conv2D(8, 3, strides=2, padding="same"), L.GlobalAveragePooling2D(), L.Dense(4)]), 1)
flipped = keras.Sequential([keras.Input((8, 8, 3)), L.RandomFlip(), L.Flatten(), L.Dense(4)])
flipped.export(folder / "random", verbose=False)
tf.saved_model.save(dense, str(folder / "saved"))

class Own(tf.Module):
    def __init__(self, answer, table=False):
        self.weights, self.answer = tf.Variable(tf.ones((12, 4))), answer
        if table:
            self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a"], [1.0]), 0.0)

    @tf.function(input_signature=[tf.TensorSpec((None, 2, 2, 3), tf.float32)])
    def __call__(self, images):
        return self.answer(self, tf.reshape(images, (-1, 12)) @ self.weights)

def written(own, logits):
    with tf.control_dependencies([tf.io.write_file(str(folder / "written"), "x")]):
        return tf.identity(logits)

def inner(own, logits):
    return tf.cond(tf.reduce_sum(logits) > 1e9, lambda: logits, lambda: written(own, logits))

for name, own in {
    "write": Own(written), "inner": Own(inner),
    "python": Own(lambda own, logits: tf.ensure_shape(tf.py_function(lambda x: x, [logits], tf.float32), (None, 4))),
    "table": Own(lambda own, logits: logits + own.table.lookup(tf.constant("a")), table=True),
    "outputs": Own(lambda own, logits: {"one": logits, "two": -logits}),
}.items():
    tf.saved_model.save(own, str(folder / name), signatures=own.__call__)
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder of SavedModels, and what Keras answers to pixels drawn at random for some of them."""
    folder = tmp_path_factory.mktemp("models")
    environ = {**os.environ, "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    words = [sys.executable, "-W", "ignore", "-c", MODELS, folder]
    subprocess.run(words, check=True, capture_output=True, env=environ)
    (folder / "written").unlink(missing_ok=True)
    return folder


@pytest.fixture
def labels(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("ant\nbee\ncow\ndog\n")
    return file


@pytest.mark.parametrize(
    ("name", "expected", "word", "shape"),
    [
        ("dense", "dense", "unit", (28, 28, 1)),
        ("saved", "dense", "unit", (28, 28, 1)),
        ("conv", "conv", "raw", (32, 32, 3)),
    ],
)
def test_a_bundle_answers_as_keras_predicts(models, labels, tmp_path, name, expected, word, shape):
    asked = {"labels": labels, "preprocess": {"scaling": word}, "quiet": True}
    imported = linne.import_weights(models / name, tmp_path / "out", **asked)
    images = np.random.default_rng(1).integers(0, 256, (3, *shape)).astype(np.uint8)
    predictor = Predictor.open(tmp_path / "out")
    answers_NK = predictor.backend.run(normalise(images, predictor.bundle.input))
    expected_NK = np.array(json.loads((models / f"{expected}.json").read_text()), dtype=np.float32)
    # The same sums in fp32, in another order at most.
    np.testing.assert_allclose(answers_NK, expected_NK, rtol=0, atol=1e-4 * np.abs(expected_NK).max())
    assert imported.notes[0].startswith("the graph that tensorflow ")
    manifest = json.loads((tmp_path / "out" / "bundle.json").read_text())
    assert {"tensorflow", "tf2onnx"} <= manifest["provenance"]["versions"].keys()


def test_of_several_outputs_one_is_chosen_by_name(models, labels, tmp_path):
    asked = {"labels": labels, "preprocess": {"scaling": "unit"}, "quiet": True}
    with pytest.raises(LinneError, match=r"`.*outputs` has 2 outputs") as caught:
        linne.import_weights(models / "outputs", tmp_path / "out", **asked)
    assert caught.value.hint == "use --output-name with one of `one`, `two`"
    assert linne.import_weights(models / "outputs", tmp_path / "out", output_name="two", **asked).bundle


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("write", "runs `WriteFile`; taken are operations that only compute"),
        ("inner", "runs `WriteFile`; taken are operations that only compute"),
        (
            "random",
            r"draws random numbers to answer \(`Stateless.*\): it was exported with its augmentation of images on",
        ),
        ("python", "runs `EagerPyFunc`; taken are operations that only compute"),
        ("table", "holds a table, a file or an object of its own, which TensorFlow would run code of to load it"),
    ],
)
def test_a_program_that_does_more_than_compute_is_refused_and_was_not_run(models, labels, tmp_path, name, message):
    with pytest.raises(LinneError, match=message):
        linne.import_weights(models / name, tmp_path / "out", labels=labels, preprocess={"scaling": "unit"}, quiet=True)
    assert not (models / "written").exists()
    assert not (tmp_path / "out").exists()


def test_a_damaged_or_linked_model_is_refused(models, labels, tmp_path):
    asked = {"labels": labels, "preprocess": {"scaling": "unit"}, "quiet": True}
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"\xff" * 40)
    with pytest.raises(LinneError, match="is not converted: its program cannot be read"):
        linne.import_weights(folder, tmp_path / "out", **asked)
    (folder / "saved_model.pb").write_bytes((models / "dense" / "saved_model.pb").read_bytes())
    with pytest.raises(LinneError, match=r"is not converted: TensorFlow 2\.\S+ cannot open it"):
        linne.import_weights(folder, tmp_path / "out", **asked)
    (folder / "saved_model.pb").unlink()
    (folder / "saved_model.pb").symlink_to(models / "dense" / "saved_model.pb")
    with pytest.raises(LinneError, match=r"is no whole SavedModel: `saved_model\.pb` is a link"):
        linne.import_weights(folder, tmp_path / "out", **asked)
