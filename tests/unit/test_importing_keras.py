"""Bundles made of `.keras` files answer as Keras does, and files that reach for more than numbers are refused."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs `linne[keras]`")
pytest.importorskip("onnxruntime", reason="needs `linne[keras]`")
pytest.importorskip("torch", reason="needs `linne[keras]`")
INSTALL = "needs `linne[keras]`: `pip install 'keras>=3.15.1' onnxscript` runs these tests"
h5py = pytest.importorskip("h5py", reason=INSTALL)
for package in ("keras", "onnxscript"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(INSTALL, allow_module_level=True)

from fixtures.graphs import image_graph  # noqa: E402

import linne  # noqa: E402
from linne.errors import CheckFailed, LinneError  # noqa: E402
from linne.importing.converting import compared  # noqa: E402
from linne.importing.export_keras import require_plain  # noqa: E402
from linne.importing.in_child import Refused  # noqa: E402
from linne.inference.predictor import Predictor  # noqa: E402
from linne.metrics import softmax  # noqa: E402
from linne.preprocess import InputSpec, normalise  # noqa: E402

long = pytest.mark.long
UNIT = {"preprocess": {"scaling": "unit"}}

MODELS = """
import json, os, sys
os.environ["KERAS_BACKEND"] = "torch"
import keras, numpy as np
from pathlib import Path
L, folder, images = keras.layers, Path(sys.argv[1]), lambda *size: keras.Input(size)
keras.utils.set_random_seed(0)

def made(name, model, scale=1 / 255, answers=None):
    model.save(folder / f"{name}.keras")
    shape = [size or 24 for size in model.inputs[0].shape[1:]] if len(model.inputs) == 1 else None
    if shape is not None:
        pixels = np.random.default_rng(1).integers(0, 256, (3, *shape)).astype("float32") * scale
        expected = model.predict(pixels, verbose=0)
        expected = expected[answers] if answers is not None else expected
        (folder / f"{name}.json").write_text(json.dumps(expected.tolist()))

dense = [L.Flatten(), L.Dense(16, activation="relu"), L.Dropout(0.2), L.Dense(4)]
made("dense", keras.Sequential([images(28, 28), *dense]))
grey = [images(28, 28, 1), L.Rescaling(1 / 255), L.Flatten(), L.Dense(4, activation="softmax")]
made("grey", keras.Sequential(grey), 1)
conv = [L.Conv2D(8, 3, padding="same", use_bias=False), L.BatchNormalization(), L.ReLU(), L.MaxPooling2D()]
network = keras.Sequential([images(32, 32, 3), L.RandomFlip(), L.Rescaling(1 / 127.5, -1), *conv,
                            L.Conv2D(8, 3, strides=2, padding="same"), L.GlobalAveragePooling2D(), L.Dense(4)])
network.compile("sgd", "mse")
network.fit(np.random.default_rng(0).random((16, 32, 32, 3)) * 255, np.zeros((16, 4)), verbose=0)
made("conv", network, 1)
made("mobilenet", keras.applications.MobileNetV2(weights=None, input_shape=(96, 96, 3), classes=4, alpha=0.35))
pixels = images(48, 48, 3)
base = keras.applications.MobileNetV2(weights=None, input_shape=(48, 48, 3), include_top=False, alpha=0.35)
after = base(keras.applications.mobilenet_v2.preprocess_input(L.RandomRotation(0.1)(pixels)), training=False)
made("tutorial", keras.Model(pixels, L.Dense(4)(L.Dropout(0.2)(L.GlobalAveragePooling2D()(after)))), 1)
pixels = images(16, 16, 3)
patches = L.Reshape((16, 8))(L.LayerNormalization()(L.Conv2D(8, 4, strides=4)(pixels)))
seen = L.GlobalAveragePooling1D()(L.MultiHeadAttention(2, 4)(patches, patches))
made("attention", keras.Model(pixels, L.Dense(4)(seen)))
pixels = images(None, None, 3)
made("open", keras.Model(pixels, L.Dense(4)(L.GlobalAveragePooling2D()(L.Conv2D(4, 3)(pixels)))))
pixels = images(8, 8, 3)
flat = L.Flatten()(pixels)
made("outputs", keras.Model(pixels, [L.Dense(2, name="one")(flat), L.Dense(4, name="two")(flat)]), answers=1)
other = images(8, 8, 3)
made("inputs", keras.Model([pixels, other], L.Dense(4)(L.Flatten()(L.Add()([pixels, other])))))
keras.Sequential([L.Flatten(), L.Dense(4)]).save(folder / "shapeless.keras")
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder of models and of what Keras answers to pixels drawn at random."""
    folder = tmp_path_factory.mktemp("models")
    subprocess.run([sys.executable, "-W", "ignore", "-c", MODELS, folder], check=True, capture_output=True)
    return folder


@pytest.fixture
def labels(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("ant\nbee\ncow\ndog\n")
    return file


@long
@pytest.mark.parametrize(
    ("name", "said", "shape"),
    [
        ("dense", UNIT, (28, 28)),
        ("grey", {}, (28, 28, 1)),
        ("conv", {}, (32, 32, 3)),
        ("mobilenet", UNIT, (96, 96, 3)),
        ("tutorial", {"preprocess": {"scaling": "raw"}}, (48, 48, 3)),
        ("attention", UNIT, (16, 16, 3)),
        ("open", {"preprocess": {"scaling": "unit", "height": 24, "width": 24}}, (24, 24, 3)),
        ("outputs", {"preprocess": {"scaling": "unit"}, "output_name": "two"}, (8, 8, 3)),
    ],
)
def test_a_bundle_answers_as_keras_predicts(models, labels, tmp_path, name, said, shape):
    imported = linne.import_weights(models / f"{name}.keras", tmp_path / "out", labels=labels, quiet=True, **said)
    pixels = np.random.default_rng(1).integers(0, 256, (3, *shape)).astype(np.uint8)
    images = pixels if pixels.ndim == 4 else pixels[..., None]
    predictor = Predictor.open(tmp_path / "out")
    answers_NK = predictor.backend.run(normalise(images, predictor.bundle.input))
    expected_NK = np.array(json.loads((models / f"{name}.json").read_text()), dtype=np.float32)
    if name in ("grey", "mobilenet"):  # end in Softmax, and bundles answer with logits
        answers_NK = softmax(answers_NK)
    # The same sums in fp32, in another order at most.
    np.testing.assert_allclose(answers_NK, expected_NK, rtol=0, atol=1e-4 * np.abs(expected_NK).max())
    assert ("preprocess" in said) != any(
        note.startswith("it begins with a layer `Rescaling`") for note in imported.notes
    )
    assert any("answers random pixels as it does itself" in note for note in imported.notes)
    manifest = json.loads((tmp_path / "out" / "bundle.json").read_text())
    assert manifest["provenance"]["imported"]["weights"].endswith(f"{name}.keras")
    assert manifest["provenance"]["versions"]["keras"] >= "3.15.1"


@long
@pytest.mark.parametrize(
    ("name", "said", "message", "hint"),
    [
        (
            "dense",
            {},
            "nobody says how pixels are scaled for `.*dense.keras`",
            "use --preprocess with one of `imagenet`",
        ),
        ("inputs", UNIT, r"takes 2 inputs \(`.*`, `.*`\), expected one, of images", None),
        ("shapeless", UNIT, "does not say the shape of its input", "save it after `model.build"),
    ],
)
def test_what_is_not_said_or_too_much_is_an_error_that_says_so(models, labels, tmp_path, name, said, message, hint):
    with pytest.raises(LinneError, match=message) as caught:
        linne.import_weights(models / f"{name}.keras", tmp_path / "out", labels=labels, quiet=True, **said)
    assert (caught.value.hint or "").startswith(hint or "")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda g: g.__setitem__("1", h5py.ExternalLink("/etc/passwd", "/x")), "behind a link (`1`), which is not"),
        (lambda g: g.__setitem__("1", h5py.SoftLink("/layers/dense/vars/0")), "behind a link (`1`), which is not"),
        (
            lambda g: g.create_dataset("1", (4,), dtype="f4", external=[("/etc/passwd", 0, 16)]),
            "keeps weights in another file (`/layers/dense/vars/1`)",
        ),
        (
            lambda g: g.create_virtual_dataset("1", h5py.VirtualLayout((4,), "f4")),
            "keeps weights in another file (`/layers/dense/vars/1`)",
        ),
        (
            lambda g: g.create_dataset("1", (10**9,), dtype="f4", chunks=(1000,), compression="gzip"),
            "claims 1,000,000,000 numbers for `/layers/dense/vars/1`",
        ),
        (lambda g: g.create_dataset("1", data=["text"]), "keeps something that is no number among its weights"),
        (lambda g: g.__setitem__("1", np.dtype("f4")), "keeps weights in another file (`/layers/dense/vars/1`)"),
    ],
    ids=["external link", "soft link", "external bytes", "virtual", "hollow", "text", "type"],
)
def test_weights_that_lead_elsewhere_or_are_not_there_are_refused(tmp_path, make, message):
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        group = file.create_group("layers/dense/vars")
        group.create_dataset("0", data=np.ones((2, 4), np.float32))
    require_plain(tmp_path / "weights.h5")
    with h5py.File(tmp_path / "weights.h5", "a") as file:
        made = make(file["layers/dense/vars"])
        del made
    with pytest.raises(Refused) as caught:
        require_plain(tmp_path / "weights.h5")
    assert message in str(caught.value)


@long
def test_weights_that_lead_elsewhere_are_refused_within_a_model(models, labels, tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(models / "dense.keras") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "model.weights.h5":
                (tmp_path / "weights.h5").write_bytes(data)
                with h5py.File(tmp_path / "weights.h5", "a") as file:
                    del file["layers/dense/vars/1"]
                    file["layers/dense/vars/1"] = h5py.ExternalLink("/etc/passwd", "/x")
                data = (tmp_path / "weights.h5").read_bytes()
            new.writestr(name, data)
    with pytest.raises(
        LinneError, match=r"`.*model\.keras` keeps weights behind a link \(`1`\), which is not followed"
    ):
        linne.import_weights(path, tmp_path / "out", labels=labels, preprocess={"scaling": "unit"}, quiet=True)


def test_a_graph_that_answers_otherwise_than_its_library_is_refused(tmp_path):
    spec = InputSpec(channels=3, height=8, width=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    onnx.save(image_graph(2, spec), tmp_path / "model.onnx")
    done = {"library": "keras", "versions": {"keras": "3"}, "sizes": [3, 8, 8], "answers": [[0, 0], [0, 1]]}
    with pytest.raises(CheckFailed, match="the graph that keras 3 made of it answers otherwise than keras 3 itself"):
        compared(tmp_path / "model.onnx", "model.keras", done)


@long
def test_while_a_model_is_opened_python_neither_connects_nor_starts_programs_nor_writes_elsewhere(tmp_path):
    program = (
        "import os, socket, subprocess, sys\n"
        "from pathlib import Path\n"
        "from linne.importing.export_keras import fence\n"
        "home, outside = map(Path, sys.argv[1:])\n"
        "fence(home)\n"
        "(home / 'a').write_text('b')\n"
        "for forbidden in (\n"
        "    lambda: outside.write_text('b'),\n"
        "    lambda: os.open(outside, os.O_CREAT | os.O_WRONLY),\n"
        "    lambda: socket.create_connection(('127.0.0.1', 9)),\n"
        "    lambda: subprocess.run([sys.executable, '-V']),\n"
        "    lambda: os.system('true'),\n"
        "):\n"
        "    try:\n"
        "        forbidden()\n"
        "    except PermissionError:\n"
        "        continue\n"
        "    raise SystemExit('not refused')\n"
    )
    (tmp_path / "home").mkdir()
    words = [sys.executable, "-c", program, tmp_path / "home", tmp_path / "outside"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert not (tmp_path / "outside").exists()
