"""Weights from files and folders: what is read, what is said beside them, and what is refused without being run."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs `linne[train]`")

from safetensors.torch import save_file  # noqa: E402

from linne.errors import LinneError  # noqa: E402
from linne.inference.backends.null import write_null_bundle  # noqa: E402
from linne.preprocess import InputSpec, resized_size  # noqa: E402
from linne.weights import read_weights  # noqa: E402
from linne.weights.torch_files import require_safe  # noqa: E402

STATE = {"conv.weight": torch.arange(12.0).reshape(1, 3, 2, 2), "conv.bias": torch.tensor([0.5])}
AVERAGED = {name: tensor + 1 for name, tensor in STATE.items()}


class Hostile:
    """Unpickled by Python's own unpickler, it makes a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.proof),)


def refusal(path: Path) -> tuple[str, str | None]:
    with pytest.raises(LinneError) as failure:
        read_weights(path)
    return failure.value.message, failure.value.hint


def same(found, expected=STATE) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


# Files


def test_a_safetensors_file_gives_its_tensors_and_its_hash(tmp_path):
    save_file(STATE, tmp_path / "a.safetensors")
    weights = read_weights(tmp_path / "a.safetensors")
    assert same(weights.tensors)
    assert weights.origin == str(tmp_path / "a.safetensors")
    assert weights.sha256 == hashlib.sha256((tmp_path / "a.safetensors").read_bytes()).hexdigest()
    assert (weights.labels, weights.input, weights.model, weights.part) == (None, None, None, None)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.bin", "a.pth.tar", "a.ckpt"])
def test_a_torch_file_of_the_present_and_the_legacy_format_gives_its_tensors(tmp_path, name, zipped):
    torch.save(STATE, tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert same(read_weights(tmp_path / name).tensors)


def test_changing_the_tensors_leaves_the_file_as_it_is(tmp_path):
    torch.save(STATE, tmp_path / "a.pth")
    before = (tmp_path / "a.pth").read_bytes()
    read_weights(tmp_path / "a.pth").tensors["conv.bias"].add_(1)
    assert (tmp_path / "a.pth").read_bytes() == before


@pytest.mark.parametrize(
    ("checkpoint", "part"),
    [
        ({"state_dict": STATE, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": STATE["conv.bias"]}}}}, "state_dict"),
        ({"model": STATE, "lr_scheduler": {}, "args": argparse.Namespace(lr=0.1, model="resnet18")}, "model"),
        ({"model_state_dict": STATE}, "model_state_dict"),
        ({"net": STATE, "acc": 93.2}, "net"),
        ({"state_dict": {"module": STATE}}, "state_dict.module"),
        ({"pytorch-lightning_version": "2.5", "state_dict": STATE, "hyper_parameters": {"lr": 1}}, "state_dict"),
    ],
)
def test_the_networks_entry_of_a_checkpoint_is_found(tmp_path, checkpoint, part):
    torch.save(checkpoint, tmp_path / "a.pth")
    weights = read_weights(tmp_path / "a.pth")
    assert same(weights.tensors)
    assert weights.part == part


@pytest.mark.parametrize(("plain", "mean"), [("state_dict", "state_dict_ema"), ("model", "model_ema")])
def test_averaged_weights_are_taken_where_a_file_has_both(tmp_path, plain, mean):
    torch.save({plain: STATE, mean: AVERAGED}, tmp_path / "a.pth")
    weights = read_weights(tmp_path / "a.pth")
    assert same(weights.tensors, AVERAGED)
    assert weights.part == mean


def test_a_checkpoint_without_averaged_weights_has_the_plain_ones(tmp_path):
    torch.save({"state_dict": STATE, "state_dict_ema": None}, tmp_path / "a.pth")
    assert same(read_weights(tmp_path / "a.pth").tensors)


def test_a_checkpoint_of_something_else_says_what_it_holds(tmp_path):
    torch.save({"epoch": 3, "generator": STATE}, tmp_path / "a.pth")
    message, hint = refusal(tmp_path / "a.pth")
    assert message == f"`{tmp_path / 'a.pth'}` holds `epoch`, `generator`, none of which is a network's tensors by name"
    assert hint
    assert "model.state_dict()" in hint


def test_onnx_initialisers_are_read_by_name_and_data_elsewhere_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx", reason="needs `pip install onnx`")
    values = [
        onnx.numpy_helper.from_array(STATE["conv.weight"].numpy(), "conv.weight"),
        onnx.numpy_helper.from_array(STATE["conv.bias"].numpy(), "conv.bias"),
    ]
    graph = onnx.helper.make_graph([], "g", [], [], initializer=values)
    model = onnx.helper.make_model(graph)
    onnx.save(model, tmp_path / "a.onnx")
    assert same(read_weights(tmp_path / "a.onnx").tensors)

    onnx.save(model, tmp_path / "b.onnx", save_as_external_data=True, size_threshold=0, location="data")
    message, _ = refusal(tmp_path / "b.onnx")
    assert message == f"`{tmp_path / 'b.onnx'}` keeps `conv.weight` in another file, which is not followed"


# What is refused


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_torch_file_is_refused_by_name_and_does_not_run(tmp_path, zipped):
    proof = tmp_path / "it-ran"
    torch.save({"state_dict": STATE, "x": Hostile(proof)}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    message, hint = refusal(tmp_path / "a.pth")
    assert "`posix.mkdir`" in message or "`nt.mkdir`" in message
    assert "nothing in it was used" in message
    assert hint
    assert "torch.save(model.state_dict()" in hint
    assert not proof.exists()


@pytest.mark.parametrize("name", ["a.pth", "a.bin"])
def test_a_plain_pickle_is_refused_and_does_not_run(tmp_path, name):
    proof = tmp_path / "it-ran"
    (tmp_path / name).write_bytes(pickle.dumps(Hostile(proof)))
    message, _ = refusal(tmp_path / name)
    assert message == f"`{tmp_path / name}` is a pickle (joblib or Python's own), which runs code when it is read"
    assert not proof.exists()


def test_a_pickled_network_is_refused_with_the_name_of_its_class(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pth")
    message, _ = refusal(tmp_path / "a.pth")
    assert "`torch.nn.modules.linear.Linear`" in message


def test_a_torchscript_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"a/{name}", b"")
    assert "is a TorchScript archive" in refusal(tmp_path / "a.pt")[0]


def test_an_archive_that_unpacks_to_more_than_it_is_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(100_000))
    assert refusal(tmp_path / "a.pt")[0].endswith("`a/data.pkl` is compressed, which `torch.save` never does")


def test_a_tensor_that_claims_more_than_the_file_holds_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(1).expand(10**9)}, tmp_path / "a.pt")
    assert refusal(tmp_path / "a.pt")[0].endswith("`weight` claims more numbers than the file holds")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pth", b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS, not the file itself"),
        ("a.pth", b"<!DOCTYPE html><html>", "is a web page, not weights"),
        ("a.pth", b"\x89HDF\r\n", "is an HDF5 file, as Keras writes"),
        ("a.pth", b"something", "is not a file that `torch.save` wrote"),
        ("a.h5", b"", "is a Keras file, whose layers torch networks do not have"),
        ("a.keras", b"", "is a Keras file, whose layers torch networks do not have"),
        ("a.joblib", b"", "is a pickle, which runs code when it is read"),
        ("a.jpeg", b"", "is not a kind of weights that is read"),
    ],
)
def test_files_of_other_kinds_are_refused_by_what_they_are(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    found, hint = refusal(tmp_path / name)
    assert found == f"`{tmp_path / name}` {message}"
    assert hint


def test_a_legacy_tar_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("pickle"), io.BytesIO())
    assert refusal(tmp_path / "a.tar")[0].endswith("is a tar archive of a torch before 0.1.10")


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_file_cut_short_is_refused(tmp_path, name):
    torch.save(STATE, tmp_path / "whole.pth")
    save_file(STATE, tmp_path / "whole.safetensors")
    whole = (tmp_path / f"whole{Path(name).suffix}").read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    assert refusal(tmp_path / name)[1] is not None


@pytest.mark.parametrize(("version", "safe"), [("2.9.1+cu128", False), ("2.10.0", True), ("2.14.1+cpu", True)])
def test_torch_files_are_read_only_by_a_torch_without_the_hole(version, safe):
    if safe:
        require_safe(version, Path("a.pth"))
        return
    with pytest.raises(LinneError, match="CVE-2026-24747") as failure:
        require_safe(version, Path("a.pth"))
    assert '"torch>=2.10"' in str(failure.value.hint)
    assert "`linne import` the file there: the bundle that it makes opens here" in str(failure.value.hint)


def test_what_is_not_there_is_said(tmp_path):
    assert refusal(tmp_path / "a.pth")[0] == f"no weights at `{tmp_path / 'a.pth'}`: there is no such file or folder"
    assert refusal(tmp_path)[0] == f"no weights in the folder `{tmp_path}`"


# Folders


def folder(path: Path, config: dict[str, Any], preprocessor: dict[str, Any] | None = None) -> Path:
    save_file(STATE, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(config))
    if preprocessor is not None:
        (path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return path


def test_a_timm_folder_says_its_labels_its_input_and_its_network(tmp_path):
    about = {
        "input_size": [3, 224, 224],
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.2, 0.2],
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "crop_mode": "center",
    }
    folder(tmp_path, {"architecture": "resnet18", "label_names": ["cat", "dog"], "pretrained_cfg": about})
    for path in (tmp_path, tmp_path / "model.safetensors"):
        weights = read_weights(path)
        assert (weights.labels, weights.model) == (("cat", "dog"), "timm/resnet18")
        assert weights.input == InputSpec(
            channels=3, height=224, width=224, mean=(0.5, 0.4, 0.3), std=(0.2,) * 3, crop_pct=0.875
        )
        assert weights.origin == str(path)


HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}


def hf_input(tmp_path: Path, preprocessor: dict[str, Any]) -> InputSpec | None:
    config = {"architectures": ["ViTForImageClassification"], "model_type": "vit", "id2label": {"1": "b", "0": "a"}}
    weights = read_weights(folder(tmp_path, config, preprocessor))
    assert (weights.labels, weights.model) == (("a", "b"), "hf:vit")
    return weights.input


@pytest.mark.parametrize(
    ("preprocessor", "height", "crop_pct", "mode", "wide_image_becomes"),
    [
        ({"size": 224}, 224, 1.0, "squash", (224, 224)),
        ({"size": {"height": 224, "width": 224}}, 224, 1.0, "squash", (224, 224)),
        (
            {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
            224,
            0.875,
            "center",
            (256, 512),
        ),
        ({"size": 224, "crop_size": 224, "do_center_crop": True}, 224, 1.0, "center", (224, 448)),
        (
            {"size": 256, "crop_size": 224, "do_center_crop": True, "feature_extractor_type": "DeiTFeatureExtractor"},
            224,
            0.875,
            "squash",
            (256, 256),
        ),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, 224, 0.875, "center", (256, 512)),
        ({"size": {"shortest_edge": 384}, "crop_pct": 1.0}, 384, 1.0, "squash", (384, 384)),
    ],
)
def test_every_way_to_write_a_size_is_understood(tmp_path, preprocessor, height, crop_pct, mode, wide_image_becomes):
    spec = hf_input(tmp_path, HALF | preprocessor)
    assert spec is not None
    assert (spec.height, spec.width, spec.crop_pct, spec.crop_mode) == (height, height, crop_pct, mode)
    assert resized_size(100, 200, spec) == wide_image_becomes
    assert spec.interpolation == "bilinear"


@pytest.mark.parametrize(
    "preprocessor",
    [{"size": {"shortest_edge": 224}}, {"size": 224, "do_resize": False}, {"size": {"longest_edge": 300}}],
)
def test_preprocessing_without_an_equal_is_left_unsaid(tmp_path, preprocessor):
    assert hf_input(tmp_path, HALF | preprocessor) is None


@pytest.mark.parametrize(
    ("preprocessor", "of_black", "of_white"),
    [
        ({}, -1.0, 1.0),
        ({"do_normalize": False}, 0.0, 1.0),
        ({"rescale_factor": 1 / 127.5}, -1.0, 3.0),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True}, -3.0, 1.0),
        ({"do_rescale": False}, -1.0, 509.0),
    ],
)
def test_pixels_become_the_numbers_that_the_preprocessor_makes_of_them(tmp_path, preprocessor, of_black, of_white):
    spec = hf_input(tmp_path, HALF | {"size": 224} | preprocessor)
    assert spec is not None
    seen = [(pixel - mean) / std for pixel in (0.0, 1.0) for mean, std in zip(spec.mean[:1], spec.std, strict=False)]
    assert seen == pytest.approx([of_black, of_white], abs=1e-9)


def test_placeholders_are_not_labels(tmp_path):
    folder(tmp_path, {"model_type": "vit", "id2label": {"0": "LABEL_0", "1": "LABEL_1"}})
    assert read_weights(tmp_path).labels is None


def test_a_sharded_set_is_read_whole_and_only_from_its_own_folder(tmp_path):
    names = {"conv.weight": "model-1-of-2.safetensors", "conv.bias": "model-2-of-2.safetensors"}
    for name, file in names.items():
        save_file({name: STATE[name]}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    weights = read_weights(tmp_path)
    assert same(weights.tensors)
    whole = b"".join(path.read_bytes() for path in (index, *(tmp_path / file for file in sorted(names.values()))))
    assert weights.sha256 == hashlib.sha256(whole).hexdigest()

    index.write_text(json.dumps({"weight_map": {**names, "conv.bias": "model-1-of-2.safetensors"}}))
    said = "lists `conv.bias` in `model-1-of-2.safetensors`, which does not hold it"
    assert refusal(tmp_path)[0] == f"`{index}` {said}"
    index.write_text(json.dumps({"weight_map": names}))
    (tmp_path / "model-2-of-2.safetensors").unlink()
    assert "names `model-2-of-2.safetensors`, which is not there" in refusal(tmp_path)[0]
    index.write_text(json.dumps({"weight_map": {"conv.bias": "../model.safetensors"}}))
    assert refusal(tmp_path)[0] == f"`{index}` names `../model.safetensors`, expected a file beside it"


def test_a_bundle_and_the_folder_of_its_run_say_everything(tmp_path):
    spec = InputSpec(channels=1, height=4, width=4, mean=(0.5,), std=(0.25,))
    bundle = write_null_bundle(tmp_path / "run" / "bundle", ["a", "b"], spec)
    for path in (tmp_path / "run", tmp_path / "run" / "bundle"):
        weights = read_weights(path)
        assert (weights.labels, weights.input, weights.model) == (("a", "b"), spec, "null/linear")
        assert weights.origin == str(path)
        assert weights.sha256 == bundle.files["model.safetensors"]["sha256"]
        assert set(weights.tensors) == set(bundle.weights())


def test_a_bundle_that_was_altered_is_refused(tmp_path):
    spec = InputSpec(channels=1, height=4, width=4, mean=(0.5,), std=(0.25,))
    write_null_bundle(tmp_path / "b", ["a", "b"], spec)
    with open(tmp_path / "b" / "model.safetensors", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    assert "`model.safetensors` was altered or damaged" in refusal(tmp_path / "b")[0]
