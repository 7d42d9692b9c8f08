"""The samples' programs run to their end: their lines, their files, and `--faithful` against their arithmetic."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from click.testing import CliRunner
from fakes import environment
from fixtures.cifar10_samples import write_cifar10
from PIL import Image
from torch.nn.functional import cross_entropy
from torch.utils import backend_registration
from torch.utils.data import DataLoader
from torchvision import transforms

from linne.cli import cli
from linne.compat.directml.predicting import predict
from linne.compat.directml.programs import Options
from linne.compat.directml.training import test as run_test
from linne.compat.directml.training import train, train_one
from linne.device import Device
from linne.errors import LinneError

pytestmark = pytest.mark.long

GOLDEN = Path(__file__).parent.parent / "golden" / "directml"
MODEL = "mobilenet_v3_small"
"""The quickest of the sixteen at 224 pixels, with dropout and batch norm."""


@pytest.fixture(autouse=True)
def _a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def invoke(*words):
    ended = CliRunner().invoke(cli, ["compat", "directml", *map(str, words)], prog_name="linne")
    assert ended.exit_code == 0, ended.output
    return ended


def masked(text, folder):
    """Return `text` without what changes from machine to machine: folder, times, losses, probabilities."""
    text = text.replace(str(folder), "HERE")
    text = re.sub(r"in [0-9.e-]+s", "in TIMEs", text)
    text = re.sub(r"loss: +[0-9]+\.[0-9]{6}\b", "loss: L.LLLLLL", text)
    text = re.sub(r"(images|batches) [0-9]+\.[0-9]{6}\b", r"\1 L.LLLLLL", text)
    return re.sub(r"^\w+ 0\.[0-9]+$", "LABEL PROBABILITY", text, flags=re.MULTILINE)


def assert_golden(name, text):
    assert text == (GOLDEN / name).read_text("utf-8"), "read the difference as a script that parses it would"


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What train, test and predict said, one after another in one folder; training images are all cats.

    So the network answers "cat" to each test image, one of each class, whatever its last digits are.
    """
    folder = tmp_path_factory.mktemp("samples")
    write_cifar10(folder / "cv" / "data" / "cifar-10-python", train_label=3)
    Image.effect_noise((300, 260), 80).convert("RGB").save(folder / "noise.png")
    common = ("--device", "cpu", "--model", MODEL)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        runs = {
            "train": invoke(
                "train", *common, "--batch_size", 1, "--epochs", 2, "--learning_rate", 0.01, "--save_model"
            ),
            "again": invoke("train", *common, "--epochs", 1, "--save_model"),
            "test": invoke("test", *common, "--batch_size", 4),
            "predict": invoke("predict", *common, "--image", "noise.png"),
        }
    return {name: (masked(run.stdout, folder), masked(run.stderr, folder)) for name, run in runs.items()}, folder


@pytest.mark.parametrize("name", ["train", "again", "test", "predict"])
def test_the_transcript_is_the_samples(said, name):
    out, notes = said[0][name]
    assert_golden(f"{name}.txt", out)
    assert_golden(f"{name}.stderr.txt", notes)


def test_the_checkpoint_is_a_dictionary_of_cpu_tensors_as_the_samples_write_it(said):
    path = said[1] / "cv" / "checkpoints" / MODEL / "cpu" / "checkpoint.pth"
    found = torch.load(path, weights_only=True)
    assert list(found) == list(getattr(torchvision.models, MODEL)(num_classes=10).state_dict())
    assert {tensor.device.type for tensor in found.values()} == {"cpu"}
    assert sorted(file.name for file in path.parent.iterdir()) == ["checkpoint.pth", "checkpoint.safetensors"]


def test_a_checkpoint_of_the_samples_is_read_and_one_of_another_network_refused(tmp_path):
    write_cifar10(tmp_path / "cv" / "data" / "cifar-10-python")
    path = tmp_path / "cv" / "checkpoints" / MODEL / "cpu" / "checkpoint.pth"
    path.parent.mkdir(parents=True)
    theirs = getattr(torchvision.models, MODEL)(num_classes=10)
    torch.save(theirs.state_dict(), path)
    notes = []
    options = Options(device="cpu", model=MODEL)
    run_test(options, lambda text: None, notes.append)
    assert notes[0] == f"weights from `{path.relative_to(tmp_path)}`"
    torch.save({"weight": torch.zeros(2)}, path)
    with pytest.raises(LinneError, match=f"does not hold the weights of `{MODEL}` for 10 classes"):
        run_test(options, lambda text: None, notes.append)


def test_trace_prints_torchs_table_of_one_batch_and_writes_the_trace_asked_for(tmp_path):
    write_cifar10(tmp_path / "cv" / "data" / "cifar-10-python")
    common = ("--device", "cpu", "--model", "squeezenet1_1", "--trace", "True")
    trained = invoke("train", *common, "--trace_file", tmp_path / "trace.json").stdout
    assert "shape=torch.Size([1, 3, 224, 224])" in trained
    assert "model_inference" in trained
    assert "ConvolutionBackward0" in trained
    assert trained.endswith("Done! with highest_accuracy:  0\n")
    assert "Test Error" not in trained
    assert json.loads((tmp_path / "trace.json").read_text("utf-8"))["traceEvents"]
    tested = invoke("test", *common)
    assert "model_inference" in tested.stdout
    assert "Test Error" not in tested.stdout
    assert "the weights are random" in tested.stderr


def test_trace_false_is_false(tmp_path):
    write_cifar10(tmp_path / "cv" / "data" / "cifar-10-python", per_file=1)
    words = ("train", "--device", "cpu", "--model", MODEL, "--trace", "False", "--epochs", 1)
    assert "Test Error: \n" in invoke(*words).stdout


@pytest.mark.parametrize("model", ["googlenet", MODEL])
def test_ci_train_trains_one_batch_and_tests_nothing(tmp_path, model):
    write_cifar10(tmp_path / "cv" / "data" / "cifar-10-python")
    out = []
    options = Options(device="cpu", model=model, ci_train=True, batch_size=2)
    trained = train_one(options, Device.pick("cpu"), out.append, lambda text: None)
    assert re.fullmatch(r"train \[    2/  110\] in [0-9.]+s", out[-2])
    assert out[-1] == "Done! with highest_accuracy:  0"
    assert trained.accuracy == 0


# What follows until `class_of` is the samples' arithmetic written down once more, from its description and not from
# linne's code: slow, plain, and with every fault that `--faithful` has to have.

NORMALIZE = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def pictures(folder, names, transform):
    rows = np.concatenate([np.fromfile(folder / name, np.uint8).reshape(-1, 3073) for name in names])

    class Pictures(torch.utils.data.Dataset):
        def __len__(self):
            return len(rows)

        def __getitem__(self, k):
            return transform(Image.fromarray(rows[k, 1:].reshape(3, 32, 32).transpose(1, 2, 0))), int(rows[k, 0])

    return Pictures()


def original(folder, model, *, epochs, batch_size, seed, faulty=True, side=224):
    """Return the network, and the accuracy and average loss after each epoch."""
    torch.manual_seed(seed)
    training = transforms.Compose(
        [transforms.RandomResizedCrop(side), transforms.RandomHorizontalFlip(), transforms.ToTensor(), NORMALIZE]
    )
    testing = transforms.Compose(
        [transforms.Resize(256), transforms.CenterCrop(side), transforms.ToTensor(), NORMALIZE]
    )
    names = [f"data_batch_{k}.bin" for k in range(1, 6)]
    batches = DataLoader(pictures(folder, names, training), batch_size=batch_size, shuffle=True)
    tests = DataLoader(pictures(folder, ["test_batch.bin"], testing), batch_size=batch_size)
    next(iter(batches))  # to print its shapes
    next(iter(tests))
    heads = {"googlenet": [0.3, 0.3], "inception_v3": [0.4]}.get(model, [])
    network = getattr(torchvision.models, model)(num_classes=10, **({"init_weights": True} if heads else {}))
    scores, sgd = [], None
    for _ in range(epochs):
        if not faulty:
            network.train()
        if faulty or sgd is None:
            sgd = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9, weight_decay=0.0001)
        for images, labels in batches:
            if heads:
                main, *more = network(images)
                loss = cross_entropy(main, labels)
                for weight, head in zip(heads, more, strict=True):
                    loss = loss + weight * cross_entropy(head, labels)
            else:
                if faulty:
                    network(images)
                loss = cross_entropy(network(images), labels)
            sgd.zero_grad()
            loss.backward()
            sgd.step()
        network.eval()
        losses, right = 0.0, 0.0
        with torch.no_grad():
            for images, labels in tests:
                answers = network(images)
                losses += cross_entropy(answers, labels).item()
                right += (answers.argmax(1) == labels).type(torch.float).sum().item()
        scores.append((right / len(tests.dataset), losses / len(tests)))
    return network, scores


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def trained_by_linne(model, **options):
    out = []
    trained = train(Options(device="cpu", model=model, **options), out.append, lambda text: None)
    return trained.network, [text for text in out if text.startswith("Test Error")]


@pytest.mark.parametrize("seed", [0, 5])
def test_faithful_training_gives_the_samples_weights_and_losses_to_the_bit(tmp_path, seed):
    folder = write_cifar10(tmp_path / "cv" / "data" / "cifar-10-python", per_file=4)
    theirs, scores = original(folder, MODEL, epochs=3, batch_size=8, seed=seed)
    ours, tests = trained_by_linne(MODEL, epochs=3, batch_size=8, seed=seed, faithful=True)
    assert same(ours, theirs)
    assert tests == [f"Test Error: \n Accuracy: {100 * a:>0.1f}%, Avg loss: {x:>8f} \n" for a, x in scores]


@pytest.mark.parametrize(("model", "side"), [("googlenet", 224), ("inception_v3", 299)])
def test_faithful_auxiliary_losses_give_the_samples_weights_to_the_bit(tmp_path, model, side):
    folder = write_cifar10(tmp_path / "cv" / "data" / "cifar-10-python", per_file=1)
    theirs, scores = original(folder, model, epochs=1, batch_size=3, seed=1, side=side)
    ours, tests = trained_by_linne(model, epochs=1, batch_size=3, seed=1, faithful=True)
    assert same(ours, theirs)
    assert f"Avg loss: {scores[0][1]:>8f} " in tests[0], "test images padded with zeros, for inception_v3"


def test_corrected_training_is_the_plain_loop_in_training_mode_with_one_optimiser_and_one_forward(tmp_path):
    folder = write_cifar10(tmp_path / "cv" / "data" / "cifar-10-python", per_file=4)
    plain, _ = original(folder, MODEL, epochs=2, batch_size=10, seed=0, faulty=False)
    ours, _ = trained_by_linne(MODEL, epochs=2, batch_size=10)
    faithful, _ = trained_by_linne(MODEL, epochs=2, batch_size=10, faithful=True)
    assert same(ours, plain)
    assert not same(ours, faithful)


def test_corrected_auxiliary_networks_train_past_epoch_one(tmp_path):
    write_cifar10(tmp_path / "cv" / "data" / "cifar-10-python", per_file=1)
    _, tests = trained_by_linne("googlenet", epochs=2, batch_size=3)
    assert len(tests) == 2


def test_the_average_loss_is_over_images_and_with_faithful_over_batches(tmp_path):
    write_cifar10(tmp_path / "cv" / "data" / "cifar-10-python", per_file=1)
    found = {}
    for faithful in (False, True):
        out, notes = [], []
        options = Options(device="cpu", model=MODEL, batch_size=9, epochs=1, faithful=faithful, learning_rate=0.0)
        train(options, out.append, notes.append)
        printed = re.search(r"Avg loss: ([0-9.]+)", "\n".join(out))[1]
        exact, of_batches = re.search(r"over images ([0-9.]+), over batches ([0-9.]+)", "\n".join(notes)).groups()
        found[faithful] = printed, exact, of_batches
    assert found[False][0] == found[False][1] != found[False][2]
    assert found[True][0] == found[True][2]


def test_faithful_prediction_sees_one_pixel_and_answers_tench_to_ostrich(tmp_path):
    Image.effect_noise((300, 260), 80).convert("RGB").save(tmp_path / "noise.png")
    options = Options(device="cpu", model=MODEL, image=tmp_path / "noise.png", faithful=True, seed=2)
    out, notes = [], []
    predict(options, out.append, notes.append)
    torch.manual_seed(2)
    network = getattr(torchvision.models, MODEL)(num_classes=10).eval()
    look = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(1), transforms.ToTensor(), NORMALIZE])
    with torch.no_grad():
        odds = network(look(Image.open(tmp_path / "noise.png"))[None])[0].softmax(0)
    fish_to_bird = "tench,goldfish,great white shark,tiger shark,hammerhead,electric ray,stingray,cock,hen,ostrich"
    best = odds.topk(5)
    named = [fish_to_bird.split(",")[k] for k in best.indices]
    assert out[1:] == [f"{name} {odd}" for name, odd in zip(named, best.values.tolist(), strict=True)]
    assert "the weights are random" in notes[0]


def test_faithful_prediction_says_so_where_the_samples_end_with_a_traceback(tmp_path):
    Image.new("RGB", (300, 260)).save(tmp_path / "black.png")
    options = Options(device="cpu", model="squeezenet1_0", image=tmp_path / "black.png", faithful=True)
    with pytest.raises(LinneError, match="cannot take the one pixel that the samples cut out") as caught:
        predict(options, [].append, [].append)
    assert caught.value.hint == "leave --faithful out"


@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend") and shutil.which("g++") is None,
    reason="this torch takes no device from Python, and there is no g++ to build one with",
)
def test_directml_trains_tests_and_predicts_with_its_own_checkpoints(tmp_path):
    write_cifar10(tmp_path / "cv" / "data" / "cifar-10-python", train_label=3, per_file=2)
    Image.new("L", (40, 30), 90).save(tmp_path / "grey.png")
    said = {}
    for words in (
        ["train", "--epochs", "2", "--batch_size", "5", "--save_model", "--learning_rate", "0.01"],
        ["test"],
        ["predict", "--image", "grey.png"],
    ):
        command = [sys.executable, "-m", "linne", "compat", "directml", *words, "--model", "squeezenet1_1"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment("directml"), cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        said[words[0]] = done.stdout
    assert "Finished moving squeezenet1_1 to device: privateuseone:0 in " in said["train"]
    assert (tmp_path / "cv/checkpoints/squeezenet1_1/dml/checkpoint.pth").is_file()
    assert "Test Error: \n" in said["test"]
    assert len(said["predict"].splitlines()) == 6
