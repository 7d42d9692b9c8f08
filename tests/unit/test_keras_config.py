"""What a Keras model is made of is known from its configuration, before Keras sees it; no Keras is needed for that."""

from __future__ import annotations

import json
import zipfile

import pytest

import linne
from linne.errors import LinneError
from linne.importing.from_keras import PACKAGES, as_rescaled
from linne.importing.in_child import Refused, one_image, one_output
from linne.importing.keras_config import begins_with_rescaling, not_listed, without_compiled


def layer(name, module="keras.layers", registered=None, /, **config):
    return {"module": module, "class_name": name, "config": config, "registered_name": registered}


def sequential(*layers):
    return layer("Sequential", "keras", layers=[layer("InputLayer", batch_shape=[None, 28, 28, 1]), *layers])


def functional(*layers):
    """A model whose layers follow one another by the histories of their tensors, as Keras 3 writes them."""
    chain = [layer("InputLayer", batch_shape=[None, 28, 28, 3]) | {"name": "in", "inbound_nodes": []}]
    for item in layers:
        tensor = {"class_name": "__keras_tensor__", "config": {"keras_history": [chain[-1]["name"], 0, 0]}}
        node = {"args": [tensor], "kwargs": {}}
        chain.append(item | {"name": f"layer_{len(chain)}", "inbound_nodes": [node]})
    return layer("Functional", "keras.src.models.functional", "Functional", layers=chain)


def written(path, config, metadata='{"keras_version": "3.15.1"}', weights=b"\x89HDF\r\n\x1a\n"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", metadata)
        archive.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        archive.writestr("model.weights.h5", weights)
    return path


def test_layers_that_only_compute_are_taken():
    dense = layer(
        "Dense",
        units=10,
        activation="relu",
        dtype=layer("DTypePolicy", "keras", name="float32"),
        kernel_initializer=layer("GlorotUniform", "keras.initializers", seed=None),
        kernel_regularizer=layer("L2", "keras.regularizers", l2=0.01),
    )
    scaled = layer("TrueDivide", "keras.src.ops.numpy", "TrueDivide")
    inner = sequential(layer("RandomFlip"), layer("Rescaling", scale=1 / 255))
    assert list(not_listed(functional(inner, scaled, layer("Conv2D"), layer("Flatten"), dense))) == []


@pytest.mark.parametrize(
    ("found", "named"),
    [
        (layer("Lambda", function={"class_name": "__lambda__", "config": {"code": "x"}}), "`Lambda` of `keras.layers`"),
        (layer("TFSMLayer", filepath="/tmp/x"), "`TFSMLayer` of `keras.layers`"),
        (layer("TorchModuleWrapper", module="x"), "`TorchModuleWrapper` of `keras.layers`"),
        (layer("StringLookup", vocabulary="/etc/passwd"), "`StringLookup` of `keras.layers`"),
        (layer("system", "os", command="true"), "`system` of `os`"),
        (layer("get_file", "keras.utils"), "`get_file` of `keras.utils`"),
        (layer("get", "keras.initializers"), "`get` of `keras.initializers`"),
        (layer("Dense", "keras.layers", "mine>Dense"), "`Dense` of `mine`"),
        (layer("Mine", None, "Mine"), "the custom class `Mine`"),
        (layer("Dense", "keras.src.legacy.layers"), "`Dense` of `keras.src.legacy.layers`"),
        ({"class_name": "__lambda__", "config": {"value": "x"}}, "the custom class `__lambda__`"),
        ({"class_name": "__typespec__", "spec_name": "x", "config": [], "module": "tensorflow"}, "`__typespec__`"),
        ({"class_name": "function", "module": "builtins", "config": "exec"}, "the function `exec`"),
        ({"class_name": ["Dense"], "module": "keras.layers", "config": {}}, "a class without a name"),
        ({"class_name": "__keras_tensor__", "module": "os", "config": {}}, "`__keras_tensor__` of `os`"),
    ],
)
@pytest.mark.parametrize("depth", ["a layer", "in a layer", "in a tensor's arguments"])
def test_whatever_else_keras_would_look_up_is_named(found, named, depth):
    places = {
        "a layer": sequential(found),
        "in a layer": sequential(layer("TimeDistributed", layer=sequential(layer("Dense", activation=found)))),
        "in a tensor's arguments": functional(layer("Dense") | {"kwargs": [[{"mask": found}]]}),
    }
    (refused,) = not_listed(places[depth])
    assert refused.startswith(named)


def test_what_a_model_was_compiled_with_is_left_out_at_any_depth():
    loss = {"loss": layer("get_file", "keras.utils")}
    model = sequential(sequential() | {"compile_config": loss}) | {"compile_config": loss}
    assert list(not_listed(model)) != []
    assert list(not_listed(without_compiled(model))) == []


@pytest.mark.parametrize("make", [sequential, functional])
def test_a_rescaling_for_pixels_of_0_to_255_is_seen_where_it_comes_first(make):
    flip, rescaling = layer("RandomFlip"), layer("Rescaling", scale=1 / 127.5, offset=-1)
    assert begins_with_rescaling(make(rescaling, layer("Dense")))
    assert begins_with_rescaling(make(flip, rescaling))
    assert begins_with_rescaling(make(sequential(flip), rescaling, layer("Dense")))
    assert begins_with_rescaling(make(make(flip, rescaling), layer("Dense")))
    assert not begins_with_rescaling(make(layer("Conv2D"), rescaling))
    assert not begins_with_rescaling(make(layer("Rescaling", scale=2.0, offset=-1)))
    assert not begins_with_rescaling(make(layer("Rescaling", scale=[1 / 255] * 3)))
    assert not begins_with_rescaling(make(layer("Normalization")))
    assert not begins_with_rescaling(make())
    assert not begins_with_rescaling(make(sequential(flip)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            sequential(layer("Lambda")),
            "needs `Lambda` of `keras.layers`; taken are those of Keras' own layers that only",
        ),
        (layer("Dense"), "needs a model that is neither Sequential nor Functional"),
        ('{"class_name": "Sequential", "class_name": "Sequential"}', "is damaged: .*appears twice"),
        ('{"a": NaN}', "is damaged: .*`NaN` is not a finite number"),
        ('{"a": ' + "[" * 70 + "]" * 70 + "}", "is damaged: .*nested deeper than 64 levels"),
        ("[]", "is damaged: .*holds a list, expected an object"),
    ],
)
def test_a_model_with_anything_else_is_refused_before_keras_is_asked_for(tmp_path, config, message):
    path = written(tmp_path / "model.keras", config)
    with pytest.raises(LinneError, match=message):
        linne.import_weights(path, tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_keras_3_models_say_what_they_are(tmp_path):
    path = tmp_path / "model.keras"
    for content, message in (
        (None, "no Keras model at `.*model.keras`: there is no such file"),
        (b"", "is no Keras model: it is not a zip"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file, which Keras opens without its checks"),
        (b"PK\x03\x04 cut", "is damaged"),
    ):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(LinneError, match=message):
            linne.import_weights(path, tmp_path / "out", quiet=True)
    written(path, sequential(), metadata='{"keras_version": "2.15.0"}')
    with pytest.raises(LinneError, match=r"was written by Keras 2\.15\.0, whose files Keras 3 does not open") as caught:
        linne.import_weights(path, tmp_path / "out", quiet=True)
    assert caught.value.hint.endswith("then `linne import saved`")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../config.json", "{}")
    with pytest.raises(LinneError, match=r"`\.\./config\.json` leads upward"):
        linne.import_weights(path, tmp_path / "out", quiet=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(sequential()))
    with pytest.raises(LinneError, match=r"holds no `model\.weights\.h5`, so Keras did not write it"):
        linne.import_weights(path, tmp_path / "out", quiet=True)


def test_a_zip_that_grows_without_end_is_refused(tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", json.dumps(sequential()))
        archive.writestr("model.weights.h5", bytes(12 * 10**6))
    with pytest.raises(LinneError, match="a bomb"):
        linne.import_weights(path, tmp_path / "out", quiet=True)


def test_without_keras_the_extra_is_named(tmp_path):
    from linne.importing.converting import Package, require

    with pytest.raises(LinneError, match="needs the package no_such_package to be imported") as caught:
        require([Package("no_such_package", "1.0", "")], tmp_path, "keras")
    assert caught.value.hint == "pip install 'linne[keras]'"
    with pytest.raises(LinneError, match=r"is not opened with numpy .*, expected 999\.0 or newer: it has holes"):
        require([Package("numpy", "999.0", "it has holes")], tmp_path, "keras")
    require([Package("numpy", "1.0", "")], tmp_path, "keras")
    assert [package.name for package in PACKAGES] == ["keras", "torch", "onnxscript", "onnx"]


def test_pixels_that_a_rescaling_is_not_meant_for_are_given_with_a_note():
    model = sequential(layer("Rescaling", scale=1 / 255))
    assert as_rescaled(model, {}) == (
        {"scaling": "raw"},
        ["it begins with a layer `Rescaling` for pixels of 0 to 255, and gets them as they are (`raw`)"],
    )
    assert as_rescaled(model, {"scaling": "raw"}) == ({"scaling": "raw"}, [])
    for said in ({"scaling": "unit"}, {"mean": (0.5,), "std": (0.5,)}):
        note = "it begins with a layer `Rescaling` for pixels of 0 to 255, and gets others, as you say"
        assert as_rescaled(model, said) == (said, [note])
        assert as_rescaled(sequential(layer("Flatten")), said) == (said, [])


def test_of_a_models_shape_only_height_and_width_may_be_open_and_have_to_be_said():
    assert one_image([None, 28, 28], 0, 0) == [28, 28]
    assert one_image([None, None, None, 3], 24, 32) == [24, 32, 3]
    assert one_image([None, 3, None, 32], 24, 0) == [3, 24, 32]
    for shape, message in (
        ([None, 784], r"takes input of shape \? x 784, expected a batch of images"),
        ([], "takes input of shape unknown"),
        ([None, None, 32, 3], "takes images of any height"),
        ([None, 24, 32, None], "takes images of any"),
    ):
        with pytest.raises(Refused, match=message):
            one_image(shape, 0, 0)
    with pytest.raises(Refused, match="takes images of any number of channels, expected 1 or 3"):
        one_image([None, None, 24, 32], 24, 32)


def test_of_several_outputs_one_is_chosen_by_name():
    assert one_output(["a"], "") == 0
    assert one_output(["a", "b"], "b") == 1
    for typed, message, hint in (
        ("", "has 2 outputs", "use --output-name with one of `a`, `b`"),
        ("c", "has no output `c`", "it has `a`, `b`"),
    ):
        with pytest.raises(Refused, match=message) as caught:
            one_output(["a", "b"], typed)
        assert caught.value.hint == hint
