"""Weights that linne did not train become bundles, and are evaluated and used by the name of their network."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs `linne[train]`")
timm = pytest.importorskip("timm", reason="needs `linne[train]`")

from click.testing import CliRunner  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

import linne  # noqa: E402
from linne import models  # noqa: E402
from linne.cli import cli  # noqa: E402
from linne.data.images.decode import decode_file  # noqa: E402
from linne.errors import LinneError, RecipeError  # noqa: E402
from linne.preprocess import normalise, resize_and_crop  # noqa: E402
from linne.weights.answers import FOLDER, SHOWN  # noqa: E402
from linne.weights.finding import find, spec_of  # noqa: E402

MODEL = "timm/test_resnet"
NAMES = ("cat", "cup", "rocket")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of weights whose batch norms have seen the photographs, as those of a trained network have."""
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=len(NAMES))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean of all that is seen
    network.train()
    spec = spec_of(models.input_defaults(MODEL))
    images = [resize_and_crop(decode_file(FOLDER / name, 3), spec) for name in SHOWN]
    with torch.no_grad():
        network(torch.from_numpy(normalise(np.stack(images), spec)))
    file = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_file(network.state_dict(), file)
    return file


@pytest.fixture
def labels(tmp_path):
    file = tmp_path / "labels.txt"
    file.write_text("\n".join(NAMES) + "\n", "utf-8")
    return file


def run(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="linne")


def test_an_imported_bundle_answers_as_the_network_does(weights, labels, tmp_path):
    imported = linne.import_weights(weights, tmp_path / "out", model=MODEL, labels=labels, quiet=True)
    assert imported.fit.fresh == imported.fit.dropped == ()
    assert imported.proof.problem is None
    network = timm.create_model("test_resnet", num_classes=len(NAMES), checkpoint_path=str(weights)).eval()
    spec = spec_of(models.input_defaults(MODEL))
    photograph = resize_and_crop(decode_file(FOLDER / "cat.jpg", 3), spec)
    with torch.no_grad():
        expected_K = network(torch.from_numpy(normalise(photograph[None], spec)))[0].softmax(0)
    (answer,) = linne.predict(tmp_path / "out", FOLDER / "cat.jpg", top=3)
    found = dict(zip(answer.labels, answer.probabilities, strict=True))
    # The predictor decodes at a reduced size: half a level of 255 on average.
    assert [found[name] for name in NAMES] == pytest.approx(expected_K.tolist(), abs=0.01)


def test_the_bundle_says_where_its_weights_are_from(weights, labels, tmp_path):
    bundle = linne.import_weights(weights, tmp_path / "out", model=MODEL, labels=labels, quiet=True).bundle
    said = bundle.provenance["imported"]
    assert said["weights"] == str(weights)
    assert len(said["sha256"]) == 64
    assert said["proof"]["problem"] is None
    assert "imported from" in linne.bundle.model_card(bundle)


def test_a_folder_that_says_its_network_needs_no_model(weights, labels, tmp_path):
    first = linne.import_weights(weights, tmp_path / "first", model=MODEL, labels=labels, quiet=True)
    second = linne.import_weights(tmp_path / "first", tmp_path / "second", quiet=True)
    assert second.bundle.labels == NAMES
    assert second.bundle.canaries == first.bundle.canaries


def test_a_file_that_does_not_say_its_network_asks_for_it(weights, tmp_path):
    with pytest.raises(RecipeError, match="does not say which network it is of") as caught:
        linne.import_weights(weights, tmp_path / "out", quiet=True)
    assert caught.value.hint == "add --model NAME"


def test_classes_without_names_ask_for_a_file(weights, tmp_path):
    with pytest.raises(RecipeError, match="does not say what its 3 classes are") as caught:
        linne.import_weights(weights, tmp_path / "out", model=MODEL, quiet=True)
    assert caught.value.hint == "use --labels FILE, with one name a line in the order of the classes"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a\n\nb\nc", "abc"),
        ('["a", "b", "c"]', "abc"),
        ('{"1": "b", "0": "a", "2": "c"}', "abc"),
        ("\ufeffa\nb\nc", "abc"),
    ],
    ids=["lines", "list", "id2label", "with a mark of order"],
)
def test_labels_are_read_as_people_write_them(weights, tmp_path, text, names):
    file = tmp_path / "names"
    file.write_text(text, "utf-8")
    imported = linne.import_weights(weights, tmp_path / "out", model=MODEL, labels=file, quiet=True)
    assert imported.bundle.labels == tuple(names)
    assert imported.labels_from == f"`{file}`"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nb", "names 2 classes, and the weights have 3"),
        ("[1, 2, 3]", "hold something that is no text"),
        ('{"0": "a", "2": "c"}', "are neither one a line nor a JSON list"),
        ("[", "are neither one a line nor a JSON list"),
    ],
)
def test_labels_that_do_not_fit_are_refused(weights, tmp_path, text, message):
    file = tmp_path / "names"
    file.write_text(text, "utf-8")
    with pytest.raises(RecipeError, match=message):
        linne.import_weights(weights, tmp_path / "out", model=MODEL, labels=file, quiet=True)
    assert not (tmp_path / "out").exists()


def test_another_scaling_is_refused_and_the_right_one_is_named(weights, labels, tmp_path):
    scaled = ("--preprocess", "mean=0,0,0", "--preprocess", "std=0.0039,0.0039,0.0039")
    asked = ("import", weights, "--model", MODEL, "--labels", labels, "--output", tmp_path / "out", *scaled)
    ended = run(*asked)
    assert ended.exit_code == 3
    assert "the first batch norm sees variances" in ended.stderr
    assert "they fit mean and deviation 0.5: mean=0.5,0.5,0.5 std=0.5,0.5,0.5" in ended.stderr
    assert not (tmp_path / "out").exists()
    assert run(*asked, "--unproved").exit_code == 0


def test_a_network_that_would_stay_partly_random_is_refused(weights, labels, tmp_path):
    tensors = {name: tensor for name, tensor in load(weights).items() if name != "layer1.0.bn1.running_mean"}
    save_file(tensors, tmp_path / "part.safetensors")
    with pytest.raises(RecipeError, match=r"leaves parts of .* without weights: layer1\.0\.bn1\.running_mean"):
        linne.import_weights(tmp_path / "part.safetensors", tmp_path / "out", model=MODEL, labels=labels, quiet=True)


def load(file):
    from safetensors.torch import load_file

    return load_file(file)


def test_the_command_prints_the_bundle_and_json_holds_what_was_found(weights, labels, tmp_path):
    asked = ("import", weights, "--model", MODEL, "--labels", labels)
    ended = run(*asked, "--output", tmp_path / "one")
    assert ended.stdout == f"{tmp_path / 'one'}\n"
    assert "tensors taken as they are" in ended.stderr
    found = json.loads(run(*asked, "--output", tmp_path / "two", "--json").stdout)
    assert found["labels_from"] == f"`{labels}`"
    assert found["proof"]["problem"] is None


def test_a_network_is_used_by_its_name_and_made_a_bundle_once(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("LINNE_CACHE", str(tmp_path / "cache"))
    bundle = linne.import_weights(weights, tmp_path / "b", model=MODEL, labels=names_in(tmp_path), quiet=True).bundle
    first = run("predict", "--model", MODEL, "--weights", bundle.path, FOLDER / "cat.jpg", "--json")
    again = run("predict", MODEL, FOLDER / "cat.jpg", "--weights", bundle.path, "--json")
    assert first.exit_code == again.exit_code == 0
    assert json.loads(first.stdout) == json.loads(again.stdout)
    assert "making a bundle of" in first.stderr
    assert "making a bundle of" not in again.stderr
    (kept,) = (tmp_path / "cache" / "pretrained").iterdir()
    assert kept.name.startswith("timm-test_resnet-")


def names_in(folder):
    file = folder / "names.txt"
    file.write_text("\n".join(NAMES), "utf-8")
    return file


def test_a_model_without_an_image_is_a_usage_error():
    assert run("predict", "timm/test_resnet").exit_code == 2


def test_a_checkpoint_of_the_directml_samples_is_known_by_its_place(tmp_path, capsys):
    import torchvision

    torch.manual_seed(0)
    file = tmp_path / "cv" / "checkpoints" / "squeezenet1_1" / "dml" / "checkpoint.pth"
    file.parent.mkdir(parents=True)
    torch.save(torchvision.models.squeezenet1_1(num_classes=10).state_dict(), file)
    imported = linne.import_weights(file, tmp_path / "out", unproved=True)
    assert imported.bundle.labels[:3] == ("airplane", "automobile", "bird")
    assert imported.bundle.model["name"] == "squeezenet1_1"
    spec = imported.bundle.input
    assert (spec.height, spec.crop_pct, spec.interpolation, spec.mean[0]) == (224, 0.875, "bilinear", 0.485)
    assert "lies where a DirectML sample keeps its torchvision/squeezenet1_1" in capsys.readouterr().err
    # What the guide says to put beside the old file for a torch that must not read it.
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(weights[name], tensor) for name, tensor in torch.load(file, weights_only=True).items())
    other = linne.import_weights(file, tmp_path / "b", unproved=True, preprocess={"scaling": "half"}, quiet=True)
    assert other.bundle.input.mean == (0.5, 0.5, 0.5)


def test_keras_files_and_saved_models_are_no_weights_of_a_network_and_say_what_takes_them(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"PK")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"")
    for name, message in (("model.keras", "is a Keras file, whose layers"), ("saved", "is a SavedModel of TensorFlow")):
        with pytest.raises(LinneError, match=message) as caught:
            linne.import_weights(tmp_path / name, tmp_path / "out", model=MODEL, quiet=True)
        assert caught.value.hint == "`linne import` without --model makes a bundle of it"


def test_a_folder_that_is_called_default_is_not_taken_for_the_default_weights(tmp_path, monkeypatch):
    (tmp_path / "default").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find("default", "torchvision/resnet18").offered.tag == "IMAGENET1K_V1"
    assert find("./default", "torchvision/resnet18").offered is None


def test_a_tag_and_other_weights_beside_it_are_refused(weights, tmp_path):
    with pytest.raises(RecipeError, match="weights are named twice: `a1_in1k`"):
        linne.import_weights(weights, tmp_path / "out", model="timm/resnet18.a1_in1k", quiet=True)
    with pytest.raises(RecipeError, match="weights are named twice: `a1_in1k`"):
        linne.predict("timm/resnet18.a1_in1k", FOLDER / "cat.jpg", weights="a2_in1k")


def test_a_bare_name_of_a_network_is_no_bundle_and_gets_the_full_one():
    ended = run("predict", "mobilenet_v2", FOLDER / "cat.jpg")
    assert ended.exit_code == 1
    assert "no bundle at `mobilenet_v2`" in ended.stderr
    assert "a network with pretrained weights is typed `torchvision/mobilenet_v2`" in ended.stderr


def test_weights_of_another_network_are_refused_with_the_one_they_look_like(weights, labels, tmp_path):
    file = tmp_path / "weights.safetensors"
    save_file(timm.create_model("mobilenetv2_100").state_dict(), file)
    with pytest.raises(RecipeError, match=r"of `timm/test_resnet`: they have no `fc\.bias`") as caught:
        linne.import_weights(file, tmp_path / "out", model=MODEL, labels=labels, quiet=True)
    assert caught.value.hint == "they look like weights of `timm/mobilenetv2_100`"


def test_a_misspelt_field_of_preprocessing_is_named_with_those_there_are(weights, labels, tmp_path):
    ended = run("import", weights, "--model", MODEL, "--preprocess", "meen=1", "--output", tmp_path / "out")
    assert "no field `meen` of preprocessing" in ended.stderr
    assert "mean" in ended.stderr.partition("hint:")[2]


def test_a_network_that_nobody_prepares_images_for_is_imported_with_what_was_said(tmp_path):
    torch.manual_seed(0)
    ref = models.describe("small", num_classes=3, channels=3, height=16, width=24)
    save_file(models.build(ref).state_dict(), tmp_path / "small.safetensors")
    names = names_in(tmp_path)
    asked = {"model": "small", "labels": names, "unproved": True, "quiet": True}
    with pytest.raises(RecipeError, match="nobody says what size and scaling") as caught:
        linne.import_weights(tmp_path / "small.safetensors", tmp_path / "out", preprocess={"height": 16}, **asked)
    assert caught.value.hint == "type --preprocess width=... --preprocess mean=... --preprocess std=..."
    said = {"height": 16, "width": 24, "scaling": "half"}
    bundle = linne.import_weights(tmp_path / "small.safetensors", tmp_path / "out", preprocess=said, **asked).bundle
    assert (bundle.input.height, bundle.input.width, bundle.input.mean) == (16, 24, (0.5, 0.5, 0.5))
